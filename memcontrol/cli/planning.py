"""What commands share that can be planned instead of run: two options, and a plan printed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from memcontrol.errors import MemControlError

if TYPE_CHECKING:
    from memcontrol.planning import Plan

DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check data, weights, memory and time, print the plan, and stop.")
]
Tflops = Annotated[
    float | None,
    typer.Option(min=1e-6, help="With --dry-run: TFLOP/s that one worker sustains.", show_default="measured"),
]
PlanJson = Annotated[bool, typer.Option("--json", help="With --dry-run: print JSON, for scripts.")]


def refuse_without_dry_run(dry_run: bool, tflops: float | None, as_json: bool = False) -> None:
    """Refuse options that only a plan heeds.

    Raises:
        MemControlError: one of them was given without `--dry-run`.
    """
    given = "--tflops" if tflops is not None else "--json" if as_json else None
    if given and not dry_run:
        raise MemControlError(f"{given} says something to --dry-run alone: add that, or leave {given} out")


def print_plan(make: Callable[[], Plan], *, as_json: bool = False) -> None:
    """Print a plan, and end with exit code 1 where the command could not start.

    Raises:
        Exit: with 1 where something is missing.
    """
    from memcontrol.report.planning import plan_lines

    plan = make()
    if as_json:
        sys.stdout.write(json.dumps(plan.to_json(), indent=1) + "\n")
    else:
        Console().print(plan_lines(plan), highlight=False)
    if not plan.ready:
        raise typer.Exit(1)
