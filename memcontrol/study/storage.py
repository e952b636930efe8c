"""Where studies are kept: SQLite in the run folder for one host, a PostgreSQL server for many."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import optuna
from filelock import FileLock
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.samplers import RandomSampler
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from sqlalchemy import URL, create_engine, event, make_url, text
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    InterfaceError,
    OperationalError,
    PendingRollbackError,
    SQLAlchemyError,
)
from sqlalchemy.pool import NullPool, StaticPool

from memcontrol.errors import MemControlError, MissingPackageError, RunError
from memcontrol.run import RunFolder
from memcontrol.study.claims import ClaimLock, LostClaimError, ServerLock, lock_key
from memcontrol.study.execution import Execution

VARIABLE = "OPTUNA_STORAGE"
"""The environment variable that names a shared storage, password included."""
PATIENCE_S = 300.0
"""So long to try again while a server cannot be reached, as when it restarts."""
EXAMPLE = "postgresql+psycopg://USER@HOST/DATABASE"
DRIVERS = ("postgres", "postgresql", "postgresql+psycopg")
PASSING = ("08", "53300", "57P", "40", "55P03", "25P03")
"""SQLSTATEs, or how they begin, of what passes: lost connections, too many of them, restarts, deadlocks, timeouts."""

Given = TypeVar("Given")


def name_storage(url: str | None, file: Path | None = None) -> URL:
    """Take the storage from an option, a file, or `OPTUNA_STORAGE`; left in the latter, for processes started later.

    Args:
        file: whose first line is the URL.

    Raises:
        MemControlError: none of them names a PostgreSQL database.
    """
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8").split()
        except (OSError, ValueError) as error:
            raise MemControlError(f"--storage-file {file} cannot be read: name a file that holds {EXAMPLE}") from error
        url = lines[0] if lines else ""
    given = os.environ.get(VARIABLE) if url is None else url
    if given is None:
        raise MemControlError(f"--study needs a storage: give --storage {EXAMPLE}, --storage-file, or set {VARIABLE}")
    parsed = _parsed(given)
    os.environ[VARIABLE] = parsed.render_as_string(hide_password=False)
    return parsed


def shown_url(url: URL) -> str:
    """The URL without what may hold a secret: user, password and parameters."""
    place = f"{url.host or ''}{f':{url.port}' if url.port else ''}"
    return f"postgresql://{place}/{url.database or ''}"


def has_password(text: str) -> bool:
    """Whether a URL holds a password; False for what is no URL."""
    try:
        url = make_url(text)
    except ArgumentError:
        return False
    return bool(url.password) or "password" in url.query


def _parsed(given: str) -> URL:
    # What was given is not repeated: it may hold a password, wherever it is wrong.
    try:
        url = make_url(given)
    except (ArgumentError, ValueError):
        raise MemControlError(f"the storage is no database URL: expected {EXAMPLE}") from None
    if url.drivername not in DRIVERS:
        raise MemControlError(
            f"a storage of kind {url.drivername}: hosts share a study through PostgreSQL, {EXAMPLE}; on one host leave "
            "--storage and --study out"
        )
    return url.set(drivername="postgresql+psycopg")


class StudyDatabase:
    """Optuna's relational storage, the lock under which work is claimed, and patience with a server that restarts.

    Attributes:
        storage: on one connection, which is closed between claims.
        lock: held while work is claimed.
        shown: where it is, without secrets.
    """

    def __init__(self, folder: RunFolder, execution: Execution) -> None:
        self.execution = execution
        self.lock: ClaimLock = FileLock(folder.lock, timeout=600)
        self.storage: Any = None
        if execution.shared:
            url = name_storage(None)
            self.shown = shown_url(url)
            self.storage, self._beats, self.lock = self.patiently(lambda: _on_server(url, execution))
        else:
            self.shown = str(folder.study)
            with self.lock:
                self.storage = self.patiently(lambda: _in_file(folder.study, execution))
            self._beats = self.storage

    def patiently(self, act: Callable[[], Given]) -> Given:
        """What `act` gives, tried again while the server cannot be reached; what it wrote before must not matter.

        Inside a claim nothing is tried again alone: the whole claim is, since its lock may be another's by now.

        Raises:
            RunError: the storage cannot be read or written, and waiting does not help.
        """
        if isinstance(self.lock, ServerLock) and self.lock.held:
            return act()
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                return act()
            except LostClaimError:
                wait_s = 0.1
            except (SQLAlchemyError, StorageInternalError) as error:
                if not (self.execution.shared and _passes(error)) or time.monotonic() > until:
                    raise RunError(self._complaint(error)) from error
                wait_s = 1.0
            self._drop_connection()
            time.sleep(wait_s)

    def _drop_connection(self) -> None:
        """Forget a connection that broke, with the transaction that was open on it."""
        if self.storage is not None:
            self.storage.remove_session()
            self.storage.engine.dispose()

    def beat(self, trial_id: int) -> None:
        """Say that a trial is alive; on the connection of a claim."""
        self.storage.record_heartbeat(trial_id)

    def beat_apart(self, trial_id: int) -> bool:
        """Say so from another thread, on a connection of its own; returns whether the trial still runs."""
        try:
            self._beats.record_heartbeat(trial_id)
            return not self._beats.get_trial(trial_id).state.is_finished()
        finally:
            self._beats.remove_session()

    def silences(self) -> dict[int, float]:
        """For every trial that was ever worked on, how many seconds ago it was last heard of."""
        ages = {
            "postgresql": "extract(epoch FROM now() AT TIME ZONE 'utc' - heartbeat)",
            "sqlite": "(julianday('now') - julianday(heartbeat)) * 86400",
        }
        engine = self.storage.engine
        with engine.connect() as connection:
            rows = connection.execute(text(f"SELECT trial_id, {ages[engine.name]} FROM trial_heartbeats"))
            return {int(trial): float(age) for trial, age in rows}

    def fail_apart(self, study: str, number: int, error: str) -> None:
        """Record from another thread why a trial failed."""
        try:
            own = optuna.load_study(study_name=study, storage=self._beats, sampler=RandomSampler(seed=0))
            trial = optuna.Trial(own, own.get_trials(deepcopy=False)[number]._trial_id)
            trial.set_user_attr("error", error)
            own.tell(trial, state=TrialState.FAIL)
        finally:
            self._beats.remove_session()

    def rest(self) -> None:
        """Close a server's connection until it is needed again."""
        if self.execution.shared:
            self.storage.engine.dispose()

    def _complaint(self, error: Exception) -> str:
        cause = error.__cause__ if isinstance(error, StorageInternalError) and error.__cause__ else error
        reason = str(getattr(cause, "orig", None) or cause).strip().splitlines()[0]
        return (
            f"cannot use the study in {self.shown} ({reason}): what was finished is kept there; once that is mended, "
            "the same command goes on"
        )


