"""Means over seeds with their 95 % intervals, and paired differences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from memcontrol.errors import MemControlError

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Mean:
    """A mean over seeds.

    Attributes:
        low, high: 95 % interval; None where there is one seed.
        n: seeds.
    """

    value: float
    low: float | None
    high: float | None
    n: int

    @property
    def half(self) -> float | None:
        """Half the interval's width; None where there is none."""
        return None if self.high is None else self.high - self.value

    def to_json(self) -> dict[str, float | int | None]:
        """Plain values, as documents hold them."""
        return {"mean": self.value, "low": self.low, "high": self.high, "n": self.n}


def mean_over_seeds(values: ArrayLike) -> Mean:
    """The mean of `(n,)` values, one for each seed, and Student's 95 % interval.

    It covers what differs between seeds (the draw of the training set, training and sampling), if the values are about
    normal. It does not cover other data or models, a learning rate that was chosen on few seeds, or that many rows and
    scores are looked at: of twenty differences that are zero, one interval is expected to exclude zero. Where all seeds
    have one value, such as no extracted image, it has no width, and says nothing of what is rare.

    Raises:
        MemControlError: no values, or one that is not a finite number.

    Source: Student 1908 (The probable error of a mean).
    """
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or not len(numbers) or not np.isfinite(numbers).all():
        raise MemControlError(f"a mean over seeds of {values!r}: expected one finite number or more")
    count, mean = len(numbers), float(numbers.mean())
    if count == 1:
        return Mean(mean, None, None, 1)
    from scipy.special import stdtrit

    half = float(stdtrit(count - 1, (1 + CONFIDENCE) / 2) * numbers.std(ddof=1) / count**0.5)
    return Mean(mean, mean - half, mean + half, count)


def paired_difference(values: Mapping[int, float], reference: Mapping[int, float]) -> Mean | None:
    """Mean and interval of value minus reference over the seeds that both have; None where they share none.

    Rows of one seed share training set, batches, noise and sampling, so that much of what differs between seeds is in
    both and cancels. The interval covers, and does not cover, what that of `mean_over_seeds` does.
    """
    shared = sorted(values.keys() & reference.keys())
    return mean_over_seeds([values[seed] - reference[seed] for seed in shared]) if shared else None
