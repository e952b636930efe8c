"""Published counts of copies, as functions of features: memorized quantity, C_T's statistic, distance percentiles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from memcontrol.errors import TooFewImages
from memcontrol.metrics.neighbourhood import Matches, Members, Neighbourhood, seen_depth
from memcontrol.metrics.neighbours import nearest_either

Float64 = NDArray[np.float64]
Features = NDArray[np.floating]

HONEST_SHARE = 0.01
"""Share of honest images that a calibrated threshold calls copies: one in a hundred. Of the 512 honest images that are
used, five then lie below it; a much smaller share could not be estimated from them, a larger one would call many honest
images copies."""
RATIO_NEIGHBOURS = 50
RATIO_THRESHOLDS = tuple(round(0.15 + 0.05 * step, 2) for step in range(16))
"""0.15 to 0.9."""
PERCENTILES = (0, 1, 5, 25, 50, 75, 95, 99, 100)
SUBSETS = 32


def copy_threshold(honest: Float64, share: float = HONEST_SHARE) -> float:
    """The value below which `share` of honest images lie: an image below it counts as a copy.

    Args:
        honest: `(C,)`, nearest training distances, or ratios, of images that are no copies; 1 / share of them or more,
            for fewer do not reach that quantile.
        share: quantile, 0 to 1.
    """
    return float(np.quantile(honest, share))


def distance_ratios(
    generated: Features, training: Features, *, k: int = RATIO_NEIGHBOURS, mirrored: Features | None = None
) -> Float64:
    """Squared L2 to the nearest training image over the mean squared L2 to the k nearest, the nearest included.

    Near-duplicates inside the training set raise the ratio of their copies: with k of them it is 1.

    Args:
        generated: `(N, D)`, features or flattened pixels; they are compared as given, not normalised.
        training: `(n, D)`, n at least 2.
        k: at least 2; as many as there are where there are fewer training images.
        mirrored: `(N, D)`, features of the mirrored generated images.
    Returns:
        `(N,)`, 0 to 1; 1 where all k distances are zero.
    Raises:
        TooFewImages: fewer than two training images, or k under 2.
    Source: Carlini et al. 2023 (arXiv 2301.13188), as counted in IET-AGC (arXiv 2407.15328).
    """
    if min(len(training), k) < 2:
        raise TooFewImages(f"distance ratios need 2 training images and k of 2 or more, got {len(training)} and {k}")
    depth = min(k, len(training))
    distances, _ = nearest_either(
        generated, mirrored, training, depth, distance="euclidean", names=("generated", "training")
    )
    return _first_to_mean(distances.astype(np.float64), np.ones(distances.shape, dtype=bool))


def member_ratios(near: Neighbourhood, members: Members, k: int) -> Float64:
    """The same under a membership of a pool, `(P,)`, from Euclidean neighbours in the pool."""
    count = int(members.sum())
    if k >= count and near.positions.shape[1] == len(members):  # the mean is of all members, whatever their order
        ours = near.by_position[members]
        total: Float64 = ours.sum(axis=0)
        ratios: Float64 = np.divide(ours.min(axis=0) * count, total, out=np.ones_like(total), where=total > 0)
        return ratios
    inside = np.take(members, near.positions)
    inside &= np.cumsum(inside, axis=1, dtype=np.int32) <= k
    return _first_to_mean(near.distances, inside)


def member_depth(population: int, size: int, k: int) -> int:
    """How many of the nearest of `population` hold k of `size` drawn at random, but for negligible probability."""
    share = size / population
    # A negative binomial's mean and seven deviations.
    return min(population, int(np.ceil((k + 7.0 * np.sqrt(k * (1.0 - share))) / share)))


def memorized_shares(ratios: Float64, thresholds: Sequence[float] = RATIO_THRESHOLDS) -> dict[float, float]:
    """Share of generated images whose ratio lies below each threshold.

    Honest images reach such thresholds too where the training set is small or dense: compare with honest images'.
    No interval: of the measures, `memorized_share` of `measure_copying` has one.

    Args:
        ratios: `(N,)`, from `distance_ratios`.
        thresholds: 0 to 1.
    Source: IET-AGC (arXiv 2407.15328), "memorized quantity".
    """
    return {float(threshold): float((ratios < threshold).mean()) for threshold in thresholds}


def mann_whitney_z(first: Float64, second: Float64) -> float:
    """Standardised Mann-Whitney statistic: above zero where `first` tends to be larger; ties count half.

    Variance with the correction for ties, no continuity correction; 0 where all values are equal.

    Args:
        first: `(N,)`.
        second: `(M,)`.
    """
    n, m = len(first), len(second)
    ordered = np.sort(second)
    below = np.searchsorted(ordered, first, side="left").sum() + np.searchsorted(ordered, first, side="right").sum()
    _, counts = np.unique(np.concatenate([first, second]), return_counts=True)
    tied = float((counts.astype(np.float64) ** 3 - counts).sum()) / ((n + m) * (n + m - 1))
    variance = n * m / 12 * (n + m + 1 - tied)
    return 0.0 if variance <= 0 else float((below / 2 - n * m / 2) / np.sqrt(variance))


def distance_percentiles(
    generated: Features,
    training: Features,
    heldout: Features,
    *,
    rng: np.random.Generator,
    mirrored: Features | None = None,
) -> dict[str, dict[int, float]]:
    """Percentiles over generated images of the nearest cosine distance to `training` and to as many `heldout` images.

    Nearest distances fall as a set grows, so the larger set is cut to the smaller one's size: the percentiles are the
    mean over 32 random subsets of it. No interval.

    Args:
        generated: `(N, D)`.
        training: `(n, D)`.
        heldout: `(M, D)`.
        rng: draws the subsets.
        mirrored: `(N, D)`, features of the mirrored generated images.
    Returns:
        "training" and "heldout" -> percentile (0, 1, 5, 25, 50, 75, 95, 99, 100) -> distance.
    Raises:
        TooFewImages: an empty set.
    """
    sets = {"training": training, "heldout": heldout}
    for name, rows in (("generated", generated), *sets.items()):
        if len(rows) == 0:
            raise TooFewImages(f"distance percentiles need 1 {name} image or more, got 0")
    size = min(len(training), len(heldout))
    percentiles = {}
    for name, rows in sets.items():
        near = Neighbourhood.search(generated, rows, seen_depth(len(rows), size), mirrored, name="generated")
        subsets = SUBSETS if size < len(rows) else 1
        drawn = [Matches.of(near, rng.permutation(len(rows)) < size).distances for _ in range(subsets)]
        means = np.percentile(drawn, PERCENTILES, axis=1).mean(axis=1)
        percentiles[name] = {percentile: float(mean) for percentile, mean in zip(PERCENTILES, means, strict=True)}
    return percentiles


def _first_to_mean(distances: Float64, inside: Members) -> Float64:
    """Nearest member's distance over the mean of all of them, `(N, K)` each."""
    rows = np.arange(len(distances))
    total = np.einsum("nk,nk->n", distances, inside.astype(np.float64))
    ratios = np.ones(len(distances))
    np.divide(distances[rows, inside.argmax(axis=1)] * inside.sum(axis=1), total, out=ratios, where=total > 0)
    return ratios
