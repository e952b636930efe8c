"""Tables that list images: MIMIC-CXR-style CSV and XLSX, and the metadata files of image folders."""

from __future__ import annotations

import csv
import os
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from memcontrol.config import DataConfig
from memcontrol.data.decoding import decode_image
from memcontrol.data.pool import Pool, opened_pool
from memcontrol.errors import DataError, MissingPackageError, first_line, reason
from memcontrol.plain_files import load_json

PATH_COLUMNS = ("path", "file_name", "image")
"""Tried in this order where the configuration names no path column."""
SPLITS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validate": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
"""What a split may be called, in any case."""
_DICOM = (".dcm", ".dicom")
_NO_WORKBOOK = (zipfile.BadZipFile, zlib.error, SyntaxError, ValueError, LookupError, AttributeError, TypeError)
"""What openpyxl raises on a file that is none, or is broken; broken XML is a SyntaxError."""


@dataclass(frozen=True)
class Rows:
    """A table in memory: text cells, rows counted from 1 below the header."""

    path: Path
    columns: tuple[str, ...]
    rows: list[dict[str, str]]


def table_pool(path: Path, config: DataConfig, *, resolution: int) -> Pool:
    """Images listed by a CSV or XLSX table, with paths relative to the table's folder.

    Raises:
        DataError: a table that cannot be read, a column that is missing, or a row whose file is.
    """
    return rows_pool(read_rows(path), config, resolution=resolution, name=path.stem, path_columns=PATH_COLUMNS)


def read_rows(path: Path) -> Rows:
    """All rows of a `.csv`, `.xlsx` or `.jsonl` file.

    Raises:
        DataError: the file cannot be read, is malformed or has no rows.
    """
    kinds = {".xlsx": _xlsx_records, ".jsonl": _jsonl_records}
    try:
        columns, rows = kinds.get(path.suffix.lower(), _csv_records)(path)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a table of UTF-8 text ({error}): save it as CSV in UTF-8") from error
    except OSError as error:
        raise DataError(f"cannot read {path} ({reason(error)}): name a table that can be read") from error
    if not rows:
        raise DataError(f"{path} has no rows: list at least one image under its header")
    return Rows(path, tuple(columns), rows)


