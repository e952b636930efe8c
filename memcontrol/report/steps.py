"""Progress of one fine-tuning: a bar on a terminal, some lines elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from memcontrol.finetuning import Step

LINES = 10
"""So many lines tell of a fine-tuning where there is no terminal."""


@contextmanager
def step_progress(console: Console, steps: int) -> Iterator[Callable[[Step], None]]:
    """Inside, a function to call after each of `steps` steps."""
    if not console.is_terminal:
        every = max(1, steps // LINES)

        def tell(step: Step) -> None:
            if step.number % every == 0 or step.number == steps:
                console.print(f"step {step.number}/{steps}  loss {step.loss:.4f}", highlight=False)

        yield tell
        return
    columns = (TextColumn("tuning"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task("", total=steps)
        yield lambda step: progress.update(task, completed=step.number, description=f"loss {step.loss:.4f}")
