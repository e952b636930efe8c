"""`memcontrol confirm`, which the end of `memcontrol search` does too."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from memcontrol.cli.options import DEFAULTS, AsJson, Workers, exit_codes, option, worker_count

if TYPE_CHECKING:
    from memcontrol.run import RunFolder
    from memcontrol.study.events import Listener

_defaults = DEFAULTS.confirm


def confirm(
    run: Annotated[Path, typer.Argument(help="Run folder of a search.")],
    seeds: Annotated[
        list[str] | None, option("Fresh seeds: 101,102 or 101-105; may be repeated.", f"101-{100 + _defaults.seeds}")
    ] = None,
    trainings: Annotated[int | None, option("Trainings at most; more confirm more masks.", _defaults.trainings)] = None,
    measures: Annotated[
        str | None, option("Scored besides the objectives: measure@encoder,...", "the objectives on another encoder")
    ] = None,
    workers: Workers = "auto",
    as_json: AsJson = False,
) -> None:
    """Train the front, full fine-tuning and random masks again: fresh seeds, held-out images the search did not use.

    Example: memcontrol confirm runs/brain-tiny-stage-kinds --seeds 101-105 --trainings 40
    """
    with exit_codes("what was finished is kept, the same command goes on"):
        from memcontrol.errors import MemControlError
        from memcontrol.report.closing import closing_json
        from memcontrol.report.live import JsonLines
        from memcontrol.run import RunFolder

        if trainings is not None and trainings < 1:
            raise MemControlError(f"--trainings {trainings}: expected a number of at least 1")
        folder, console = RunFolder(run), Console()
        folder.read_front()
        listener = JsonLines(sys.stdout) if as_json else confirmation_lines(folder, console)
        named = None if measures is None else tuple(name.strip() for name in measures.split(",") if name.strip())
        run_confirm(
            folder,
            seeds=chosen_seeds(seeds),
            trainings=trainings,
            measures=named,
            workers=worker_count(workers),
            listener=listener,
        )
        if as_json:
            sys.stdout.write(json.dumps({"event": "result"} | closing_json(folder.read_front(), folder)) + "\n")
            return
        print_confirmed(folder, console)
        console.print(f"Written to {folder.path}", markup=False, highlight=False, soft_wrap=True)


def chosen_seeds(texts: list[str] | None) -> tuple[int, ...] | None:
    """Seeds as options name them; None where none are named.

    Raises:
        MemControlError: text that is no seed.
    """
    from memcontrol.comparison.config import listed_seeds
    from memcontrol.errors import MemControlError

    if not texts:
        return None
    try:
        found = listed_seeds(texts)
    except ValueError as error:
        raise MemControlError(f"--seeds {' '.join(texts)}: {error}") from error
    return tuple(int(str(seed)) for seed in found) if isinstance(found, list) else None


def confirmation_lines(folder: RunFolder, console: Console) -> Listener:
    """A listener that writes a line for each training again."""
    from memcontrol.comparison.results import ComparisonFolder
    from memcontrol.report.comparison import ComparisonLines

    return ComparisonLines(ComparisonFolder(folder.confirmation), console)


def run_confirm(
    folder: RunFolder,
    *,
    workers: int | None,
    listener: Listener,
    seeds: tuple[int, ...] | None = None,
    trainings: int | None = None,
    measures: tuple[str, ...] | None = None,
) -> None:
    """Confirm a run, or some of it before it is interrupted, and draw its pictures again.

    Raises:
        MemControlError: bad input, or a confirmation that cannot go on.
        KeyboardInterrupt: it was interrupted; what is done is kept.
    """
    from memcontrol.confirming.confirming import confirm as run
    from memcontrol.report import write_report

    try:
        run(folder.path, seeds=seeds, trainings=trainings, measures=measures, workers=workers, listener=listener)
    except KeyboardInterrupt:
        write_report(folder)
        raise
    write_report(folder)


def print_confirmed(folder: RunFolder, console: Console) -> None:
    """Print the confirmed scores beside the search's, and what they say."""
    from memcontrol.report.confirmed import confirmed_members, confirmed_sentences, confirmed_table

    front = folder.read_front()
    if confirmed_members(front):
        console.print(confirmed_table(front, ascii_only=console.options.ascii_only))
    for sentence in confirmed_sentences(front):
        console.print(sentence, highlight=False)
