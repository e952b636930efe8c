"""How well a score tells training images from others: area under the ROC curve, and power at few false alarms."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memcontrol.errors import MemControlError, TooFewImages
from memcontrol.metrics.intervals import NORMAL_95, Interval, binomial_interval

Float64 = NDArray[np.float64]
Scores = NDArray[np.floating]


@dataclass(frozen=True)
class TruePositiveRate:
    """Share of members found at a rate of false positives.

    Attributes:
        value: share of members that score above `threshold`.
        low, high: 95 % Clopper-Pearson interval: it covers which members were scored, with the threshold as it is,
            and not which non-members set the threshold, nor the seed of the training.
        threshold: an image is called a member if it scores above this.
        false_positives: non-members above the threshold; with ties, fewer than the rate allows.
        resolution: smallest rate of false positives other than 0 that this many non-members can show, 1 / their number.
        note: what is wrong where `resolution` is above the rate that was asked for, else None. `threshold` is then
            the highest non-member's score, and `value` the power at no observed false positive, whose true rate may
            be well above what was asked for.
    """

    value: float
    low: float
    high: float
    threshold: float
    false_positives: int
    resolution: float
    note: str | None


def auc(members: Scores, nonmembers: Scores) -> Interval:
    """Probability that a member scores higher than a non-member, ties counted half, and its 95 % interval.

    The interval is DeLong's: it covers which members and which non-members were scored, and not the seed of the
    training. Its normal approximation wants some 20 of each. Where all scores are tied, or the two sets separate
    entirely, DeLong's variance is zero; then the bound is the exact one for min(m, n) independent pairs that all had
    the same outcome.

    Args:
        members: `(m,)` scores of training images, higher where more likely a member; m at least 2.
        nonmembers: `(n,)` scores of others; n at least 2.
    Raises:
        TooFewImages: fewer than two of either.
        MemControlError: a score that is NaN, or not one number per image.
    Source: DeLong et al. 1988, by the midranks of Sun and Xu 2014.
    """
    inside, outside = _checked(members, nonmembers, least=2)
    m, n = len(inside), len(outside)
    ranks = _midranks(np.concatenate([inside, outside]))
    # Share of the other set that each score beats: from its rank in both less its rank in its own.
    beaten = (ranks[:m] - _midranks(inside)) / n
    beating = 1 - (ranks[m:] - _midranks(outside)) / m
    value = float(beaten.mean())
    variance = float(beaten.var(ddof=1)) / m + float(beating.var(ddof=1)) / n
    if variance < 1e-12:
        certain = 0.025 ** (1 / min(m, n))
        return value, value * certain, 1 - (1 - value) * certain
    margin = NORMAL_95 * math.sqrt(variance)
    return value, max(value - margin, 0.0), min(value + margin, 1.0)


def tpr_at_fpr(members: Scores, nonmembers: Scores, fpr: float) -> TruePositiveRate:
    """Share of members above the lowest threshold that at most a share `fpr` of non-members is above.

    Args:
        members: `(m,)` scores of training images, higher where more likely a member.
        nonmembers: `(n,)` scores of others; with fewer than 1 / fpr the result's `note` says so.
        fpr: above 0, below 1.
    Raises:
        TooFewImages: none of either.
        MemControlError: a score that is NaN, not one number per image, or `fpr` out of range.
    Source: Carlini et al. 2022 (arXiv 2112.03570); Clopper and Pearson 1934.
    """
    if not 0 < fpr < 1:
        raise MemControlError(f"false positive rate {fpr}: expected above 0 and below 1, as 0.01")
    inside, outside = _checked(members, nonmembers, least=1)
    n = len(outside)
    allowed = min(math.floor(fpr * n + 1e-9), n - 1)  # 0.29 * 100 is a little less than 29
    threshold = float(np.sort(outside)[n - 1 - allowed])
    found = int((inside > threshold).sum())
    note = None
    if not allowed:
        note = (
            f"{n} non-members cannot show a false positive rate of {fpr:g}: the threshold is the highest of them; "
            f"{math.ceil(1 / fpr - 1e-9)} or more would show it"
        )
    low, high = binomial_interval(found, len(inside))
    alarms = int((outside > threshold).sum())
    return TruePositiveRate(found / len(inside), low, high, threshold, alarms, 1 / n, note)


def _checked(members: Scores, nonmembers: Scores, *, least: int) -> tuple[Float64, Float64]:
    checked = []
    for name, scores in (("members", members), ("non-members", nonmembers)):
        values = np.asarray(scores, dtype=np.float64)
        if values.ndim != 1:
            raise MemControlError(f"scores of {name} have shape {values.shape}: expected one number per image")
        if len(values) < least:
            raise TooFewImages(f"scores of {len(values)} {name}: expected {least} or more; score more images")
        if np.isnan(values).any():
            missing = int(np.isnan(values).sum())
            raise MemControlError(f"{missing} of {len(values)} scores of {name} are NaN: expected numbers")
        checked.append(values)
    return checked[0], checked[1]


def _midranks(values: Float64) -> Float64:
    """Ranks from 1, ties sharing the middle of theirs."""
    ordered = np.sort(values)
    below, upto = np.searchsorted(ordered, values, "left"), np.searchsorted(ordered, values, "right")
    return np.asarray((below + upto + 1) / 2)
