"""Image folders with a subfolder for each class: captions from the classes' names, splits from folders above them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from memcontrol.data.table import SPLITS, read_rows
from memcontrol.errors import DataError

NAMES_FILE = "class_names.csv"
"""A file in the image folder with the columns `folder` and `name`, where folders are not called after their class."""
_WORDNET = re.compile(r"n\d{8}")
_VOWELS = "aeiou"


@dataclass(frozen=True)
class ClassFolders:
    """What the folders say of each image.

    Attributes:
        captions: "a photo of a NAME", one for each image.
        splits: `train`, `validation` or `test` for each image; None where classes do not stand in split folders.
    """

    captions: tuple[str, ...]
    splits: tuple[str, ...] | None


def class_folders(path: Path, keys: Sequence[str]) -> ClassFolders:
    """Captions and splits of images at `CLASS/file` or `SPLIT/CLASS/file`.

    The class is the folder that the image is in, by its name in `class_names.csv` where there is that file; otherwise
    by the folder's own, with spaces for `_` and `-`. The first folder is a split where it is called one (train, val,
    test and the like) for every image.

    Args:
        path: the image folder.
        keys: the images, relative to it.

    Raises:
        DataError: an image in no class folder, a class without a name, or a malformed `class_names.csv`.
    """
    places = [PurePosixPath(key).parts[:-1] for key in keys]
    split = all(len(place) > 1 and place[0].lower() in SPLITS for place in places)
    for key, place in zip(keys, places, strict=True):
        if not place or (len(place) == 1 and place[0].lower() in SPLITS):
            raise DataError(
                f"{path / key} is in no class folder: expected CLASS/{Path(key).name} or "
                f"train/CLASS/{Path(key).name}, or use --captions none"
            )
    names = _names(path, {place[-1] for place in places})
    return ClassFolders(
        captions=tuple(caption(names[place[-1]]) for place in places),
        splits=tuple(SPLITS[place[0].lower()] for place in places) if split else None,
    )


def caption(name: str) -> str:
    """`a photo of a tench`, `a photo of an English springer`."""
    return f"a photo of {'an' if name[:1].lower() in _VOWELS else 'a'} {name}"


def _names(path: Path, folders: set[str]) -> Mapping[str, str]:
    """A name for each class folder."""
    file = path / NAMES_FILE
    if not file.is_file():
        unnamed = sorted(folder for folder in folders if _WORDNET.fullmatch(folder))
        if unnamed:
            raise DataError(
                f"class folder {unnamed[0]} in {path} is a WordNet id, no name: put a {NAMES_FILE} there with the "
                "columns folder and name"
            )
        return {folder: re.sub(r"[_-]+", " ", folder).strip() for folder in folders}
    rows = read_rows(file)
    for column in ("folder", "name"):
        if column not in rows.columns:
            raise DataError(f'no column "{column}" in {file} (columns: {", ".join(rows.columns)}): add it')
    names: dict[str, str] = {}
    for row in rows.rows:
        if names.setdefault(row["folder"], row["name"]) != row["name"]:
            raise DataError(f"{file} has two names for class folder {row['folder']}: keep one")
    for folder in sorted(folders):
        if not names.get(folder):
            raise DataError(f"{file} has no name for class folder {folder}: add a row {folder},NAME")
    return names