def _in_file(path: Path, execution: Execution) -> RDBStorage:
    return _storage(f"sqlite:///{path}", execution, {"connect_args": {"timeout": 120}})


def _on_server(url: URL, execution: Execution) -> tuple[RDBStorage, RDBStorage, ServerLock]:
    """The storage for claims, one for heartbeats, and the lock; tables are made by one host at a time."""
    given = url.render_as_string(hide_password=False)
    idle_s = 2 * execution.grace_s
    connecting = {"connect_timeout": 10, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
    options: Mapping[str, Any] = {"connect_args": connecting | {"application_name": "memcontrol"}}
    try:
        making = create_engine(url, poolclass=NullPool, **options)
        with making.connect() as connection:
            connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": lock_key("tables")})
            storage = _storage(given, execution, {**options, "poolclass": StaticPool})
        beats = _storage(given, execution, {**options, "poolclass": NullPool}, made=True)
    except ImportError as error:
        raise MissingPackageError(
            'a study on PostgreSQL needs psycopg: pip install -c constraints.txt -e ".[postgres]"'
        ) from error
    for engine in (storage.engine, beats.engine):
        _settle(engine, idle_s)
    return storage, beats, ServerLock(storage.engine, f"study {execution.study}", idle_s=idle_s)


def _storage(url: str, execution: Execution, options: Mapping[str, Any], *, made: bool = False) -> RDBStorage:
    with quiet():
        return RDBStorage(
            url.replace("{", "{{").replace("}", "}}"),  # Optuna reads braces as a template's
            engine_kwargs=dict(options),
            heartbeat_interval=execution.heartbeat_s,
            grace_period=execution.grace_s,
            skip_table_creation=made,
            skip_compatibility_check=made,
        )


def _settle(engine: Any, idle_s: float) -> None:
    """Have every new connection count time alike on all hosts, and end where its worker stops inside a transaction."""
    settings = (
        "SET TIME ZONE 'UTC'",
        f"SET idle_in_transaction_session_timeout = {round(idle_s * 1000)}",
        "SET tcp_keepalives_idle = 30",
        "SET tcp_keepalives_interval = 10",
        "SET tcp_keepalives_count = 3",
    )

    def settle(connection: Any, _record: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute("; ".join(settings))
        connection.commit()

    event.listen(engine, "connect", settle)
    engine.dispose()


def _passes(error: Exception) -> bool:
    """Whether a server's error is one that goes away by itself."""
    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    if isinstance(cause, PendingRollbackError):
        return True  # of a transaction that was broken off before
    if not isinstance(cause, DBAPIError):
        return False
    if cause.connection_invalidated:
        return True
    state = getattr(cause.orig, "sqlstate", None)
    if state is None:
        return isinstance(cause, OperationalError | InterfaceError)
    return any(str(state).startswith(begin) for begin in PASSING)


@contextmanager
def quiet() -> Iterator[None]:
    """Inside, Optuna does not warn of heartbeats: that they may change, or need another loop than ours.

    Where several threads share a process they must not be in it at once.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.filterwarnings("ignore", message="Heartbeat of storage")
        yield
