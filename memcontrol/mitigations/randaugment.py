"""RandAugment: a few random operations on an image, all of one magnitude, by Pillow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from memcontrol.data.images import Pixels
from memcontrol.errors import MemControlError

MOST = 30
"""The largest magnitude."""

SHEAR = 0.3
SHIFT = 150 / 331
"""Of the image's side."""

TURN = 30.0
"""Degrees."""

ENHANCED = 0.9
BITS = 4
"""How many of a channel's eight bits are dropped at most."""

Picture = Image.Image


@dataclass(frozen=True)
class Operation:
    """One operation.

    Attributes:
        applied: to an image and a level from 0 (nothing, or the least) to 1; from -1 where it is `signed`.
        signed: whether either direction is drawn.
    """

    applied: Callable[[Picture, float], Picture]
    signed: bool = False


def _moved(image: Picture, *coefficients: float) -> Picture:
    """What is pulled in from outside is black."""
    return image.transform(image.size, Image.Transform.AFFINE, coefficients)


OPERATIONS: Mapping[str, Operation] = {
    "identity": Operation(lambda image, _: image),
    "autocontrast": Operation(lambda image, _: ImageOps.autocontrast(image)),
    "equalize": Operation(lambda image, _: ImageOps.equalize(image)),
    "rotate": Operation(lambda image, level: image.rotate(TURN * level), signed=True),
    "solarize": Operation(lambda image, level: ImageOps.solarize(image, round(256 * (1 - level)))),
    "color": Operation(lambda image, level: ImageEnhance.Color(image).enhance(1 + ENHANCED * level), signed=True),
    "posterize": Operation(lambda image, level: ImageOps.posterize(image, 8 - round(BITS * level))),
    "contrast": Operation(lambda image, level: ImageEnhance.Contrast(image).enhance(1 + ENHANCED * level), signed=True),
    "brightness": Operation(
        lambda image, level: ImageEnhance.Brightness(image).enhance(1 + ENHANCED * level), signed=True
    ),
    "sharpness": Operation(
        lambda image, level: ImageEnhance.Sharpness(image).enhance(1 + ENHANCED * level), signed=True
    ),
    "shear-x": Operation(lambda image, level: _moved(image, 1, SHEAR * level, 0, 0, 1, 0), signed=True),
    "shear-y": Operation(lambda image, level: _moved(image, 1, 0, 0, SHEAR * level, 1, 0), signed=True),
    "translate-x": Operation(
        lambda image, level: _moved(image, 1, 0, SHIFT * level * image.width, 0, 1, 0), signed=True
    ),
    "translate-y": Operation(
        lambda image, level: _moved(image, 1, 0, 0, 0, 1, SHIFT * level * image.height), signed=True
    ),
}
"""The fourteen published ones."""


def randaugmented(pixels: Pixels, *, operations: int, magnitude: int, rng: np.random.Generator) -> Pixels:
    """Each image changed by operations drawn for it with replacement.

    Args:
        pixels: `(N, H, W, 3)` uint8.
        operations: how many for an image.
        magnitude: 0 to `MOST`; at 0, `autocontrast` and `equalize` still have their effect, which has no magnitude.

    Returns:
        `(N, H, W, 3)` uint8.

    Raises:
        MemControlError: the magnitude is out of its range.

    Source: Cubuk et al. 2020 (arXiv 1909.13719), the operations; Cubuk et al. 2019 (arXiv 1805.09501), their ranges.
    """
    if not 0 <= magnitude <= MOST:
        raise MemControlError(f"magnitude of RandAugment is {magnitude}: expected a whole number from 0 to {MOST}")
    names = list(OPERATIONS)
    changed = []
    for image in pixels:
        picture = Image.fromarray(np.ascontiguousarray(image))
        for drawn in rng.integers(len(names), size=operations):
            operation = OPERATIONS[names[drawn]]
            sign = -1 if operation.signed and rng.random() < 0.5 else 1
            picture = operation.applied(picture, sign * magnitude / MOST)
        changed.append(np.asarray(picture))
    return np.stack(changed) if changed else pixels
