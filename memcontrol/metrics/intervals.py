"""Intervals of 95 %: of a mean over images, and of a share of them."""

from __future__ import annotations

from math import sqrt

import numpy as np
from numpy.typing import NDArray

from memcontrol.errors import MemControlError, TooFewImages

Interval = tuple[float, float, float]
"""A value and the ends of its 95 % interval."""

NORMAL_95 = 1.959964
"""Standard errors to each side of a 95 % interval."""


def mean_interval(values: NDArray[np.floating]) -> Interval:
    """The mean of one value per image and the ends of its 95 % interval, by Student's t.

    It covers which images happened to be generated, taken as independent. It leaves out the draw of their captions,
    images that share one, and the seed of the training.

    Args:
        values: `(N,)`, such as `AlignedEncoder.similarities` gives them; N at least 2.
    Returns:
        The mean, and the low and high end.
    Raises:
        TooFewImages: fewer than two values.
        MemControlError: values of another shape, or that are not finite.
    """
    rows = np.asarray(values, dtype=np.float64)
    if rows.ndim != 1:
        raise MemControlError(f"a mean over images needs one value per image, got the shape {rows.shape}")
    if len(rows) < 2:
        raise TooFewImages(f"an interval of a mean needs 2 images or more, got {len(rows)}: give more images")
    if not np.isfinite(rows).all():
        wrong = int((~np.isfinite(rows)).sum())
        raise MemControlError(f"{wrong} of {len(rows)} values are not finite: check the images and the weights")
    from scipy.stats import t

    value = float(rows.mean())
    reach = float(t.ppf(0.975, len(rows) - 1)) * float(rows.std(ddof=1)) / sqrt(len(rows))
    return value, value - reach, value + reach


def binomial_interval(count: int, total: int) -> tuple[float, float]:
    """95 % interval of a share of `count` in `total`, at least 1, all independent.

    Source: Clopper and Pearson 1934; covers at least 95 % at any share, more at small totals.
    """
    from scipy.stats import binomtest

    interval = binomtest(count, total).proportion_ci(confidence_level=0.95, method="exact")
    return float(interval.low), float(interval.high)
