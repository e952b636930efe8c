"""The folders that commands write to: how much lies there, and how much is free."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from memcontrol.cache import existing, free_disk


@dataclass(frozen=True)
class Folder:
    """A folder, which need not exist yet.

    Attributes:
        files, bytes: in it and below; None where nobody asked.
        free: bytes free on its disk.
        writable: whether it can be written to, or made.
    """

    path: str
    files: int | None
    bytes: int | None
    free: int
    writable: bool


def look_at(path: Path, *, sized: bool) -> Folder:
    """A folder as it is now.

    Args:
        sized: whether to count what is in it.
    """
    place = existing(path)
    writable = place.is_dir() and os.access(place, os.W_OK)
    sizes = _sizes(path) if sized else None
    return Folder(
        str(path),
        None if sizes is None else len(sizes),
        None if sizes is None else sum(sizes),
        free_disk(path),
        writable,
    )


def _sizes(path: Path) -> list[int]:
    """Bytes of every file below; files that go away meanwhile are left out."""
    sizes = []
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                sizes.append((Path(folder) / name).lstat().st_size)
            except FileNotFoundError:
                continue
    return sizes
