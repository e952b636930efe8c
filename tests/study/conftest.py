"""A PostgreSQL server for the tests that need one, and the study of integers that chaos is tried on."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHAOS = Path(__file__).parents[2] / "experiments" / "chaos"
sys.path.insert(0, str(CHAOS))  # new processes of these tests find it there too
NEEDED = "MEMCONTROL_NEEDS_POSTGRES"
"""Where this environment variable is set, tests fail that would be skipped without a server."""


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
