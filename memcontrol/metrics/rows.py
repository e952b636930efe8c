"""Rows of features: gone through in parts, and refused where a number computed from them would mean nothing."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from memcontrol.errors import MemControlError, TooFewImages

NUMBERS_AT_ONCE = 2**22
"""Features that are looked at together."""


def blocks(rows: NDArray[np.floating], numbers: int) -> Iterator[slice]:
    """Parts of `(N, D)` rows, one after the other, of at most so many numbers each, but of one row at least."""
    step = max(1, numbers // max(1, rows.shape[1]))
    return (slice(start, min(start + step, len(rows))) for start in range(0, len(rows), step))


def check_finite(rows: NDArray[np.floating], name: str) -> None:
    """Refuse `(N, D)` features of which one is NaN or infinite.

    Raises:
        MemControlError: naming the set and the row.
    """
    for part in blocks(rows, NUMBERS_AT_ONCE):
        finite = np.isfinite(rows[part]).all(axis=1)
        if not finite.all():
            raise MemControlError(
                f"features of {name} image {part.start + int(finite.argmin())} are not finite (NaN or infinite): check "
                "that image and the encoder's weights"
            )


def finite_rows(measure: str, name: str, rows: NDArray[np.floating], least: int) -> NDArray[np.float64]:
    """`rows`, `(N, D)`, in float64, refused where they are too few or not finite.

    Args:
        measure: what is computed from them, for the message.
        name: whose features they are, for the message.
        least: how many rows are needed.
    Raises:
        MemControlError: not two-dimensional, or NaN or infinite features.
        TooFewImages: fewer than `least` rows.
    """
    values = np.asarray(rows, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] == 0:
        raise MemControlError(f"{measure}: {name} features have shape {values.shape}, expected (images, features)")
    if len(values) < least:
        raise TooFewImages(f"{measure} needs {least} {name} images or more, got {len(values)}: give more images")
    check_finite(values, name)
    return values
