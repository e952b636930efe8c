"""How many times each training image stands in an epoch: duplicated images are the ones that models copy first."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from memcontrol.errors import DataError

MOST_REPEATS = 1_000_000
_STREAM = 20


def repeat_counts(count: int, repeat: str | None, *, seed: int) -> NDArray[np.int64]:
    """`(count,)` int64: K for a seeded choice of a fraction F of the images (at least one of them), 1 for the others.

    Args:
        repeat: `F:K`, or None for no repeats.

    Raises:
        DataError: `repeat` is not a fraction over 0 and up to 1, a colon, and a whole number from 1.

    Source: Dutt et al. 2025 (arXiv 2405.19458), where a subset of the training images is repeated 50 times.
    """
    counts = np.ones(count, dtype=np.int64)
    if repeat is None:
        return counts
    fraction, times = _parsed(repeat)
    chosen = np.random.default_rng([seed, _STREAM]).permutation(count)[: max(1, round(fraction * count))]
    counts[chosen] = times
    return counts


def _parsed(repeat: str) -> tuple[float, int]:
    try:
        left, right = repeat.split(":")
        fraction, times = float(left), int(right)
    except ValueError:
        fraction, times = 0.0, 0
    if not (0 < fraction <= 1 and 1 <= times <= MOST_REPEATS):
        raise DataError(
            f'repeat "{repeat}": expected F:K, a fraction over 0 and up to 1, and a whole number from 1 to '
            f"{MOST_REPEATS:,}, such as --repeat 0.1:50 (a tenth of the training images, 50 times each)"
        )
    return fraction, times
