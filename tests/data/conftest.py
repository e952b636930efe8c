"""Tiny image sources written to a temporary folder."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def write_image(path: Path, number: int, size: tuple[int, int] = (12, 12)) -> None:
    """A picture that only `number` decides."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def write_rows(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


@pytest.fixture
def photos(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder of `count` images with metadata; with `subjects`, that many people take turns."""

    def make(count: int = 40, *, subjects: int | None = None, splits: Sequence[str] | None = None) -> Path:
        folder = tmp_path / "photos"
        header = ["file_name", "text"] + ["subject_id"] * bool(subjects) + ["split"] * bool(splits)
        rows = []
        for i in range(count):
            write_image(folder / f"{i:03}.png", i)
            row = [f"{i:03}.png", f"caption {i}"]
            rows.append(row + ([f"p{i % subjects}"] if subjects else []) + ([splits[i]] if splits else []))
        write_rows(folder / "metadata.csv", header, rows)
        return folder

    return make
