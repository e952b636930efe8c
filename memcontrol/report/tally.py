"""What is known of a search while it runs: what is done, what its workers are at, and how long the rest takes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from memcontrol.config import RunConfig
from memcontrol.report import read_trials
from memcontrol.report.standing import Standing, reference_points, standing
from memcontrol.report.time_left import Ahead, Spread
from memcontrol.run import RunFolder
from memcontrol.study.events import Finished, Progress
from memcontrol.study.references import FREEZE, FULL

TRAJECTORIES = 3
"""Of full fine-tuning, where the configuration names no rates for them."""
TRIAL = "trial"


@dataclass
class Tally:
    """What is done, from the run folder (an earlier part of the run, other workers) and from events.

    Attributes:
        config: of the run.
        clock: monotonic seconds.
        confirms: whether the front is confirmed when the search is done.
        began: when this was made.
        rows: of `trials.csv`.
        standing: the front so far.
        references: that were scored.
        done, failed: numbers of the trials that count towards the budget, and that ended with an error.
        seconds: of each trial that completed while this was watching, from the end of what its worker did before.
        busy: by worker, what it last said.
    """

    folder: RunFolder
    config: RunConfig
    clock: Callable[[], float] = time.monotonic
    confirms: bool = True
    began: float = field(init=False)
    standing: Standing = field(init=False)
    rows: list[dict[str, str]] = field(default_factory=list)
    references: set[str] = field(default_factory=set)
    done: set[int] = field(default_factory=set)
    failed: set[int] = field(default_factory=set)
    seconds: list[float] = field(default_factory=list)
    busy: dict[int, Progress | None] = field(default_factory=dict)
    _trajectories: list[float] = field(default_factory=list)
    _since: dict[int, float] = field(default_factory=dict)
    _own: set[int] = field(default_factory=set)
    _read: tuple[int, frozenset[str]] | None = None

    def __post_init__(self) -> None:
        """Read what an earlier part of the run left."""
        self.began = self.clock()
        self.refresh()
        self._before = frozenset(self.done)

    def refresh(self) -> None:
        """Read the run folder again where it has changed."""
        changed = self.folder.trials.stat().st_mtime_ns if self.folder.trials.is_file() else -1
        self.references = {path.stem for path in self.folder.references.glob("*.json")}
        if (found := (changed, frozenset(self.references))) == self._read:
            return
        self._read, self.rows = found, read_trials(self.folder)
        self.done |= {int(row["number"]) for row in self.rows if row["state"] in ("complete", "pruned")}
        self.failed |= {int(row["number"]) for row in self.rows if row["state"] == "fail"}
        self.standing = standing(self.rows, reference_points(self.folder), self.config.scoring.objectives)

    def add(self, event: Progress | Finished) -> None:
        """Take note of an event."""
        now, worker = self.clock(), event.worker
        if isinstance(event, Progress):
            before = self.busy.get(worker)
            if worker not in self._since or (before is not None and before.work != event.work):
                self._since[worker] = now  # else its work began when what it did before ended, with the proposal
            self.busy[worker] = event
            return
        took = max(event.seconds, now - self._since.get(worker, now))
        self.busy[worker], self._since[worker] = None, now
        if event.trial is None:
            self._trajectories += [took] if _kind(event.work) == FULL and not event.error else []
        elif event.error:
            self.failed.add(event.trial)
        else:
            self.done.add(event.trial)
            self._own.add(event.trial)
            self.seconds.append(took)

    @property
    def reference_count(self) -> int:
        """References that the run asks for: full fine-tuning at each rate, and the untuned model."""
        rates = self.config.search.trajectory_rates
        return (TRAJECTORIES if rates is None else len(rates)) + 1

    @property
    def watched_s(self) -> float:
        """How long this has been watching."""
        return self.clock() - self.began

    def time_left(self) -> str | None:
        """`about 8 to 14 min left`, references and confirmation included; None until trials say how long one takes."""
        seen = Spread.of(self.seconds)
        return None if seen is None else self._ahead(seen.mean).text(seen)

    def _ahead(self, trial_s: float) -> Ahead:
        points, now = self.config.search.trajectory_points, self.clock()
        # Each point of a trajectory is a training of its own.
        length = max(len(points), sum(points))
        reference = statistics.fmean(self._trajectories) / trial_s if self._trajectories else length
        cost = {TRIAL: 1.0, FULL: reference, FREEZE: 0.0}
        at_work = [said for said in self.busy.values() if said is not None and said.phase != "load"]
        begun = [(_kind(said.work), now - self._since[said.worker]) for said in at_work]
        trials = sum(kind == TRIAL for kind, _ in begun)
        others = len(self.done - self._before - self._own)
        return Ahead(
            trials=max(0, self.config.search.budget - len(self.done) - trials),
            references=max(0, self.reference_count - len(self.references) - (len(begun) - trials)),
            begun=[(cost[kind], spent) for kind, spent in begun],
            idle=len(self.busy) - len(begun),
            after=self._confirmations(),
            reference=reference,
            speed=1 + others / max(1, len(self._own)),
        )

    def _confirmations(self) -> int:
        """Trainings that confirm the front: at most its masks, a random one beside each, and full fine-tuning."""
        asked, front = self.config.confirm, len(self.standing.front)
        if not self.confirms or not asked.seeds:
            return 0
        rows = asked.trainings // asked.seeds
        return asked.seeds * (min(rows, 2 * front + 1) if front else rows)


def _kind(work: str) -> str:
    return next((kind for kind in (FREEZE, FULL) if work.startswith(kind)), TRIAL)
