"""Kernel distance between two feature sets: unbiased at any number of images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from memcontrol.errors import TooFewImages
from memcontrol.metrics.intervals import Interval
from memcontrol.metrics.rows import finite_rows

Float64 = NDArray[np.float64]


def kernel_distance(features: NDArray[np.floating], reference: NDArray[np.floating]) -> float:
    """Unbiased squared maximum mean discrepancy under the kernel (x.y / D + 1)^3; may be slightly negative.

    Args:
        features: `(N, D)`, one row per generated image.
        reference: `(M, D)`, one row per held-out image.
    Raises:
        TooFewImages: fewer than two rows in either set.
        MemControlError: NaN or infinite features.
    Source: Binkowski et al. 2018 (arXiv 1801.01401), section 3 and eq. 4 (KID when the encoder is Inception).
    """
    within, across, constant = _parts(features, reference)
    return float(_estimates(np.ones((1, len(within))), within, across, constant)[0])


def kernel_interval(
    features: NDArray[np.floating],
    reference: NDArray[np.floating],
    *,
    rng: np.random.Generator,
    subsets: int = 200,
) -> Interval:
    """`kernel_distance` and the ends of its 95 % interval, from random halves of the generated images.

    A half drawn without replacement strays from the whole as the whole strays from its distribution (both have variance
    s^2 / N), and repeats no image, so the estimate stays unbiased. It covers which images happened to be generated,
    and neither the draw of the reference nor the seed of the training.

    Args:
        features: `(N, D)`, N at least 4.
        reference: `(M, D)`.
    Raises:
        TooFewImages: fewer than four generated images or two reference images.
        MemControlError: NaN or infinite features.
    """
    if len(features) < 4:
        raise TooFewImages(f"an interval of kid needs 4 generated images or more, got {len(features)}: sample more")
    within, across, constant = _parts(features, reference)
    chosen = np.zeros((subsets, len(within)))
    for row in chosen:
        row[rng.permutation(len(within))[: len(within) // 2]] = 1.0
    value = float(_estimates(np.ones((1, len(within))), within, across, constant)[0])
    halves = _estimates(chosen, within, across, constant)
    low, middle, high = np.quantile(halves, (0.025, 0.5, 0.975))
    return value, value - float(middle - low), value + float(high - middle)


def _parts(features: NDArray[np.floating], reference: NDArray[np.floating]) -> tuple[Float64, Float64, float]:
    """Kernel among generated images without its diagonal `(N, N)`, mean kernel to the reference `(N,)`, and in it."""
    generated, real = finite_rows("kid", "generated", features, 2), finite_rows("kid", "reference", reference, 2)
    within = _kernel(generated, generated)
    np.fill_diagonal(within, 0.0)
    among_real = _kernel(real, real)
    constant = (among_real.sum() - np.trace(among_real)) / (len(real) * (len(real) - 1))
    return within, _kernel(generated, real).mean(axis=1), float(constant)


def _kernel(a: Float64, b: Float64) -> Float64:
    return np.asarray((a @ b.T / a.shape[1] + 1.0) ** 3)


def _estimates(chosen: Float64, within: Float64, across: Float64, constant: float) -> Float64:
    """One estimate for each row of `chosen`, `(S, N)` of 0 and 1."""
    count = chosen.sum(axis=1)
    pairs = np.einsum("sn,sn->s", chosen @ within, chosen) / (count * (count - 1))
    return np.asarray(pairs + constant - 2.0 * (chosen @ across) / count)
