"""A folder of images, with captions in `metadata.csv` or `metadata.jsonl`, from its class folders, or without."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from memcontrol.config import DataConfig
from memcontrol.data.class_names import class_folders
from memcontrol.data.decoding import SUFFIXES, decode_image
from memcontrol.data.notes import counted
from memcontrol.data.pool import Pool, opened_pool
from memcontrol.data.table import read_rows, rows_pool
from memcontrol.errors import DataError

METADATA = ("metadata.csv", "metadata.jsonl")


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
    return replace(pool, notes=tuple(unused))


def _unlisted_pool(path: Path, config: DataConfig, *, resolution: int, name: str) -> Pool:
    keys = image_files(path)
    if not keys:
        raise DataError(f"no images in {path} (looked for {', '.join(SUFFIXES)}): name a folder that holds images")
    if config.captions == "column":
        raise DataError(
            f"no metadata.csv or metadata.jsonl in {path} ({counted(len(keys), 'image')} there): add one with the "
            f"columns file_name and {config.caption_column}, or use --captions none, or --captions class-names where "
            "each class has a subfolder"
        )
    files = [path / key for key in keys]
    classes = class_folders(path, keys) if config.captions == "class-names" else None
    return opened_pool(
        name,
        lambda i: decode_image(files[i], name=str(files[i])),
        resolution=resolution,
        keys=keys,
        captions=[""] * len(keys) if classes is None else classes.captions,
        splits=None if classes is None else classes.splits,
    )


def image_files(path: Path) -> list[str]:
    """Images in a folder and its subfolders, as sorted relative paths; hidden files and folders are left out."""
    found = []
    for folder, inner, names in os.walk(path):
        inner[:] = [name for name in inner if not name.startswith(".")]
        shown = (name for name in names if name.lower().endswith(SUFFIXES) and not name.startswith("."))
        found += [(Path(folder) / name).relative_to(path).as_posix() for name in shown]
    return sorted(found)
