"""`memcontrol status`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from memcontrol.cli.options import AsJson, exit_codes, with_options
from memcontrol.cli.sharing import PLACE, Sharing, named_study
from memcontrol.errors import MemControlError


def with_place_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the options that name a shared study in place of its keyword `place`."""
    return with_options(command, "place", PLACE)


@with_place_options
def status(
    run: Annotated[Path | None, typer.Argument(help="Run folder of a search.")] = None,
    as_json: AsJson = False,
    *,
    place: Sharing,
) -> None:
    """Show how far a search is: trials by state, workers heard of, the front so far, and the time left.

    Example: memcontrol status --study brain
    """
    with exit_codes():
        from memcontrol.report.status import status_lines
        from memcontrol.run import RunFolder
        from memcontrol.study.execution import Execution
        from memcontrol.study.status import status_of

        study = named_study(place)
        if (run is None) == (study is None):
            raise MemControlError("name a run folder, or a shared study with --study, and not both")
        found = status_of(RunFolder(run or Path()), Execution(study))
        if as_json:
            sys.stdout.write(json.dumps(found.to_json()) + "\n")
            return
        console = Console()
        for line in status_lines(found):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
