"""A search while it runs: a live display on a terminal, plain lines elsewhere, JSON lines for scripts."""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import asdict, dataclass, field
from threading import Lock
from types import TracebackType
from typing import Literal, Self, TextIO

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from memcontrol.config import RunConfig
from memcontrol.report import read_trials
from memcontrol.report.wording import duration_text, mask_blocks, number_text, rate_text
from memcontrol.run import RunFolder
from memcontrol.score import direction
from memcontrol.study.events import Event, Finished, Note, Progress
from memcontrol.study.front import front_positions

MOST_FRONT_ROWS = 10
TRAJECTORIES = 3
"""Of full fine-tuning, where the configuration names no rates for them."""
SECONDS_NEEDED = 2
"""So many trials must have finished before their time says anything."""


class JsonLines:
    """A listener that writes each event as one JSON object on one line; `event` is its kind."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def __call__(self, event: Event) -> None:
        """Write an event."""
        self.stream.write(json.dumps({"event": type(event).__name__.lower()} | asdict(event)) + "\n")
        self.stream.flush()


@dataclass
class Tally:
    """What is done, from `trials.csv` (an earlier part of the run, other workers) and from events.

    Attributes:
        rows: of `trials.csv`.
        done, failed: numbers of the trials that count towards the budget, and that ended with an error.
        seconds: of each trial that completed while this was watching.
        busy: by worker, what it last said.
    """

    folder: RunFolder
    rows: list[dict[str, str]] = field(default_factory=list)
    done: set[int] = field(default_factory=set)
    failed: set[int] = field(default_factory=set)
    seconds: list[float] = field(default_factory=list)
    busy: dict[int, Progress | None] = field(default_factory=dict)
    _read_at: int = -1

    def refresh(self) -> None:
        """Read `trials.csv` again where it has changed."""
        changed = self.folder.trials.stat().st_mtime_ns if self.folder.trials.is_file() else -1
        if changed == self._read_at:
            return
        self._read_at, self.rows = changed, read_trials(self.folder)
        self.done |= {int(row["number"]) for row in self.rows if row["state"] in ("complete", "pruned")}
        self.failed |= {int(row["number"]) for row in self.rows if row["state"] == "fail"}

    def add(self, event: Progress | Finished) -> None:
        """Take note of an event."""
        self.busy[event.worker] = event if isinstance(event, Progress) else None
        if isinstance(event, Finished) and event.trial is not None:
            (self.failed if event.error else self.done).add(event.trial)
            self.seconds += [] if event.error else [event.seconds]

    def seconds_left(self, budget: int) -> float | None:
        """Median trial time times rounds of workers still to come; None until enough trials say how long one takes."""
        if len(self.seconds) < SECONDS_NEEDED:
            return None
        rounds = math.ceil(max(0, budget - len(self.done)) / max(1, len(self.busy)))
        return statistics.median(self.seconds) * rounds

    def front(self, objectives: tuple[str, ...]) -> list[dict[str, str]]:
        """The rows of `trials.csv` that no other dominates in these objectives."""
        # A folder may hold a study of other objectives until the search has refused it.
        rows = [row for row in self.rows if row["state"] == "complete" and all(row.get(name) for name in objectives)]
        signs = [1.0 if direction(name) == "lower" else -1.0 for name in objectives]
        points = np.array([[float(row[name]) for name in objectives] for row in rows]).reshape(-1, len(objectives))
        return [rows[i] for i in front_positions(points * signs)]


class LiveView:
    """Shows a search; a listener, and a context manager around it.

    On a terminal the display is redrawn in place. Elsewhere each note and each finished piece of work is one line.

    Args:
        config: of the run.
        folder: of the run, for what an earlier part of it did and for the masks on the front.
        console: where to show it.
    """

    def __init__(self, config: RunConfig, folder: RunFolder, console: Console) -> None:
        self.config, self.console = config, console
        self.tally = Tally(folder)
        self._lock, self._over = Lock(), False  # a thread of rich's draws while events come in
        animated = console.is_terminal and not console.is_dumb_terminal
        self._live = Live(get_renderable=self._drawn, console=console, refresh_per_second=4) if animated else None

    def __enter__(self) -> Self:
        self.tally.refresh()
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over = True
        if self._live is not None:
            self._live.stop()

    def __call__(self, event: Event) -> None:
        """Show an event."""
        if isinstance(event, Note):
            return self._say(event.text)
        with self._lock:
            self.tally.refresh()
            self.tally.add(event)
        if isinstance(event, Finished) and (self._live is None or event.error):
            self._say(self._line(event))
        return None

    def _say(self, text: str) -> None:
        self.console.print(Text(text), soft_wrap=self._live is None)

    def _line(self, event: Finished) -> str:
        took = f"{event.seconds:.1f} s"
        if event.error:
            return f"{event.work}  failed  {took}  {event.error.splitlines()[0]}"
        if event.trial is None:
            return f"{event.work}  reference {self._references_text()}  {took}"
        scores = [f"{name} {number_text(value)}" for name, value in (event.scores or {}).items()]
        pruned = [event.pruned] if event.pruned else []
        return "  ".join([event.work, self._done_text(), took, *pruned, *scores, *self._time_left()])

    def _done_text(self) -> str:
        return f"{len(self.tally.done)}/{self.config.search.budget}"

    def _references_text(self) -> str:
        rates = self.config.search.trajectory_rates
        total = (TRAJECTORIES if rates is None else len(rates)) + 1
        return f"{len(list(self.tally.folder.references.glob('*.json')))}/{total}"

    def _time_left(self) -> list[str]:
        left = self.tally.seconds_left(self.config.search.budget)
        return [f"about {duration_text(left)} left"] if left else []

    def _drawn(self) -> RenderableType:
        with self._lock:
            self.tally.refresh()
            if self._over:
                return self._bars()
            return Group(self._header(), self._bars(), *([self._front()] if self.tally.rows else []))

    def _header(self) -> Text:
        config, sampler = self.config, self._sampler()
        parts = f"{config.data.source} on {config.model}, space {config.space}, sampler {sampler}, seed {config.seed}"
        return Text(parts, style="bold", no_wrap=True, overflow="ellipsis")

    def _sampler(self) -> str:
        search, bits = self.config.search, [len(row["mask"]) for row in self.tally.rows if row["mask"]]
        if search.sampler != "auto" or not bits:
            return search.sampler
        from memcontrol.study.proposals import chosen_sampler

        return chosen_sampler(search.sampler, budget=search.budget, groups=bits[0])

    def _bars(self) -> Table:
        budget, tally = self.config.search.budget, self.tally
        grid = Table.grid(padding=(0, 1))
        for _ in range(2):
            grid.add_column(no_wrap=True)
        grid.add_column(width=max(4, min(40, self.console.width - 55)))
        grid.add_column(no_wrap=True, overflow="ellipsis")
        unknown = "..." if self.console.options.ascii_only else "…"
        left = [] if self._over else self._time_left() or [f"{unknown} left"]
        failed = [f"{len(tally.failed)} failed"] if tally.failed else []
        bar = ProgressBar(total=budget, completed=len(tally.done))
        grid.add_row("trials", self._done_text(), bar, ", ".join(failed + left))
        grid.add_row("references", self._references_text(), "", "")
        for number, now in sorted(() if self._over else tally.busy.items()):
            if now is None:
                grid.add_row(f"worker {number}", "", "", "")
            else:
                step = ProgressBar(total=max(1, now.total), completed=now.done)
                grid.add_row(f"worker {number}", now.work, step, f"{now.phase} {now.done}/{now.total}")
        return grid

    def _front(self) -> Table:
        objectives = self.config.scoring.objectives
        rows = self.tally.front(objectives)
        more = f"and {len(rows) - MOST_FRONT_ROWS} more" if len(rows) > MOST_FRONT_ROWS else None
        table = Table(title="front so far", title_justify="left", caption=more, caption_justify="left", box=None)
        for name in ("trial", "trains", "rate", *objectives):
            justify: Literal["left", "right"] = "left" if name == "trains" else "right"
            table.add_column(name, justify=justify, overflow="fold", no_wrap=name in ("trial", "rate"))
        for row in rows[:MOST_FRONT_ROWS]:
            rate = rate_text(float(row["learning_rate"]) if row["learning_rate"] else None)
            blocks = mask_blocks(row["mask"], ascii_only=self.console.options.ascii_only)
            table.add_row(row["number"], blocks, rate, *(number_text(float(row[name])) for name in objectives))
        return table
