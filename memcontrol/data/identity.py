"""What a data set is, as one hash: caches and studies made with other data are told apart by it."""

from __future__ import annotations

import hashlib

import numpy as np

from memcontrol.data.images import Dataset, ImageSet
from memcontrol.fingerprint import fingerprint

HASHED_IMAGES = 2_000
"""Sets up to this size are hashed with all their pixels; of larger ones, this many, evenly spaced, are."""
_CHUNK = 256


def images_fingerprint(images: ImageSet) -> str:
    """`sha256:<hex>` of captions, keys, subjects and pixels.

    Beyond 2,000 images the pixels of an evenly spaced 2,000 stand for all, so that opening 110,000 files is not the
    first thing a run does; every key, caption and subject still counts.
    """
    positions = np.unique(np.linspace(0, len(images) - 1, min(len(images), HASHED_IMAGES)).round().astype(np.intp))
    pixels = hashlib.sha256()
    for start in range(0, len(positions), _CHUNK):
        pixels.update(np.ascontiguousarray(images.pixels(positions[start : start + _CHUNK])).tobytes())
    return fingerprint(images.keys, images.captions, images.subjects, pixels.digest())


def dataset_fingerprint(dataset: Dataset) -> str:
    """`sha256:<hex>` of the images of every set, the repeats and the resolution; not of the name, nor of the notes."""
    held, same = dataset.heldout, dataset.same_subjects
    sets = [dataset.training, held.fidelity, held.copying, held.confirmation]
    return fingerprint(
        dataset.resolution,
        dataset.repeats,
        [images_fingerprint(images) for images in sets],
        None if same is None else images_fingerprint(same),
    )
