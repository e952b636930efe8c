"""`memcontrol audit`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from memcontrol.cli.options import (
    DEFAULTS,
    AsJson,
    Seed,
    Weights,
    configured,
    exit_codes,
    option,
)
from memcontrol.cli.reading import Reading, with_reading_options
from memcontrol.data import check_source

if TYPE_CHECKING:
    from memcontrol.auditing.config import AuditConfig

AUDIT_OPTIONS = {
    "train.source": "--train",
    "sampling.images": "--samples",
    "sampling.steps": "--sampling-steps",
    "scoring.encoder_weights": "--weights",
}


@with_reading_options
def audit(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder for the report; the same command goes on there.")],
    train: Annotated[str, typer.Option(help="What was trained on: brain, faces, digits, a path, or hf:NAME.")],
    model: Annotated[str | None, option("Pipeline to audit: a folder, a hub id, tiny or tiny-sd.")] = None,
    images: Annotated[str | None, option("Folder of synthetic images to examine without a model.")] = None,
    holdout: Annotated[str | None, option("Images that were never seen.", "what tuning on --train leaves out")] = None,
    samples: Annotated[int | None, option("Images generated.", 512)] = None,
    sampling_steps: Annotated[int | None, option("Steps of the sampler.", DEFAULTS.sampling.steps)] = None,
    guidance: Annotated[
        float | None, option("Classifier-free guidance; 1 is none.", DEFAULTS.sampling.guidance)
    ] = None,
    encoders: Annotated[str | None, option("Encoders to use.", "efficientnet-lite0,pixels,latents")] = None,
    weights: Weights = None,
    extraction: Annotated[
        str | None, option("calibrated,carlini-2023,memcontrol-2024: some of them.", "calibrated")
    ] = None,
    prompts: Annotated[
        int | None, option("Most captions that extraction tries.", DEFAULTS.scoring.attack.prompts)
    ] = None,
    generations: Annotated[int | None, option("Images extraction makes of each.", "as the rules say")] = None,
    permutations: Annotated[int | None, option("Shuffles behind each null band.", 200)] = None,
    resolution: Annotated[int | None, option("Size all images are brought to, with --images.", "their own")] = None,
    seed: Seed = None,
    as_json: AsJson = False,
    *,
    reading: Reading,
) -> None:
    """Examine a model, or a folder of images, for copies of its training images, with controls.

    Example: memcontrol audit --model tuned --train brain --out audits/tuned
    """
    with exit_codes("what was finished is kept, the same command goes on"):
        from memcontrol.auditing.config import AuditConfig

        top = {"model": model, "images": images, "resolution": resolution, "holdout": holdout, "seed": seed}
        changes: dict[str, dict[str, Any]] = {
            "": top,
            "train": {"source": train, **reading},
            "sampling": {"images": samples, "steps": sampling_steps, "guidance": guidance},
            "scoring": {
                "encoders": encoders,
                "encoder_weights": weights or None,
                "extraction": extraction,
                "permutations": permutations,
            },
            "scoring.attack": {"prompts": prompts, "generations": generations},
        }
        settings = configured(AuditConfig, {}, changes, AUDIT_OPTIONS)
        _run_audit(settings, out, written_command(context), as_json=as_json)


def written_command(context: typer.Context) -> str:
    """The command that was given, with every option that was."""
    words = ["memcontrol", str(context.info_name)]
    for parameter in context.command.params:
        name, value = str(parameter.name), context.params.get(str(parameter.name))
        source = context.get_parameter_source(name)
        if name == "as_json" or source is None or source.name != "COMMANDLINE":
            continue
        for item in value if isinstance(value, list | tuple) else [value]:
            words += [parameter.opts[0], str(item)]
    return shlex.join(words)


def _run_audit(settings: AuditConfig, out: Path, command: str, *, as_json: bool) -> None:
    for source in filter(None, (settings.train.source, settings.holdout)):
        check_source(source)
    from memcontrol.auditing.examining import audit as examine
    from memcontrol.auditing.keeping import AuditFolder
    from memcontrol.report.audit_page import audit_page
    from memcontrol.report.audit_table import audit_tables
    from memcontrol.report.phases import phase_progress
    from memcontrol.run import write_atomically

    # JSON alone goes to stdout.
    console, folder = Console(stderr=as_json), AuditFolder(out)
    with phase_progress(console) as on_step:
        document = examine(
            settings,
            out,
            on_note=lambda text: console.print(text, highlight=False, markup=False, soft_wrap=True),
            on_step=on_step,
            command=command,
        )
    write_atomically(folder.page, audit_page(document, out))
    if as_json:
        sys.stdout.write(folder.document.read_text(encoding="utf-8"))
        return
    console.print(audit_tables(document, width=console.width, ascii_only=console.options.ascii_only))
    console.print(f"Written to {folder.page} and {folder.document}", markup=False, highlight=False, soft_wrap=True)
