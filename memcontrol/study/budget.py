"""A study with a budget: exactly so many finished trials, whoever works on it, and none of them twice."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from memcontrol.errors import RunError
from memcontrol.study.shared import SharedStudy, was_interrupted

COUNTED = (TrialState.COMPLETE, TrialState.PRUNED)
SEARCH = "search"
"""Name of a search's study in a run folder."""
BUDGET = "budget"
"""Attribute of a study: how many trials it is to have."""
HOPELESS = 5
"""So many failed trials with none completed end a search."""


class BudgetStudy(SharedStudy[Hashable]):
    """A study whose trials are proposed one after another, until so many are finished.

    Attributes:
        budget: completed and pruned trials in all.
    """

    budget: int

    def proposed(self, history: Sequence[FrozenTrial], number: int) -> Mapping[str, Any] | None:
        """Parameters of a trial that is not in the history; None where there are no others."""
        raise NotImplementedError

    def distributions(self) -> dict[str, BaseDistribution]:
        """Of a trial's parameters."""
        raise NotImplementedError

    def claim(self) -> optuna.Trial | None:
        """A trial to work on, or None where the budget is claimed or the space exhausted.

        Where that can be seen without the lock, it is only taken to look for lost workers now and then. What waits
        comes first: what was enqueued by hand, and what was a lost worker's.

        Raises:
            RunError: every trial so far failed.
        """
        return self.database.patiently(self._claim) if self.has_work() or self.recovery_due() else None

    def _claim(self) -> optuna.Trial | None:
        with self.lock:
            trials = self.recover()  # reading all trials is most of a claim's cost: again only after a change
            while self._has_room(trials):
                if not any(trial.state == TrialState.WAITING for trial in trials):
                    params = self.proposed(self.history(trials), len(trials))
                    if params is None:
                        return None
                    self.queue(params, self.distributions(), {})
                    trials = self.trials()
                trial = self.take(self.distributions(), trials)
                trials = self.trials()
                if trial is not None and not self._seen_before(trial, trials):
                    return trial
                trials = self.trials()
        return None

    def enqueue(self, candidates: Sequence[Mapping[str, Any]]) -> None:
        """Queue trials of these parameters, all of those that a trial has; those that the study knows are left out."""

        def queued() -> None:
            with self.lock:
                known = set(self.latest())
                for params in candidates:
                    wanted = self.work_of(optuna.create_trial(value=0.0, params=dict(params), distributions=all_of))
                    if wanted not in known:
                        self.queue(params, all_of, {})
                        known.add(wanted)

        all_of = self.distributions()
        self.database.patiently(queued)

    def history(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """The trials that a proposal depends on: not what was interrupted and comes again."""
        names = self.distributions().keys()
        return [t for t in trials if t.params.keys() >= names and (not was_interrupted(t) or self.given_up(t, trials))]

    def counted(self, trials: Sequence[FrozenTrial] | None = None) -> list[FrozenTrial]:
        """Trials that use the budget."""
        return [trial for trial in (self.trials() if trials is None else trials) if trial.state in COUNTED]

    def has_work(self) -> bool:
        """Whether a place in the budget is free, as far as can be seen without a claim."""
        return self._claimed(self.trials()) < self.budget

    def _has_room(self, trials: Sequence[FrozenTrial]) -> bool:
        ended = [trial for trial in trials if trial.state == TrialState.FAIL]
        failed = [trial for trial in ended if not was_interrupted(trial) or self.given_up(trial, trials)]
        if len(failed) >= HOPELESS and len(failed) >= len(self.counted(trials)):
            reason = failed[-1].user_attrs.get("error", "its workers were lost")
            raise RunError(f"{len(failed)} trials failed, the last because: {reason}")
        return self._claimed(trials) < self.budget

    def _claimed(self, trials: Sequence[FrozenTrial]) -> int:
        running = sum(trial.state == TrialState.RUNNING for trial in trials)
        return len(self.counted(trials)) + running

    def _seen_before(self, trial: optuna.Trial, trials: Sequence[FrozenTrial]) -> bool:
        """Whether another trial is for the same; then this one, enqueued by hand, is ended."""
        own = self.known_work_of(trials[trial.number])
        for other in trials:
            same = other.number != trial.number and self.known_work_of(other) == own
            if same and other.state != TrialState.WAITING and not was_interrupted(other):
                error = f"trial {other.number} is for the same candidate"
                self._end(trial.number, {"error": error}, None, TrialState.FAIL)
                return True
        return False

    def work_of(self, trial: FrozenTrial) -> Hashable | None:
        """The parameters, where all are there."""
        params = all_params(trial)
        return tuple(sorted(params.items())) if params.keys() >= self.distributions().keys() else None


def all_params(trial: FrozenTrial) -> dict[str, Any]:
    """A trial's parameters, with those that it was enqueued with and has not been asked for."""
    return dict(trial.system_attrs.get("fixed_params", {}) | trial.params)
