"""A sign of life for the trial that a worker is at, and an end to one that takes too long."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import SQLAlchemyError

from memcontrol.errors import MemControlError
from memcontrol.study.claims import LostClaimError

OVERDUE_EXIT = 75
"""How a worker process ends whose trial neither finished nor could be interrupted (EX_TEMPFAIL)."""
STUCK_S = 60.0
"""So long after its limit, a trial that does not hear its interruption ends its process."""


class LostTrialError(MemControlError):
    """The trial was taken for lost and given to another worker."""


class TrialTimeoutError(MemControlError):
    """The trial took longer than it may."""


class Heartbeat:
    """Says every so often that a trial is alive, from a thread of its own; a context manager around the work.

    A storage that cannot be reached is tried again at the next beat.

    Args:
        beat: says so, and returns whether the trial still runs.
        every_s: between beats.
    """

    def __init__(self, beat: Callable[[], bool], every_s: float) -> None:
        self._beat, self._every_s = beat, every_s
        self._over, self._lost = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(timeout=10)

    def check(self) -> None:
        """Raise LostTrialError where the trial was given to another worker."""
        if self._lost.is_set():
            raise LostTrialError("not heard of for too long, so another worker has it: what was done is dropped")

    def _run(self) -> None:
        while not self._over.wait(self._every_s):
            try:
                runs = self._beat()
            except (SQLAlchemyError, StorageInternalError, LostClaimError):
                continue
            if not runs:
                self._lost.set()
                return


@contextmanager
def time_limit(seconds: float | None, on_stuck: Callable[[str], None]) -> Iterator[None]:
    """Inside, work that takes longer is interrupted, and the process ended where it does not hear that.

    Only a process's main thread can be interrupted; in another one nothing is limited.

    Args:
        seconds: None for no limit.
        on_stuck: told why, from another thread, before the process ends.

    Raises:
        TrialTimeoutError: it took longer.
    """
    if seconds is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    reason = f"took longer than {seconds:g} s (--trial-timeout)"

    def interrupt(_signal: int, _frame: object) -> None:
        raise TrialTimeoutError(reason)

    over = threading.Event()
    thread = threading.Thread(target=_end_stuck, args=(over, seconds + STUCK_S, reason, on_stuck), daemon=True)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        thread.start()
        signal.setitimer(signal.ITIMER_REAL, seconds)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        over.set()
        signal.signal(signal.SIGALRM, before)


def _end_stuck(over: threading.Event, seconds: float, reason: str, on_stuck: Callable[[str], None]) -> None:
    began = time.monotonic()
    while not over.wait(min(5.0, seconds)):
        if time.monotonic() - began >= seconds:
            try:
                on_stuck(reason)
            finally:
                os._exit(OVERDUE_EXIT)
