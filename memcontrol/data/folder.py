"""A folder of images, with captions in `metadata.csv` or `metadata.jsonl`, from its class folders, or without."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from memcontrol.config import DataConfig
from memcontrol.data.class_names import NAMES_FILE, class_folders
from memcontrol.data.decoding import SUFFIXES, decode_image
from memcontrol.data.notes import counted
from memcontrol.data.pool import Pool, opened_pool
from memcontrol.data.table import read_rows, rows_pool
from memcontrol.errors import DataError

METADATA = ("metadata.csv", "metadata.jsonl")
_KINDS = 4
"""More kinds of files than these are not named."""


def folder_pool(path: Path, config: DataConfig, *, resolution: int) -> Pool:
    """Images of a folder: those that its metadata lists or, without metadata, all that it holds.

    Metadata is read for subjects and splits even where captions are not wanted. Without metadata there are no captions,
    or they are class names (`memcontrol.data.class_names`).

    Raises:
        DataError: no images, captions wanted but no metadata, or metadata or class folders that do not fit the files.
    """
    name = path.resolve().name
    present = [path / file for file in METADATA if (path / file).is_file()]
    if not present:
        return _unlisted_pool(path, config, resolution=resolution, name=name)
    if config.captions == "class-names":
        raise DataError(
            f"captions class-names with {present[0]}: the folder lists its images there; use --captions column or "
            "none, or remove that file"
        )
    pool = rows_pool(read_rows(present[0]), config, resolution=resolution, name=name, path_columns=("file_name",))
    unused = [f"read {present[0].name}, not {other.name}" for other in present[1:]]
    unlisted = len(set(image_files(path)) - set(pool.images.keys))
    if unlisted:
        unused.append(f"{counted(unlisted, 'image')} of the folder not in {present[0].name}, and not used")
    return replace(pool, notes=tuple(unused))


def _unlisted_pool(path: Path, config: DataConfig, *, resolution: int, name: str) -> Pool:
    listed = _files(path)
    keys, others = _images_of(listed), _others_of(listed)
    if not keys:
        beside = f"; there {'is' if len(others) == 1 else 'are'} {_kinds(others)}" if others else ""
        raise DataError(
            f"no images in {path} (looked for {', '.join(SUFFIXES)}{beside}): name a folder that holds images"
        )
    if config.captions == "column":
        raise DataError(
            f"no metadata.csv or metadata.jsonl in {path} ({counted(len(keys), 'image')} there): "
            f"{_captions_elsewhere(path, others)}add one with the columns file_name and {config.caption_column}, or "
            "use --captions none, or --captions class-names where each class has a subfolder"
        )
    files = [path / key for key in keys]
    classes = class_folders(path, keys) if config.captions == "class-names" else None
    pool = opened_pool(
        name,
        lambda i: decode_image(files[i], name=str(files[i])),
        resolution=resolution,
        keys=keys,
        captions=[""] * len(keys) if classes is None else classes.captions,
        splits=None if classes is None else classes.splits,
    )
    return replace(pool, notes=(f"not read: {_kinds(others)}",)) if others else pool


def image_files(path: Path) -> list[str]:
    """Images in a folder and its subfolders, as sorted relative paths; hidden files and folders are left out."""
    return _images_of(_files(path))


def _files(path: Path) -> list[str]:
    """All files but hidden ones, as `image_files` gives them."""
    found = []
    for folder, inner, names in os.walk(path):
        inner[:] = [name for name in inner if not name.startswith(".")]
        shown = (name for name in names if not name.startswith("."))
        found += [(Path(folder) / name).relative_to(path).as_posix() for name in shown]
    return sorted(found)


def _images_of(files: Sequence[str]) -> list[str]:
    return [file for file in files if file.lower().endswith(SUFFIXES)]


def _others_of(files: Sequence[str]) -> list[str]:
    return [file for file in files if not file.lower().endswith(SUFFIXES) and file != NAMES_FILE]


def _kinds(files: Sequence[str]) -> str:
    """`3 files of other kinds (.gif, .heic)`."""
    kinds = sorted({PurePosixPath(file).suffix.lower() or "without a suffix" for file in files})
    shown = ", ".join(kinds[:_KINDS]) + (" and more" if len(kinds) > _KINDS else "")
    return f"{counted(len(files), 'file of another kind', 'files of other kinds')} ({shown})"


def _captions_elsewhere(path: Path, others: Sequence[str]) -> str:
    """What else could be meant by an image folder without metadata: a folder inside it, or a table."""
    inner = next((file for file in others if PurePosixPath(file).name in METADATA), None)
    if inner:
        return f"give {(path / inner).parent}, which has one, or "
    table = next((file for file in others if file.lower().endswith((".csv", ".xlsx"))), None)
    return f"give the table {path / table} itself, or " if table else ""