def _csv_records(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        separator = _separator(file.readline())
        file.seek(0)
        return _records(csv.reader(file, delimiter=separator), path)


def _separator(header: str) -> str:
    """A comma, unless the header has none but a semicolon or a tab, as spreadsheets of some countries write."""
    return next((mark for mark in ",;\t" if mark in header), ",")


def _xlsx_records(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    try:
        from openpyxl import load_workbook
    except ImportError as error:
        raise MissingPackageError(
            f'reading {path} needs openpyxl: run pip install -c constraints.txt -e ".[tables]", or save as CSV'
        ) from error
    try:
        # Its readers are lazy, so that a broken sheet shows itself only when its rows are taken.
        with closing(load_workbook(path, read_only=True, data_only=True)) as book:
            return _records(book.worksheets[0].iter_rows(values_only=True), path)
    except (*_NO_WORKBOOK, OSError) as error:
        raise DataError(f"{path} is not an XLSX workbook ({first_line(error)}): save it as XLSX or CSV") from error


def _records(lines: Iterable[Sequence[object]], path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Header and rows; blank lines are not rows, and missing cells are empty."""
    texts = ([_text(cell) for cell in line] for line in lines)
    header = next(texts, [])
    columns = [name for name in header if name]
    if twice := next((name for name in columns if columns.count(name) > 1), None):
        raise DataError(f'{path} has two columns "{twice}": rename one')
    rows: list[dict[str, str]] = []
    for line in filter(any, texts):
        if any(line[len(header) :]):
            raise DataError(
                f"row {len(rows) + 1} of {path} has more cells than the header has columns ({', '.join(columns)}): put "
                "text that holds a comma in quotes"
            )
        rows.append(dict(zip(header, line + [""] * len(header), strict=False)))
    return columns, rows


def _jsonl_records(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    rows: list[dict[str, str]] = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            content = load_json(line)
        except ValueError as error:
            why = getattr(error, "msg", error)
            raise DataError(f"line {number} of {path} is not JSON ({why}): write one object per line") from error
        if not isinstance(content, dict):
            raise DataError(f"line {number} of {path} is not a JSON object: write one object per line")
        rows.append({key: _text(value) for key, value in content.items()})
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return columns, [{column: row.get(column, "") for column in columns} for row in rows]


def _text(cell: object) -> str:
    """A cell as text; spreadsheets keep whole numbers, such as subject ids, as floating point."""
    if cell is None:
        return ""
    return str(int(cell) if isinstance(cell, float) and cell.is_integer() else cell).strip()


def rows_pool(rows: Rows, config: DataConfig, *, resolution: int, name: str, path_columns: Sequence[str]) -> Pool:
    """The images that rows list, read from the folder that the table is in.

    Raises:
        DataError: a column that is missing, captions of which all are empty, or a row whose file is missing, outside
            the folder, or listed twice.
    """
    keys = _keys(rows, _path_column(rows, config, path_columns))
    files = [rows.path.parent / key for key in keys]
    return opened_pool(
        name,
        lambda i: decode_image(files[i], name=str(files[i])),
        resolution=resolution,
        keys=keys,
        captions=_captions(rows, config),
        subjects=_subjects(rows, config, keys),
        splits=_splits(rows, config),
    )


def _path_column(rows: Rows, config: DataConfig, tried: Sequence[str]) -> str:
    wanted = (config.path_column,) if config.path_column else tuple(tried)
    for name in wanted:
        if name in rows.columns:
            return name
    expected = " or ".join(f'"{name}"' for name in wanted)
    raise DataError(f"no path column {expected} in {_described(rows)}: name one with --path-column")


def _captions(rows: Rows, config: DataConfig) -> tuple[str, ...]:
    if config.captions == "none":
        return ("",) * len(rows.rows)
    if config.caption_column not in rows.columns:
        raise missing_caption_column(config.caption_column, _described(rows))
    captions = tuple(row[config.caption_column] for row in rows.rows)
    refuse_empty_captions(captions, config.caption_column, rows.path)
    return captions


def missing_caption_column(name: str, described: str) -> DataError:
    """The error for a caption column that is not there; `described` names the source and its columns."""
    mend = "name one with --caption-column, or use --captions none"
    return DataError(f'no caption column "{name}" in {described}: {mend}')


def refuse_empty_captions(captions: Sequence[str], column: str, source: object) -> None:
    """Refuse a column in which no caption says anything.

    Raises:
        DataError: every caption is empty.
    """
    if captions and not any(caption.strip() for caption in captions):
        raise DataError(
            f'every caption in column "{column}" of {source} is empty: name another column with --caption-column, or '
            "use --captions none to train without captions"
        )


def _described(rows: Rows) -> str:
    return f"{rows.path} (columns: {', '.join(rows.columns)})"


def optional_column(name: str, setting: str, columns: Sequence[str], described: str) -> bool:
    """Whether a source has a column that it may do without.

    Raises:
        DataError: it has not, and the user named it (it is not the default of `setting`).
    """
    if name in columns:
        return True
    if name != DataConfig.model_fields[setting].default:
        raise DataError(f'no column "{name}" in {described}: name one with --{setting.replace("_", "-")}')
    return False


def _subjects(rows: Rows, config: DataConfig, keys: Sequence[str]) -> tuple[str, ...] | None:
    if not optional_column(config.subject_column, "subject_column", rows.columns, _described(rows)):
        return None
    # An image without a subject can only be its own.
    return tuple(row[config.subject_column] or key for row, key in zip(rows.rows, keys, strict=True))


def _splits(rows: Rows, config: DataConfig) -> tuple[str, ...] | None:
    if not optional_column(config.split_column, "split_column", rows.columns, _described(rows)):
        return None
    for number, row in enumerate(rows.rows, start=1):
        if row[config.split_column].lower() not in SPLITS:
            raise DataError(
                f'row {number} of {rows.path} has {config.split_column} "{row[config.split_column]}": '
                "expected train, validation or test"
            )
    return tuple(SPLITS[row[config.split_column].lower()] for row in rows.rows)


def _keys(rows: Rows, column: str) -> list[str]:
    """Each row's file, relative to the table's folder."""
    # By name alone: a link inside the folder may lead where its owner likes.
    root = Path(os.path.normpath(rows.path.parent.absolute()))
    seen: dict[str, int] = {}
    for number, row in enumerate(rows.rows, start=1):
        named = f'row {number} of {rows.path} names "{row[column]}"'
        full = Path(os.path.normpath(root / row[column]))
        if not full.is_relative_to(root):
            raise DataError(f"{named}, which is outside {rows.path.parent}: give paths inside that folder")
        if full.suffix.lower() in _DICOM:
            raise DataError(f"{named}: DICOM is not read, convert the images to PNG or JPEG first")
        # Unlike Path.is_file, without an error where a name is too long, as that of a caption would be.
        if not os.path.isfile(full):  # noqa: PTH113
            raise DataError(
                f"{named}, but there is no such file in {rows.path.parent}, from where paths count: add the file or "
                "remove the row"
            )
        key = full.relative_to(root).as_posix()
        if seen.setdefault(key, number) != number:
            raise DataError(f"{named}, as row {seen[key]} does: list each image once")
    return list(seen)
