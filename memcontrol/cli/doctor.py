"""`memcontrol doctor`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import typer
from rich.console import Console

from memcontrol.cli.options import AsJson, exit_codes


def doctor(as_json: AsJson = False) -> None:
    """Say what this machine has and what is missing: packages, devices, data, weights, disk, and how to get them.

    It ends with 0 where the default search can run, with 1 and the reason where it cannot. Nothing is fetched.

    Example: memcontrol doctor
    """
    with exit_codes():
        from memcontrol.installation import diagnose

        diagnosis = diagnose(Path.cwd())
        if as_json:
            sys.stdout.write(json.dumps(diagnosis.to_json(), indent=1) + "\n")
        else:
            from memcontrol.report.doctor import diagnosis_lines

            Console().print(diagnosis_lines(diagnosis), highlight=False)
        if not diagnosis.ready:
            raise typer.Exit(1)
