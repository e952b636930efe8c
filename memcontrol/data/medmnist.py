"""MedMNIST archives: one `.npz` with images and labels for train, validation and test."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from memcontrol.config import DataConfig
from memcontrol.data.pool import Pool, opened_pool
from memcontrol.errors import DataError, reason

PARTS = {"train": "train", "val": "validation", "test": "test"}
"""Prefix of the arrays' names, and the split that it means."""


def medmnist_pool(path: Path, config: DataConfig, *, resolution: int) -> Pool:
    """Images of a MedMNIST `.npz`, captioned "pathmnist class 3" after the file's name and the label.

    Arrays `train_images`, `val_images` and `test_images` are `(N, H, W)` or `(N, H, W, 3)` uint8; labels are `(N,)` or
    `(N, 1)`, or `(N, K)` of 0 and 1 for several findings. Compressed arrays cannot be mapped from disk, so they are
    held at their own size. An archive with `train` alone is split at random.

    Raises:
        DataError: not such an archive.

    Source: Yang et al. 2023, MedMNIST v2 (doi 10.1038/s41597-022-01721-8).
    """
    parts = _arrays(path)
    images = [image for part in parts.values() for image in part[0]]
    labels = [label for part in parts.values() for label in part[1]]
    keys = [f"{prefix}-{i}" for prefix, part in parts.items() for i in range(len(part[0]))]
    splits = [PARTS[prefix] for prefix, part in parts.items() for _ in range(len(part[0]))]
    captions = ["" if config.captions == "none" else f"{path.stem} {_named(label)}" for label in labels]
    return opened_pool(
        path.stem,
        lambda i: Image.fromarray(images[i]).convert("RGB"),
        resolution=resolution,
        keys=keys,
        captions=captions,
        splits=splits if set(splits) - {"train"} else None,
    )


def _arrays(path: Path) -> dict[str, tuple[NDArray[np.uint8], NDArray[np.generic]]]:
    """Images and labels by prefix."""
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise ValueError("one array, not an archive")
            prefixes = [prefix for prefix in PARTS if f"{prefix}_images" in archive.files]
            if not prefixes:
                raise ValueError(f"no train_images; it has {', '.join(archive.files) or 'nothing'}")
            return {p: _checked(p, archive[f"{p}_images"], archive[f"{p}_labels"]) for p in prefixes}
    except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"{path} is not a MedMNIST archive ({reason(error)}): expected arrays train_images (N, H, W) or "
            "(N, H, W, 3) uint8 and train_labels (N, 1), and the same for val and test"
        ) from error


def _checked(
    prefix: str, images: NDArray[np.uint8], labels: NDArray[np.generic]
) -> tuple[NDArray[np.uint8], NDArray[np.generic]]:
    grey_or_colour = images.ndim == 3 or (images.ndim == 4 and images.shape[-1] == 3)
    if not grey_or_colour or images.dtype != np.uint8:
        raise ValueError(f"{prefix}_images is {images.shape} {images.dtype}")
    if labels.ndim not in (1, 2) or len(labels) != len(images) or labels.dtype.kind not in "iub":
        raise ValueError(f"{prefix}_labels is {labels.shape} {labels.dtype} for {len(images)} images")
    return images, labels.reshape(len(labels), -1)


def _named(label: NDArray[np.generic]) -> str:
    if len(label) == 1:
        return f"class {label[0]}"
    found = np.flatnonzero(label).tolist()
    return f"classes {', '.join(map(str, found))}" if found else "no class"
