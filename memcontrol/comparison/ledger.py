"""The study of a comparison: one trial for each row and seed, queued once, and claimed by workers in order of seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial, TrialState

from memcontrol.errors import RunError
from memcontrol.run import RunFolder
from memcontrol.score import direction
from memcontrol.study.proposals import Direction
from memcontrol.study.shared import SharedStudy, was_interrupted

STUDY = "comparison"
HOPELESS = 5
"""So many failed trainings with none completed end a comparison."""
Key = tuple[str, int]
"""A row's name and a seed."""


@dataclass(frozen=True)
class CellWork:
    """A row to train with one seed, and the trial that it is in the study."""

    cell: str
    seed: int
    trial: optuna.Trial

    @property
    def number(self) -> int:
        """The trial's number."""
        return self.trial.number


class CellLedger(SharedStudy[Key]):
    """Who trains which row with which seed, and what came of it.

    Args:
        cells: name -> hash of what the row is; rows may be added to a folder's comparison later, and not changed.
        seeds: in the order in which they are worked through.
        elsewhere: what messages offer to those who want other rows or settings.

    Raises:
        RunError: the folder's comparison was made with other settings, or has another row of that name.
    """

    def __init__(
        self,
        folder: RunFolder,
        *,
        cells: Mapping[str, str],
        seeds: Sequence[int],
        objectives: Sequence[str],
        identity: Mapping[str, str],
        elsewhere: str = "another --out",
    ) -> None:
        directions: list[Direction] = ["minimize" if direction(name) == "lower" else "maximize" for name in objectives]
        sampler = RandomSampler(seed=0)
        super().__init__(folder, STUDY, directions=directions, identity=identity, sampler=sampler, elsewhere=elsewhere)
        self.cells, self.seeds = dict(cells), tuple(seeds)
        self.keys: tuple[Key, ...] = tuple((name, seed) for seed in self.seeds for name in self.cells)
        with self.lock:
            self._check_cells()

    def _check_cells(self) -> None:
        known: dict[str, str] = self.study.user_attrs.get("cells", {})
        changed = [name for name, content in self.cells.items() if known.get(name, content) != content]
        if changed:
            raise RunError(
                f"{self.folder.path} holds another row {changed[0]}: its rate, groups or strengths were others; "
                f"use the same to resume it, or {self.elsewhere}"
            )
        if not self.cells.keys() <= known.keys():
            self.study.set_user_attr("cells", known | self.cells)

    def check_data(self, seed: int, content: str) -> None:
        """Keep the fingerprint of a seed's data set, or see that it is the one known.

        Raises:
            RunError: it is another.
        """
        with self.lock:
            known = self.study.user_attrs.get(f"data {seed}")
            if known is None:
                self.study.set_user_attr(f"data {seed}", content)
            elif known != content:
                raise RunError(
                    f"the data of seed {seed} changed since {self.folder.path} was begun: use the same data to "
                    f"resume it, or {self.elsewhere}"
                )

    def enqueue(self) -> int:
        """Queue what is not done, in order of seeds; returns how many trainings are.

        What an earlier launch left running is released, and what failed then is tried again.
        """
        self.release_running()
        with self.lock:
            latest = self.latest()
            settled = (TrialState.COMPLETE, TrialState.WAITING)
            for name, seed in self.keys:
                known = latest.get((name, seed))
                if known is None or known.state not in settled:
                    self.queue({}, {}, {"cell": name, "seed": seed})
            return sum(trial.state == TrialState.COMPLETE for trial in latest.values())

    def claim(self) -> CellWork | None:
        """The next training that is queued, or None where there is none left.

        Raises:
            RunError: every training so far failed.
        """
        return self.database.patiently(self._claim)

    def _claim(self) -> CellWork | None:
        with self.lock:
            self.recover()
            latest = self.latest().values()
            failed = [trial for trial in latest if trial.state == TrialState.FAIL and not was_interrupted(trial)]
            if len(failed) >= HOPELESS and not any(trial.state == TrialState.COMPLETE for trial in latest):
                raise RunError(f"{len(failed)} trainings failed, the last because: {failed[-1].user_attrs['error']}")
            while (trial := self.take()) is not None:
                key = _key(trial.user_attrs)
                if key in self.keys:
                    return CellWork(*key, trial)
                self.study.tell(trial, state=TrialState.FAIL)  # of an earlier command, which asked for more
        return None

    def work_of(self, trial: FrozenTrial) -> Key | None:
        """The row and seed, of those that are asked for."""
        key = _key(trial.user_attrs)
        return key if key in self.keys else None

    def kept_attributes(self, trial: FrozenTrial) -> dict[str, Any]:
        """Row and seed."""
        return {name: trial.user_attrs[name] for name in ("cell", "seed")}

    def completed(self, cell: str) -> dict[int, FrozenTrial]:
        """Seed -> training of every seed that a row ever completed here, whether it is asked for now or not."""
        found: dict[int, FrozenTrial] = {}
        for trial in self.trials():
            name, seed = _key(trial.user_attrs)
            if name == cell and trial.state == TrialState.COMPLETE:
                found[seed] = trial
        return dict(sorted(found.items()))


def _key(attributes: Mapping[str, object]) -> Key:
    """Of a trial; of one whose queueing was killed halfway, a key that nothing has."""
    seed = attributes.get("seed")
    return str(attributes.get("cell")), seed if isinstance(seed, int) else -1
