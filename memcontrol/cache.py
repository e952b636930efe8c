"""Arrays kept on disk by fingerprint and read back memory-mapped: latents, embeddings, features."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def default_cache_folder() -> Path:
    """`MEMCONTROL_CACHE`, else the user's cache folder."""
    if named := os.environ.get("MEMCONTROL_CACHE"):
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "memcontrol"


def free_disk(path: Path) -> int:
    """Free bytes where `path` is, or will be."""
    return shutil.disk_usage(existing(path)).free


def existing(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    absolute = path.absolute()
    # Unlike Path.exists, without an error below a folder that this user may not look into.
    return next(place for place in (absolute, *absolute.parents) if os.path.exists(place))  # noqa: PTH110


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A new file to write to, which becomes `path` at the end, and is removed where writing fails.

    So a reader never sees half of it. Who else may read it is as the user's umask says.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{secrets.token_hex(8)}.partial")
    partial.touch(exist_ok=False)
    mode = stat.S_IMODE(partial.stat().st_mode)
    try:
        yield partial
        partial.chmod(mode)  # safetensors puts a file of its own there, which the user alone may read
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@dataclass(frozen=True)
class Cache:
    """A folder of files, each named by the fingerprint of everything that decides its content."""

    folder: Path

    def array(
        self,
        kind: str,
        key: str,
        shape: tuple[int, ...],
        fill: Callable[[NDArray[Any]], None],
        dtype: type[np.generic] = np.float32,
    ) -> NDArray[Any]:
        """The stored array, memory-mapped; made by `fill`, which writes into a new array of `shape`, if missing.

        A file appears whole or not at all, so an interrupted or concurrent run leaves nothing half-written.
        """
        path = self.path(kind, key)
        if not path.exists():
            with whole_file(path) as partial:
                target = np.lib.format.open_memmap(partial, mode="w+", dtype=dtype, shape=shape)
                fill(target)
                target.flush()
        return np.load(path, mmap_mode="r")  # type: ignore[no-any-return]

    def computed(self, kind: str, key: str, compute: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """The stored array, memory-mapped; what `compute` gives, if missing. For arrays that fit in memory."""
        path = self.path(kind, key)
        if path.exists():
            return np.load(path, mmap_mode="r")  # type: ignore[no-any-return]
        made = compute()
        return self.array(kind, key, made.shape, lambda target: np.copyto(target, made), made.dtype.type)

    def path(self, kind: str, key: str, suffix: str = ".npy") -> Path:
        """Where the file of that fingerprint is kept, whether it exists or not."""
        return self.folder / kind / f"{key.removeprefix('sha256:')}{suffix}"
