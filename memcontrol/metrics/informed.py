"""Fréchet distances that copying the training set makes worse: MIFID, and a calibrated form without its jump."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from memcontrol.errors import MemControlError
from memcontrol.metrics.intervals import Interval
from memcontrol.metrics.neighbours import nearest
from memcontrol.metrics.rows import finite_rows

Float64 = NDArray[np.float64]
Features = NDArray[np.floating]

TAU = 0.1
"""The paper's mean distance from which images are no copies; it belongs to Inception features."""
EPSILON = 1e-6
"""Added to the mean distance; float32 inner products tell no smaller distances apart."""


def training_distances(images: Features, training: Features) -> Float64:
    """Cosine distance of each image to the nearest training image, `(N, D)` and `(n, D)` -> `(N,)`, 0 to 2.

    Raises:
        TooFewImages: no images on either side.
        MemControlError: NaN or infinite features, or widths that differ.
    """
    rows = finite_rows("MIFID", "queried", images, 1)
    base = finite_rows("MIFID", "training", training, 1)
    return nearest(rows, base, 1)[0][:, 0].astype(np.float64)


def informed_distance(
    frechet: Interval,
    distances: Features,
    *,
    rng: np.random.Generator,
    tau: float = TAU,
    epsilon: float = EPSILON,
    resamples: int = 1000,
) -> Interval:
    """Memorization-informed Fréchet distance (MIFID) and the ends of its 95 % interval. Lower is better.

    fd / (s + epsilon) where s < tau, else fd; s is the mean of `distances`. It jumps by 1 / tau there, so two models
    to either side of tau are hardly comparable; `calibrated_informed_distance` has no jump. tau belongs to an encoder:
    honest images of one domain may all lie nearer than 0.1 to the training set.

    The interval joins that of fd with that of s (resampled distances), as if independent, on a log scale. It covers
    which images happened to be generated, and neither the reference, the training set nor the training's seed.

    Args:
        frechet: a Fréchet distance with its interval, any of this package's; below 0 counts as 0.
        distances: `(N,)`, of each *generated* image, from `training_distances`. torchmetrics averages over the
            training images instead, each to its nearest generated one, and takes |cos| for cos.
        rng: draws the resamples.
        tau: mean distance below which the model is penalised, above 0.
        epsilon: keeps the quotient finite.
        resamples: how often the distances are drawn anew.
    Raises:
        TooFewImages: no distances.
        MemControlError: distances or a Fréchet distance that are NaN or infinite, or `tau` not above 0.
    Source: Bai et al. 2021 (arXiv 2106.03062), section 2.
    """
    if not tau > 0:
        raise MemControlError(f"MIFID: tau is {tau}, expected a mean cosine distance above 0, such as {TAU}")
    means = _resampled_means("generated", distances, rng, resamples)
    return _penalised(frechet, means, lambda mean: np.where(mean < tau, 1.0 / (mean + epsilon), 1.0))


def calibrated_informed_distance(
    frechet: Interval,
    distances: Features,
    honest: Features,
    *,
    rng: np.random.Generator,
    epsilon: float = EPSILON,
    resamples: int = 1000,
) -> Interval:
    """MIFID without its jump and its fixed threshold, and the ends of its 95 % interval. Lower is better.

    fd * max(1, honest mean distance / (mean distance + epsilon)): continuous, and equal to fd for a model whose images
    lie no nearer to the training set than held-out images do. The interval is `informed_distance`'s, and covers which
    held-out images there were in the honest mean too.

    Args:
        frechet: a Fréchet distance with its interval; below 0 counts as 0.
        distances: `(N,)`, of each generated image, from `training_distances`.
        honest: `(C,)`, the same of held-out images, which are of the same kind and not in the training set.
        rng: draws the resamples.
        epsilon: keeps the quotient finite.
        resamples: how often both are drawn anew.
    Raises:
        TooFewImages: no distances on either side.
        MemControlError: numbers that are NaN or infinite, or held-out images that are all in the training set.
    Source: this project's; MIFID with a measured bound.
    """
    generated = _resampled_means("generated", distances, rng, resamples)
    expected = _resampled_means("held-out", honest, rng, resamples)
    if expected[0] <= epsilon:
        raise MemControlError(
            f"MIFID: held-out images lie at a mean distance of {expected[0]:.2g} from the training set, expected more "
            f"than {epsilon:g}: they are training images; take others"
        )
    return _penalised(frechet, generated, lambda mean: np.maximum(expected / (mean + epsilon), 1.0))


def _resampled_means(name: str, distances: Features, rng: np.random.Generator, resamples: int) -> Float64:
    """The mean, then the means of `resamples` draws with replacement, `(1 + resamples,)`."""
    values = finite_rows("MIFID", name, np.reshape(distances, (-1, 1)), 1)[:, 0]
    count = len(values)
    drawn = [float(values[rng.integers(count, size=count)].mean()) for _ in range(resamples)]
    return np.array([values.mean(), *drawn])


def _penalised(frechet: Interval, means: Float64, penalty: Callable[[Float64], Float64]) -> Interval:
    """Fréchet distance times penalty, relative errors of both added as squares (zero where the distance is zero)."""
    if not np.isfinite(frechet).all():
        raise MemControlError(f"MIFID: the Fréchet distance is {frechet}, expected a finite value and interval")
    value, low, high = (max(float(end), 0.0) for end in frechet)
    factors = penalty(means)
    factor = float(factors[0])
    lowest, highest = (float(end) for end in np.quantile(factors[1:], (0.025, 0.975)))
    lowest, highest = min(lowest, factor), max(highest, factor)
    if value == 0.0:
        return 0.0, 0.0, high * highest
    product = value * factor
    up = float(np.hypot(np.log(high / value), np.log(highest / factor)))
    if low == 0.0:
        return product, 0.0, product * float(np.exp(up))
    down = float(np.hypot(np.log(low / value), np.log(lowest / factor)))
    return product, product * float(np.exp(-down)), product * float(np.exp(up))
