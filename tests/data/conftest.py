"""Tiny image sources written to a temporary folder."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


class Photos:
    """Makes a folder of images with metadata; with `subjects`, that many people take turns."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, count: int = 40, *, subjects: int | None = None, splits: Sequence[str] | None = None) -> Path:
        self.folder.mkdir(exist_ok=True)
        rows = [["file_name", "text"] + ["subject_id"] * bool(subjects) + ["split"] * bool(splits)]
        for i in range(count):
            pixels = np.random.default_rng(i).integers(0, 256, (12, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(self.folder / f"{i:03}.png")
            row = [f"{i:03}.png", f"caption {i}"]
            rows.append(row + ([f"p{i % subjects}"] if subjects else []) + ([splits[i]] if splits else []))
        with (self.folder / "metadata.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
        return self.folder


@pytest.fixture
def photos(tmp_path: Path) -> Photos:
    return Photos(tmp_path / "photos")
