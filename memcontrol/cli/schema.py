"""`memcontrol schema`."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from memcontrol.cli.options import exit_codes


def formats_starting(incomplete: str) -> list[str]:
    """Names of formats, for the shell to complete."""
    from memcontrol.schemas import FORMATS

    return [name for name in FORMATS if name.startswith(incomplete)]


def schema(
    name: Annotated[
        str | None, typer.Argument(help="Of a format; all are listed without it.", autocompletion=formats_starting)
    ] = None,
) -> None:
    """Print the JSON schema (draft 2020-12) of a file format, or the list of formats.

    Example: memcontrol schema mask
    """
    with exit_codes():
        from memcontrol.schemas import FORMATS, format_named

        if name is not None:
            sys.stdout.write(json.dumps(format_named(name).schema(), indent=1) + "\n")
            return
        table = Table(box=None, show_header=False)
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for one in FORMATS.values():
            table.add_row(one.name, Text(f"{one.what} In: {one.where}.".replace("`", "")))
        Console().print(table, highlight=False)
