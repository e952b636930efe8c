"""Data sources: whatever the source, `load_dataset` gives the same `Dataset` of training and held-out images."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from memcontrol.errors import DataError, nearest_names

if TYPE_CHECKING:
    from memcontrol.config import DataConfig
    from memcontrol.data.images import Dataset
    from memcontrol.data.pool import Pool


class Loader(Protocol):
    """A named source: what to load, at which size, split by which seed."""

    def __call__(self, config: DataConfig, *, resolution: int, seed: int) -> Dataset:
        """The source's data set."""
        ...


def _brain(config: DataConfig, *, resolution: int, seed: int) -> Dataset:
    from memcontrol.data.embedded import load_brain

    return load_brain(config, resolution=resolution, seed=seed)


def _faces(config: DataConfig, *, resolution: int, seed: int) -> Dataset:
    from memcontrol.data.embedded import load_faces

    return load_faces(config, resolution=resolution, seed=seed)


def _digits(config: DataConfig, *, resolution: int, seed: int) -> Dataset:
    from memcontrol.data.embedded import load_digits

    return load_digits(config, resolution=resolution, seed=seed)


SOURCES: dict[str, Loader] = {"brain": _brain, "faces": _faces, "digits": _digits}
"""Named sources; their modules are imported when one is loaded, so that this package stays light."""

_TABLES, _ARRAYS = (".csv", ".xlsx"), ".npz"
_EXPECTED = "a path to an image folder, a .csv or .xlsx table or a MedMNIST .npz, or hf:NAME for Hugging Face"


def load_dataset(config: DataConfig, *, resolution: int, seed: int) -> Dataset:
    """The data set that `config` asks for: which images are in it is a pure function of the arguments and the source.

    Args:
        resolution: height and width of every image, in pixels.
        seed: draws the training set and the held-out sets.

    Raises:
        DataError: no such source, or one that cannot be read or is too small.
        MissingPackageError: the source needs a package that is not installed.
    """
    if config.source in SOURCES:
        _refuse_class_names(config)
        return SOURCES[config.source](config, resolution=resolution, seed=seed)
    from memcontrol.data.splitting import split_pool

    return split_pool(source_pool(config, resolution), config, resolution=resolution, seed=seed)


def check_source(source: str) -> None:
    """Refuse a source that there is not, before anything is loaded; what it holds is not looked at.

    Raises:
        DataError: an empty text, no such name, file or folder, or a file of a kind that is not read.
    """
    from memcontrol.data.huggingface import PREFIX

    if source in SOURCES or source.startswith(PREFIX):
        return
    if not source.strip():
        raise DataError(f"the name of a data source is empty: give {', '.join(sorted(SOURCES))}, or {_EXPECTED}")
    path = Path(source).expanduser()
    if not path.exists():
        known = nearest_names(source, SOURCES)
        raise DataError(f'no data source "{source}", and no such file or folder: {known}; or give {_EXPECTED}')
    if not path.is_dir() and path.suffix.lower() not in (*_TABLES, _ARRAYS):
        raise DataError(f"{path} is not a data source: give {_EXPECTED}")


def source_pool(config: DataConfig, resolution: int) -> Pool:
    """All images of a source that the user has, before they are split; not of a named one of `SOURCES`.

    Args:
        resolution: height and width of every image, in pixels.

    Raises:
        DataError: no such source, or one that cannot be read.
        MissingPackageError: the source needs a package that is not installed.
    """
    pool = _opened(config, resolution)
    return replace(pool, name=_short_name(pool.name))


def _opened(config: DataConfig, resolution: int) -> Pool:
    from memcontrol.data.folder import folder_pool
    from memcontrol.data.huggingface import PREFIX, huggingface_pool, is_saved_dataset
    from memcontrol.data.medmnist import medmnist_pool
    from memcontrol.data.table import table_pool

    check_source(config.source)
    path = Path(config.source).expanduser()
    if config.source.startswith(PREFIX) or (path.exists() and (path.is_file() or is_saved_dataset(path))):
        _refuse_class_names(config)
    if config.source.startswith(PREFIX):
        return huggingface_pool(config.source, config, resolution=resolution)
    if path.is_dir():
        if is_saved_dataset(path):
            return huggingface_pool(f"{PREFIX}{path}", config, resolution=resolution)
        return folder_pool(path, config, resolution=resolution)
    if path.suffix.lower() == _ARRAYS:
        return medmnist_pool(path, config, resolution=resolution)
    return table_pool(path, config, resolution=resolution)


def _refuse_class_names(config: DataConfig) -> None:
    """Raises DataError where class names are asked of what has no class folders."""
    if config.captions == "class-names":
        raise DataError(
            f"captions class-names with {config.source}: they are the names of an image folder's subfolders; "
            "give such a folder, or use --captions column or none"
        )


def _short_name(name: str) -> str:
    """A name that run folders can carry."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "data"
