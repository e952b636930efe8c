"""One launch at a time: what is written to a folder, one process writes or has written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from memcontrol.errors import RunError
from memcontrol.run import RunFolder


@contextmanager
def sole_launch(folder: RunFolder, what: str, *, elsewhere: str = ", or use another --out") -> Iterator[None]:
    """Inside, no other process launches work in the folder.

    Args:
        what: is done there, for the message.
        elsewhere: what the message offers besides waiting.

    Raises:
        RunError: another process does already.
    """
    lock = FileLock(folder.launch_lock, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise RunError(f"another {what} is writing to {folder.path}: wait for it{elsewhere}") from error
    try:
        yield
    finally:
        lock.release()
