"""References as a study of their own: each is scored once, by whichever worker on whichever host takes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from memcontrol.study.shared import SharedStudy, was_interrupted

NAME = "reference"


def references_of(study: str) -> str:
    """Name of the study of a search's references."""
    return f"{study}-references"


@dataclass(frozen=True)
class ReferenceWork:
    """A reference to score, and the trial that it is in its study."""

    name: str
    trial: optuna.Trial


class ReferenceStudy(SharedStudy[str]):
    """Who scores which reference, and what came of it; a trial's value is its wall time in seconds."""

    def work_of(self, trial: FrozenTrial) -> str | None:
        """The reference's name."""
        return trial.user_attrs.get(NAME)

    def kept_attributes(self, trial: FrozenTrial) -> dict[str, Any]:
        """Which reference it is."""
        return {NAME: trial.user_attrs[NAME]}

    def claim(self, names: Sequence[str]) -> ReferenceWork | None:
        """The first of these references that nobody scored or has; None where there is none.

        One that failed is not tried again before `forgive`.
        """

        def claimed() -> ReferenceWork | None:
            with self.lock:
                self.recover()
                known = self.latest()
                new = [name for name in names if name not in known]
                if new and not any(trial.state == TrialState.WAITING for trial in known.values()):
                    self.queue({}, {}, {NAME: new[0]})
                trial = self.take()
            return None if trial is None else ReferenceWork(trial.user_attrs[NAME], trial)

        return self.database.patiently(claimed)

    def has_work(self, names: Sequence[str]) -> bool:
        """Whether some reference can be claimed, as far as can be seen without a claim."""
        known = self.latest()
        return any(name not in known or self._is_free(known[name]) for name in names)

    def _is_free(self, trial: FrozenTrial) -> bool:
        lost = was_interrupted(trial) and not self.given_up(trial)
        return lost or trial.state == TrialState.WAITING

    def forgive(self) -> None:
        """Queue again what failed."""

        def forgiven() -> None:
            with self.lock:
                for name, trial in self.latest().items():
                    failed = not was_interrupted(trial) or self.given_up(trial)
                    if trial.state == TrialState.FAIL and failed:
                        self.queue({}, {}, {NAME: name})

        self.database.patiently(forgiven)

    def write(
        self, work: ReferenceWork, points: Sequence[dict[str, Any]], seconds: float, error: str | None = None
    ) -> bool:
        """Record a reference's points, or why it failed; returns whether that counts."""
        if error is not None:
            return self.fail(work, error, {})
        return self.end(work, {"points": list(points)}, [seconds])

    def points(self) -> dict[str, list[dict[str, Any]]]:
        """Every scored reference: its name, and its points."""
        scored = {
            str(name): trial.user_attrs["points"]
            for name, trial in self.latest().items()
            if trial.state == TrialState.COMPLETE
        }
        return dict(sorted(scored.items()))

    def adopt(self, known: dict[str, list[dict[str, Any]]]) -> None:
        """Take over what a folder's files know from before references were kept in a study."""

        def adopted() -> None:
            with self.lock:
                if self.trials():
                    return
                for name, points in known.items():
                    attributes = {NAME: name, "points": points}
                    self.study.add_trial(create_trial(value=0.0, user_attrs=attributes, state=TrialState.COMPLETE))

        if known:
            self.database.patiently(adopted)
