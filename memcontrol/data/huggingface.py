"""Hugging Face `datasets`: a name on the hub, or a folder that `save_to_disk` wrote."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from memcontrol.config import DataConfig
from memcontrol.data.decoding import decode_image
from memcontrol.data.pool import Pool, opened_pool
from memcontrol.data.table import SPLITS, missing_caption_column, optional_column, refuse_empty_captions
from memcontrol.errors import DataError, MissingPackageError, first_line

PREFIX = "hf:"
_SAVED = ("dataset_dict.json", "state.json")


def is_saved_dataset(path: Path) -> bool:
    """Whether `save_to_disk` wrote this folder."""
    return any((path / name).is_file() for name in _SAVED)


def huggingface_pool(source: str, config: DataConfig, *, resolution: int) -> Pool:
    """Images of `hf:NAME`, `hf:NAME:CONFIG`, or a saved folder; images stay on disk until read.

    The image column is the path column of the configuration, or else the first of type `Image`. Captions from a column
    of class labels are the labels' names. A dataset of one split is split at random.

    Raises:
        MissingPackageError: `datasets` is not installed.
        DataError: no such dataset, or a column that is missing.
    """
    try:
        import datasets  # noqa: F401
    except ImportError as error:
        raise MissingPackageError(
            'package datasets is not installed: install it with pip install -c constraints.txt -e ".[hf]"'
        ) from error
    loaded = _loaded(source)
    parts: dict[str, Any] = dict(loaded) if isinstance(loaded, dict) else {"train": loaded}
    table = _joined(parts, source)
    described = f"{source} (columns: {', '.join(table.column_names)})"
    subjects = optional_column(config.subject_column, "subject_column", table.column_names, described)
    return opened_pool(
        Path(source.removeprefix(PREFIX).split(":")[0]).name,
        _opener(table, _image_column(table, config, described), source),
        resolution=resolution,
        keys=[f"{name}-{i}" for name, part in parts.items() for i in range(len(part))],
        captions=_captions(table, config, source, described),
        subjects=_texts(table, config.subject_column) if subjects else None,
        splits=_splits(parts, table, config, described),
    )


def _loaded(source: str) -> Any:
    """A `Dataset` or a `DatasetDict`."""
    import datasets

    name, _, subset = source.removeprefix(PREFIX).partition(":")
    try:
        if is_saved_dataset(Path(name)):
            return datasets.load_from_disk(name)
        return datasets.load_dataset(name, subset or None)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"no Hugging Face dataset {name} ({first_line(error)}): expected hf:NAME or hf:NAME:CONFIG, or a folder "
            "that save_to_disk wrote"
        ) from error


def _joined(parts: dict[str, Any], source: str) -> Any:
    """All splits as one `Dataset`, one after the other."""
    import datasets

    try:
        return datasets.concatenate_datasets(list(parts.values()))
    except ValueError as error:
        raise DataError(
            f"splits {', '.join(parts)} of {source} have columns of different kinds ({first_line(error)}): make them "
            "alike, or save one split with save_to_disk and give that"
        ) from error


def _image_column(table: Any, config: DataConfig, described: str) -> str:
    import datasets

    typed = [name for name, feature in table.features.items() if isinstance(feature, datasets.Image)]
    wanted = [config.path_column] if config.path_column else typed
    if not wanted or wanted[0] not in typed:
        missing = f'"{config.path_column}" ' if config.path_column else ""
        raise DataError(f"no image column {missing}in {described}: name a column of type Image with --path-column")
    return wanted[0]


def _opener(table: Any, column: str, source: str) -> Callable[[int], Image.Image]:
    """Position -> decoded image; our own decoding, so that 16-bit images and errors are the same for every source."""
    import datasets

    images = table.select_columns([column]).cast_column(column, datasets.Image(decode=False))

    def open_image(position: int) -> Image.Image:
        cell = images[position][column]
        name = f"image {position + 1} of {source}"
        if cell is None or not (cell["bytes"] or cell["path"]):
            raise DataError(f"{name} does not decode (empty): repair or remove it, or use --bad-images skip")
        return decode_image(cell["bytes"] or Path(cell["path"]), name=name)

    return open_image


def _captions(table: Any, config: DataConfig, source: str, described: str) -> tuple[str, ...]:
    if config.captions == "none":
        return ("",) * len(table)
    if config.caption_column not in table.column_names:
        raise missing_caption_column(config.caption_column, described)
    captions = _texts(table, config.caption_column)
    refuse_empty_captions(captions, config.caption_column, source)
    return captions


def _texts(table: Any, column: str) -> tuple[str, ...]:
    """A column as text, class labels by their names."""
    import datasets

    feature, values = table.features[column], table[column]
    if isinstance(feature, datasets.ClassLabel):
        return tuple("" if value is None else feature.int2str(value) for value in values)
    return tuple("" if value is None else str(value) for value in values)


def _splits(parts: dict[str, Any], table: Any, config: DataConfig, described: str) -> tuple[str, ...] | None:
    """From a split column, or from the dataset's own splits where there is more than one."""
    if optional_column(config.split_column, "split_column", table.column_names, described):
        named: Sequence[str] = _texts(table, config.split_column)
    elif len(parts) > 1:
        named = [name for name, part in parts.items() for _ in range(len(part))]
    else:
        return None
    unknown = sorted(name for name in set(named) if name.lower() not in SPLITS)
    if unknown:
        raise DataError(f'{described} has a split "{unknown[0]}": expected train, validation or test')
    return tuple(SPLITS[name.lower()] for name in named)
