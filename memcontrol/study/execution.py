"""How a study is worked through: where it is kept, how lost workers are noticed; none of it changes a score."""

from __future__ import annotations

import re
from dataclasses import dataclass

from memcontrol.errors import MemControlError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Execution:
    """How a study is worked through.

    It holds no secret, so that it can be sent, logged and written anywhere: where hosts share a study, its storage is
    what the environment variable `OPTUNA_STORAGE` names.

    Attributes:
        study: its name in the storage that hosts share; None for SQLite in the run folder.
        artifacts: where trials' pictures are kept besides the run folder: a folder, or `s3://BUCKET`.
        trial_timeout_s: a trial that takes longer fails.
        checkpoint_every_s: how often a trial's training is kept in the run folder; None for never.
        heartbeat_s: how often a worker says that its trial is alive.
        grace_s: a trial that has not been heard of for so long is given to another worker.
    """

    study: str | None = None
    artifacts: str | None = None
    trial_timeout_s: float | None = None
    checkpoint_every_s: float | None = None
    heartbeat_s: int = 15
    grace_s: int = 90

    def __post_init__(self) -> None:
        if self.study is not None and not NAME.fullmatch(self.study):
            raise MemControlError(
                f"--study {self.study}: expected letters, digits, dots, dashes and underscores, at most 100 of them"
            )
        if self.trial_timeout_s is not None and not self.trial_timeout_s > 0:
            raise MemControlError(f"--trial-timeout {self.trial_timeout_s:g}: expected seconds, more than 0")
        if self.checkpoint_every_s is not None and not self.checkpoint_every_s > 0:
            raise MemControlError(f"--checkpoint-every {self.checkpoint_every_s:g}: expected seconds, more than 0")
        if not 0 < self.heartbeat_s < self.grace_s:
            raise MemControlError(
                f"a heartbeat every {self.heartbeat_s} s and a grace of {self.grace_s} s: expected a longer grace"
            )

    @property
    def shared(self) -> bool:
        """Whether hosts share the study."""
        return self.study is not None
