"""Claims on a server's study: one at a time over all hosts, and none by a worker that was taken for lost."""

from __future__ import annotations

import hashlib
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from sqlalchemy import Engine


class LostClaimError(Exception):
    """The connection that held the claim has ended, and the claim with it; nothing more was written."""


class ClaimLock(Protocol):
    """Held while work is claimed; may be entered again by its holder."""

    def __enter__(self) -> object:
        """Wait until nobody else holds it."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let others claim."""


class ServerLock:
    """A PostgreSQL advisory lock on the one connection that its holder also writes on.

    A holder that is killed loses connection and lock together. One that stops answering loses both once the server
    closes the idle connection; when it goes on, its next write needs a new connection, which is refused until the claim
    is given up. So nobody writes under a lock that another has by then.

    Args:
        engine: with a pool of a single connection.
        name: of what is locked, the same on every host.
        idle_s: a holder that says nothing for so long loses the lock.
        wait_s: so long to wait for it at most.
    """

    def __init__(self, engine: Engine, name: str, *, idle_s: float, wait_s: float = 600) -> None:
        from sqlalchemy import event

        self._engine, self._key, self._depth = engine, lock_key(name), 0
        self._settings = f"SET lock_timeout = {round(wait_s * 1000)}"
        self._idle = f"SET idle_session_timeout = {round(idle_s * 1000)}"
        event.listen(engine, "do_connect", self._refuse_while_held)

    @property
    def held(self) -> bool:
        """Whether this process has it, as far as it knows."""
        return self._depth > 0

    def __enter__(self) -> None:
        if not self._depth:
            self._acquire()
        self._depth += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._depth -= 1
        if not self._depth:
            self._engine.dispose()  # the server frees the lock of a connection that was closed

    def _acquire(self) -> None:
        from sqlalchemy import text

        try:
            with self._engine.connect() as connection:
                connection.execute(text(self._settings))
                connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": self._key})
                connection.execute(text(self._idle))
                connection.commit()
        except BaseException:
            self._engine.dispose()
            raise

    def _refuse_while_held(self, *_: Any) -> None:
        if self._depth:
            raise LostClaimError


def lock_key(name: str) -> int:
    """A signed 64-bit number for a name."""
    return int.from_bytes(hashlib.sha256(f"memcontrol {name}".encode()).digest()[:8], "big", signed=True)
