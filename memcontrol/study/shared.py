"""One Optuna study as several processes share it: whose it is, who works on what, and what became of each trial."""

from __future__ import annotations

import json
import math
import os
import socket
import time
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.samplers import BaseSampler, RandomSampler
from optuna.storages import RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.trial import FrozenTrial, TrialState, create_trial

from memcontrol.config import RunConfig, flattened
from memcontrol.errors import RunError, reason
from memcontrol.run import RunFolder, is_full
from memcontrol.study.execution import Execution
from memcontrol.study.heartbeat import Heartbeat, time_limit
from memcontrol.study.storage import StudyDatabase, quiet

if TYPE_CHECKING:
    from memcontrol.score import Score

FINGERPRINTS = ("architecture", "weights", "data content", "space content")
"""Parts of a study's identity that say little to a reader, and that other settings decide."""
RETRIES = 3
"""So many times a trial is tried again whose worker was lost; then it has failed."""
GIVEN_BACK = "given back"
"""Attribute of trials that ended by no fault of theirs and without losing a worker, as by Ctrl-C."""
CLAIMED_BY = "claimed by"
"""Attribute that names a trial's worker: `HOST:PROCESS`."""


Work = TypeVar("Work", bound=Hashable)
"""What a trial is for."""


class Claimed(Protocol):
    """A piece of work that one worker has."""

    @property
    def trial(self) -> optuna.Trial:
        """The trial that it is in the study."""


