"""A PostgreSQL server of one's own: in a temporary folder, on a loopback port, by a user who is not root."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

USER = "memcontrol"
# Commits are synchronous: else a server that is cut off loses what it has confirmed, and trials come twice.
FAST = (
    "-c fsync=off -c full_page_writes=off -c shared_buffers=32MB "
    "-c listen_addresses=127.0.0.1 -c unix_socket_directories= -c max_connections=100 -c log_min_messages=fatal"
)


def binaries() -> Path | None:
    """The folder of `initdb` and `pg_ctl`; None where there is no server."""
    newest = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    found = shutil.which("initdb")
    candidates = [*newest, *([Path(found).resolve().parent] if found else [])]
    return next((path for path in candidates if (path / "pg_ctl").exists() and (path / "initdb").exists()), None)


@dataclass(frozen=True)
class Server:
    """A server that runs.

    Attributes:
        password: of its only user; it has something of a URL's own signs in it, and braces.
    """

    folder: Path
    port: int
    password: str

    @property
    def url(self) -> str:
        """Of its database, password included."""
        from sqlalchemy import URL

        made = URL.create("postgresql+psycopg", USER, self.password, "127.0.0.1", self.port, "postgres")
        return made.render_as_string(hide_password=False)

    def start(self) -> None:
        options = f"-p {self.port} {FAST}"
        _command("pg_ctl", "-D", self.folder / "data", "-l", self.folder / "log", "-o", options, "-w", "start")

    def stop(self) -> None:
        _command("pg_ctl", "-D", self.folder / "data", "-m", "immediate", "-w", "stop")

    def restart(self, down_s: float = 0) -> None:
        """Cut every connection, stay away for a time, and come back."""
        self.stop()
        time.sleep(down_s)
        self.start()

    def execute(self, statement: str) -> list[tuple[object, ...]]:
        """The rows of a statement."""
        import psycopg

        host = {"host": "127.0.0.1", "port": self.port, "user": USER, "password": self.password}
        with psycopg.connect(dbname="postgres", autocommit=True, **host) as connection:
            answer = connection.execute(statement)
            return answer.fetchall() if answer.description else []


@contextlib.contextmanager
def running() -> Iterator[Server]:
    """A new server, and nothing left of it afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="memcontrol-postgres-"))
    server = Server(folder, _free_port(), f"pa{{s}}s@:/{secrets.token_hex(6)}%")
    try:
        word = folder / "password"
        word.write_text(server.password)
        _hand_over(folder, word)
        _command("initdb", "-D", folder / "data", "-U", USER, "-A", "scram-sha-256", f"--pwfile={word}", "--no-sync")
        word.unlink()
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _hand_over(*paths: Path) -> None:
    if os.getuid() == 0:
        owner = _owner()
        for path in paths:
            os.chown(path, owner.pw_uid, owner.pw_gid)


def _owner() -> pwd.struct_passwd:
    """Who runs the server where this process is root, as whom it refuses to run."""
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise LookupError("no user postgres or nobody to run the server")


def _command(name: str, *arguments: object) -> None:
    folder = binaries()
    if folder is None:
        raise FileNotFoundError("no PostgreSQL server: apt-get install postgresql")
    rights = {} if os.getuid() else {"user": _owner().pw_uid, "group": _owner().pw_gid, "extra_groups": []}
    done = subprocess.run(
        [str(folder / name), *map(str, arguments)],
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd="/",
        env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8"},
        timeout=120,
        **rights,
    )
    if done.returncode:
        raise RuntimeError(f"{name} failed: {done.stderr.strip()}")


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
