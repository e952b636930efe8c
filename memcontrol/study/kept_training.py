"""A trial's training as it stands, kept in the run folder: whoever tries the trial again goes on from there."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from accelerate import Accelerator

from memcontrol.finetuning.checkpoints import Checkpoint, Checkpoints
from memcontrol.finetuning.state import TrainingState


class KeptTraining:
    """The checkpoints of one candidate; each attempt at it writes its own, and begins at the last of any.

    Args:
        folder: of the candidate; what decides its training decides the folder's name.
        attempt: names this one.
        every_s: between checkpoints.

    Attributes:
        state: where the training's parts are kept; a saved one where an earlier attempt left one.
        step: at which the training begins; 0 from the start.
        losses: of the steps before.
    """

    def __init__(
        self, folder: Path, attempt: str, identity: Mapping[str, str], accelerator: Accelerator, every_s: float
    ) -> None:
        self._folder, self._every_s, self._began = folder, every_s, time.monotonic()
        self._own = Checkpoints(folder / attempt, identity, accelerator)
        saved = _newest(folder, identity, accelerator)
        self.state = TrainingState(None if saved is None else saved.content["training"])
        self.step = 0 if saved is None else saved.step
        self.losses: list[float] = [] if saved is None else list(saved.content["losses"])

    def keep_if_due(self, step: int, losses: Sequence[float]) -> None:
        """Write a checkpoint, if the last was long enough ago.

        Raises:
            RunError: it cannot be written.
        """
        if time.monotonic() - self._began >= self._every_s and step > self.step:
            self._own.save(step, {"training": self.state.state_dict(), "losses": list(losses)})
            self._began = time.monotonic()

    def clear(self) -> None:
        """Remove what all attempts kept."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _newest(folder: Path, identity: Mapping[str, str], accelerator: Accelerator) -> Checkpoint | None:
    """The checkpoint with the most steps; what is not whole is passed over."""
    found = [
        Checkpoints(attempt, identity, accelerator).latest(lambda _: None)
        for attempt in (sorted(folder.iterdir()) if folder.is_dir() else ())
    ]
    return max((one for one in found if one is not None and _is_whole(one)), key=lambda one: one.step, default=None)


def _is_whole(saved: Checkpoint) -> bool:
    losses = saved.content.get("losses")
    return "training" in saved.content and isinstance(losses, list) and all(isinstance(one, float) for one in losses)