class SharedStudy(Generic[Work]):
    """A study in Optuna's relational storage; who claims from it holds `lock`, so that a claim is one act.

    A trial waits until it is taken; its worker then beats for it. One that is not heard of any more is failed, and
    queued again, as often as `RETRIES`. What a worker reports after that is dropped.

    Args:
        name: of the study in the run folder; where hosts share it, they name it, and this is the end of further ones.
        identity: what must be the same for trials to be comparable; kept with the study.
        sampler: of the study; nothing is asked of it where trials are queued with all that they need.
        elsewhere: what messages offer to those who want other settings.
        database: where another study beside this one is open already.

    Raises:
        RunError: the study has another identity (the message names the differences).
    """

    def __init__(
        self,
        folder: RunFolder,
        name: str,
        *,
        directions: Sequence[Literal["minimize", "maximize"]],
        identity: Mapping[str, str],
        sampler: BaseSampler | None = None,
        elsewhere: str = "another --out",
        execution: Execution | None = None,
        database: StudyDatabase | None = None,
    ) -> None:
        self.folder, self.elsewhere = folder, elsewhere
        self.database = database or StudyDatabase(folder, execution or Execution())
        self.execution, self.lock = self.database.execution, self.database.lock
        self._recovered_at, self._works = -math.inf, dict[int, Work]()

        def joined() -> optuna.Study:
            with self.lock:
                study = optuna.create_study(
                    study_name=name,
                    storage=self.database.storage,
                    sampler=sampler or RandomSampler(seed=0),
                    directions=list(directions),
                    load_if_exists=True,
                )
                self._check_identity(study, identity)
            return study

        self.study = self.database.patiently(joined)

    def _check_identity(self, study: optuna.Study, identity: Mapping[str, str]) -> None:
        known = study.user_attrs.get("identity")
        if known is None:
            study.set_user_attr("identity", dict(identity))
            return
        # A setting that came after the study was made had its default's effect there.
        known = flattened(RunConfig().model_dump(mode="json")) | known
        different = {
            key: f"{key} was {known.get(key)}, now {now}" for key, now in identity.items() if known.get(key) != now
        }
        named = [text for key, text in different.items() if key not in FINGERPRINTS]
        if different:
            raise RunError(
                f"{self._place(study)} holds a study made with other settings: "
                f"{'; '.join(named or different.values())}; use the same settings to resume it, or {self.elsewhere}"
            )

    def _place(self, study: optuna.Study) -> str:
        shared = f"study {study.study_name} in {self.database.shown}"
        return shared if self.execution.shared else str(self.folder.path)

    def trials(self) -> list[FrozenTrial]:
        """All trials, in order."""
        return self.database.patiently(lambda: self.study.get_trials(deepcopy=False))

    def others_running(self) -> bool:
        """Whether some trial is unfinished, so that its worker's loss or its failure could leave something to do."""
        return any(trial.state == TrialState.RUNNING for trial in self.trials())

    def work_of(self, trial: FrozenTrial) -> Work | None:
        """What a trial is for, the same for one that is tried again; None where that cannot be told."""
        raise NotImplementedError

    def known_work_of(self, trial: FrozenTrial) -> Work | None:
        """The same for a trial of this study, worked out once: what a trial is for never changes."""
        if trial.number not in self._works and (work := self.work_of(trial)) is not None:
            self._works[trial.number] = work
        return self._works.get(trial.number)

    def latest(self, trials: Sequence[FrozenTrial] | None = None) -> dict[Work, FrozenTrial]:
        """What became of each piece of work: where it completed or was pruned, that, else its last trial.

        Args:
            trials: all of them, where they were read already.
        """
        found: dict[Work, FrozenTrial] = {}
        for trial in self.trials() if trials is None else trials:
            work = self.known_work_of(trial)
            counted = (TrialState.COMPLETE, TrialState.PRUNED)
            if work is not None and not (work in found and found[work].state in counted):
                found[work] = trial
        return found

    def queue(
        self,
        params: Mapping[str, Any],
        distributions: Mapping[str, BaseDistribution],
        attributes: Mapping[str, Any],
    ) -> None:
        """Add a trial that waits to be taken."""
        waiting = create_trial(
            state=TrialState.WAITING,
            params=dict(params),
            distributions=dict(distributions),
            user_attrs=dict(attributes),
        )
        self.study.add_trial(waiting)

    def take(
        self,
        distributions: dict[str, BaseDistribution] | None = None,
        trials: Sequence[FrozenTrial] | None = None,
    ) -> optuna.Trial | None:
        """The first trial that waits, to be worked on; None where none does. The lock is held.

        It beats before it runs, so that every trial that runs has been heard of.

        Args:
            trials: all of them, where they were read already.
        """
        known = self.trials() if trials is None else trials
        waiting = next((trial for trial in known if trial.state == TrialState.WAITING), None)
        if waiting is None:
            return None
        self.database.beat(waiting._trial_id)
        with quiet():
            trial = self.study.ask(distributions)
        if trial.number != waiting.number:
            self.database.beat(trial._trial_id)
        trial.set_user_attr(CLAIMED_BY, f"{socket.gethostname()}:{os.getpid()}")
        return trial

    def recover(self) -> list[FrozenTrial]:
        """Fail trials that are not heard of any more, and queue again what ended by no fault of its own.

        The lock is held.

        Returns:
            all trials as they are then.
        """
        self._recovered_at = time.monotonic()
        with quiet():
            fail_stale_trials(self.study)
            again = RetryHeartbeatStaleTrialCallback()
        trials = self.trials()
        lost = [t for t in self.latest(trials).values() if was_interrupted(t) and not self.given_up(t, trials)]
        for trial in lost:
            again(self.study, self._afresh(trial))
        return self.trials() if lost else trials

    def recovery_due(self) -> bool:
        """Whether the last look for lost workers was a heartbeat ago."""
        return time.monotonic() - self._recovered_at >= self.execution.heartbeat_s

    def _afresh(self, trial: FrozenTrial) -> FrozenTrial:
        """The trial with nothing of what its worker had found out."""
        copied = create_trial(
            state=TrialState.FAIL,
            params=trial.params,
            distributions=trial.distributions,
            user_attrs=self.kept_attributes(trial),
            system_attrs=dict(trial.system_attrs) | {"retry_history": list(lost_before(trial))},
        )
        copied.number = trial.number
        return copied

    def kept_attributes(self, trial: FrozenTrial) -> dict[str, Any]:  # noqa: ARG002 - for studies that keep some
        """Attributes of a trial that the one has too that takes its place."""
        return {}

    def given_up(self, trial: FrozenTrial, trials: Sequence[FrozenTrial] | None = None) -> bool:
        """Whether a trial's workers were lost so often that it is not tried again.

        Args:
            trials: all of them, where they were read already.
        """
        if not was_interrupted(trial) or GIVEN_BACK in trial.user_attrs:
            return False
        known = {one.number: one for one in (self.trials() if trials is None else trials)}
        before = [known[number] for number in lost_before(trial) if number in known]
        return 1 + sum(GIVEN_BACK not in one.user_attrs for one in before) > RETRIES

    def release_running(self) -> int:
        """Give back all that runs: right only where no worker can be alive. Returns how many there were."""

        def released() -> int:
            with self.lock:
                running = [trial for trial in self.trials() if trial.state == TrialState.RUNNING]
                for trial in running:
                    self._end(trial.number, {GIVEN_BACK: True}, None, TrialState.FAIL)
            return len(running)

        return self.database.patiently(released)

    def complete(
        self, work: Claimed, scores: Mapping[str, Score], objectives: tuple[str, ...], extra: Mapping[str, Any]
    ) -> bool:
        """Record a trial's scores; returns whether they count: not where the trial was given to another worker."""
        told = {"scores": {name: score.to_json() for name, score in scores.items()}} | dict(extra)
        return self.end(work, told, [scores[name].value for name in objectives])

    def fail(self, work: Claimed, error: str, extra: Mapping[str, Any]) -> bool:
        """Record why a trial failed; returns whether that counts."""
        return self.end(work, {"error": error} | dict(extra), state=TrialState.FAIL)

    def abandon(self, work: Claimed) -> bool:
        """Record that a trial was interrupted; what it was for comes again. Returns whether that counts."""
        return self.end(work, {GIVEN_BACK: True}, state=TrialState.FAIL)

    def stop_where_full(self, work: Claimed, error: Exception) -> None:
        """Give work back where nothing can be written any more: it, and what follows it, would fail for that alone.

        Raises:
            RunError: that is so.
        """
        if is_full(error):
            self.abandon(work)
            raise RunError(
                f"cannot write to {self.folder.path} ({reason(error)}): what was finished is kept; make room there, "
                "and the same command goes on"
            ) from error

    def end(
        self,
        work: Claimed,
        attributes: Mapping[str, Any],
        values: Sequence[float] | None = None,
        state: TrialState | None = None,
    ) -> bool:
        """Record how a trial ended: attributes first, then values or a state, which are written in one act.

        Returns:
            whether it counts: not where the trial was taken for lost, and failed, before.
        """
        number = work.trial.number
        ended = self.database.patiently(lambda: self._end(number, attributes, values, state))
        self.database.rest()
        return ended

    def _end(
        self, number: int, attributes: Mapping[str, Any], values: Sequence[float] | None, state: TrialState | None
    ) -> bool:
        wanted = state or TrialState.COMPLETE
        known = self.trials()[number]
        if known.state.is_finished():
            # Where the connection broke after the last word, that word was heard.
            told = json.loads(json.dumps(dict(attributes)))
            return known.state == wanted and told.items() <= known.user_attrs.items()
        trial = optuna.Trial(self.study, known._trial_id)
        try:
            for key, value in attributes.items():
                trial.set_user_attr(key, value)
            self.study.tell(trial, values, state=state)
        except UpdateFinishedTrialError:
            return False
        except ValueError:
            if not self.trials()[number].state.is_finished():
                raise
            return False
        return True

    @contextmanager
    def working_on(self, work: Claimed, limit_s: float | None = None) -> Iterator[Heartbeat]:
        """Inside, the trial is heard of, and ends where it takes too long.

        Raises:
            TrialTimeoutError: it took longer than `limit_s`.
        """
        self.database.rest()
        identifier, execution = work.trial._trial_id, self.execution

        def stuck(reason: str) -> None:
            self.database.fail_apart(self.study.study_name, work.trial.number, reason)

        beat = Heartbeat(lambda: self.database.beat_apart(identifier), execution.heartbeat_s)
        with beat, time_limit(limit_s, stuck):
            yield beat


def was_interrupted(trial: FrozenTrial) -> bool:
    """Whether a trial ended for no fault of its own, so that what it was for may be tried again."""
    return trial.state == TrialState.FAIL and "error" not in trial.user_attrs


def lost_before(trial: FrozenTrial) -> tuple[int, ...]:
    """Numbers of the trials in whose place this one came."""
    with quiet():
        return tuple(RetryHeartbeatStaleTrialCallback.retry_history(trial))
