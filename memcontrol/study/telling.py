"""What a worker says of its work: progress now and then, and the end of each piece, which the log keeps too."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from memcontrol.run import RunFolder
from memcontrol.study.events import Finished, Listener, Note, Progress

PROGRESS_EVERY_S = 0.5


@dataclass
class Teller:
    """One worker's voice.

    Attributes:
        number: of the worker.
    """

    folder: RunFolder
    number: int
    listener: Listener
    _spoke: float = 0.0

    def facts(self, began: float) -> dict[str, Any]:
        """Who did a piece of work, and how long it took.

        Args:
            began: monotonic time in seconds.
        """
        return {"worker": self.number, "seconds": round(time.monotonic() - began, 2)}

    def progress(self, work: str) -> Callable[[str, int, int], None]:
        """A function to call with a phase of `work`, the step done and the number of steps."""

        def tell(phase: str, done: int, total: int) -> None:
            if time.monotonic() - self._spoke >= PROGRESS_EVERY_S:
                self._spoke = time.monotonic()
                self.listener(Progress(self.number, work, phase, done, total))

        return tell

    def said(self, work: str, text: str) -> None:
        """Tell a sentence about a piece of work."""
        self.listener(Note(f"{work} {text}"))

    def finished(
        self,
        work: str,
        trial: int | None,
        began: float,
        error: str | None = None,
        *,
        scores: dict[str, float] | None = None,
        pruned: str | None = None,
    ) -> None:
        """Say that a piece of work ended, why if it failed, and where if it was pruned."""
        seconds = round(time.monotonic() - began, 2)
        line = {"time": time.time(), "worker": self.number, "work": work, "seconds": seconds, "error": error}
        self.folder.append_log(line | ({} if pruned is None else {"pruned": pruned}))
        self.listener(Finished(self.number, work, trial, seconds, error, scores, pruned))
