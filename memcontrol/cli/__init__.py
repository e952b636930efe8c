"""The command line: options in, one call, and what came of it printed; one file a command, or a few."""

from __future__ import annotations

import os
import signal
from typing import Annotated

import typer

from memcontrol.cli import audit, compare, confirm, doctor, finetune, masks, report, schema, search, status, transfer
from memcontrol.study.placement import keep_freed_memory

app = typer.Typer(
    name="memcontrol",
    help="Find which parameters of a diffusion model to fine-tune, so that it learns the images and copies little.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"memcontrol {version('memcontrol')}")
        raise typer.Exit


@app.callback()
def main_options(
    _version: Annotated[
        bool, typer.Option("--version", help="Show the release and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Every command: memcontrol COMMAND --help."""
    # One thread a process: more are slower on shared cores. An explicit setting is kept.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    keep_freed_memory()
    # Image processors warn about torchvision, which nothing here uses.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


# In the order of --help.
app.command()(search.search)
app.command()(status.status)
app.command()(confirm.confirm)
app.command()(report.report)
app.command()(masks.inspect)
app.command()(masks.export)
app.command("import")(masks.import_)
app.command()(finetune.finetune)
app.command()(transfer.transfer)
app.command()(compare.compare)
app.command()(audit.audit)
app.command()(doctor.doctor)
app.command()(schema.schema)


def main() -> None:
    """Run the command line; SIGTERM is taken as Ctrl-C is, so that workers stop and results are kept."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    app()
