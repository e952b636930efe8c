"""One Optuna study in a run folder, as several processes share it: whose it is, and what became of each trial."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import optuna
from filelock import FileLock, Timeout
from optuna.samplers import BaseSampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from memcontrol.config import RunConfig
from memcontrol.errors import RunError
from memcontrol.run import RunFolder
from memcontrol.score import Score
from memcontrol.study.proposals import Direction
from memcontrol.study.trial import flattened

FINGERPRINTS = ("architecture", "weights", "data content", "space content")
"""Parts of a study's identity that say little to a reader, and that other settings decide."""


class Claimed(Protocol):
    """A piece of work that one worker has."""

    @property
    def trial(self) -> optuna.Trial:
        """The trial that it is in the study."""


class SharedStudy:
    """A study in Optuna's relational storage; who claims from it holds `lock`, so that a claim is one act.

    Args:
        identity: what must be the same for trials to be comparable; kept with the study.
        sampler: of the study; nothing is asked of it where trials are queued with all that they need.
        elsewhere: what messages offer to those who want other settings.

    Raises:
        RunError: the folder's study has another identity (the message names the differences).
    """

    def __init__(
        self,
        folder: RunFolder,
        name: str,
        *,
        directions: Sequence[Direction],
        identity: Mapping[str, str],
        sampler: BaseSampler | None = None,
        elsewhere: str = "another --out",
    ) -> None:
        self.elsewhere = elsewhere
        self.folder, self.lock = folder, FileLock(folder.lock, timeout=600)
        storage = RDBStorage(f"sqlite:///{folder.study}", engine_kwargs={"connect_args": {"timeout": 120}})
        with self.lock:
            self.study = optuna.create_study(
                study_name=name, storage=storage, sampler=sampler, directions=directions, load_if_exists=True
            )
            self._check_identity(identity)

    def _check_identity(self, identity: Mapping[str, str]) -> None:
        known = self.study.user_attrs.get("identity")
        if known is None:
            self.study.set_user_attr("identity", dict(identity))
            return
        # A setting that came after the study was made had its default's effect there.
        known = flattened(RunConfig().model_dump(mode="json")) | known
        different = {
            key: f"{key} was {known.get(key)}, now {now}" for key, now in identity.items() if known.get(key) != now
        }
        named = [text for key, text in different.items() if key not in FINGERPRINTS]
        if different:
            raise RunError(
                f"{self.folder.path} holds a study made with other settings: {'; '.join(named or different.values())}; "
                f"use the same settings to resume it, or {self.elsewhere}"
            )

    def trials(self) -> list[FrozenTrial]:
        """All trials, in order."""
        return self.study.get_trials(deepcopy=False)

    def complete(
        self, work: Claimed, scores: Mapping[str, Score], objectives: tuple[str, ...], extra: Mapping[str, Any]
    ) -> None:
        """Record a trial's scores."""
        work.trial.set_user_attr("scores", {name: score.to_json() for name, score in scores.items()})
        self._annotate(work, extra)
        self.study.tell(work.trial, [scores[name].value for name in objectives])

    def fail(self, work: Claimed, error: str, extra: Mapping[str, Any]) -> None:
        """Record why a trial failed."""
        self._annotate(work, {"error": error} | dict(extra))
        self.study.tell(work.trial, state=TrialState.FAIL)

    def abandon(self, work: Claimed) -> None:
        """Record that a trial was interrupted; what it was for may come again."""
        self.study.tell(work.trial, state=TrialState.FAIL)

    def _annotate(self, work: Claimed, attributes: Mapping[str, Any]) -> None:
        for key, value in attributes.items():
            work.trial.set_user_attr(key, value)


def was_interrupted(trial: FrozenTrial) -> bool:
    """Whether a trial ended for no fault of its own, so that what it was for may be tried again."""
    return trial.state == TrialState.FAIL and "error" not in trial.user_attrs


@contextmanager
def sole_launch(folder: RunFolder, what: str, *, elsewhere: str = ", or use another --out") -> Iterator[None]:
    """Inside, no other process launches work in the folder.

    Args:
        what: is done there, for the message.
        elsewhere: what the message offers besides waiting.

    Raises:
        RunError: another process does already.
    """
    try:
        with FileLock(folder.launch_lock, timeout=0):
            yield
    except Timeout as error:
        raise RunError(f"another {what} is writing to {folder.path}: wait for it{elsewhere}") from error
