"""What tests of studies share: a run folder, a PostgreSQL server, and the study of integers that chaos is tried on."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest

from memcontrol.run import RunFolder

CHAOS = Path(__file__).parents[2] / "experiments" / "chaos"
sys.path.insert(0, str(CHAOS))  # new processes of these tests find it there too
NEEDED = "MEMCONTROL_NEEDS_POSTGRES"
"""Where this environment variable is set, tests fail that would be skipped without a server."""


@pytest.fixture
def errors_only() -> Iterator[None]:
    """Optuna says nothing but errors."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(before)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run folder with nothing in it."""
    made = RunFolder(tmp_path / "run")
    made.prepare()
    return made


@pytest.fixture(scope="session")
def server() -> Iterator[Any]:
    """A server that runs for all tests of this process."""
    import server as servers

    if servers.binaries() is None:
        reason = "no PostgreSQL server: apt-get install postgresql"
        if os.environ.get(NEEDED):
            pytest.fail(reason)
        pytest.skip(reason)
    with servers.running() as made:
        yield made


@pytest.fixture
def storage(server: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The server, named as a shared storage."""
    monkeypatch.setenv("OPTUNA_STORAGE", server.url)
    return server
