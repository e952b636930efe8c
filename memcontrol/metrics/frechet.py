"""Fréchet distance between two feature sets, on the reference's leading components."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memcontrol.errors import TooFewImages
from memcontrol.metrics.intervals import Interval
from memcontrol.metrics.rows import finite_rows

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class LeadingComponents:
    """Principal axes of a reference set, to project it and other sets on.

    Attributes:
        mean: `(D,)`, the reference's mean.
        axes: `(D, k)`, orthonormal columns, largest variance first.
    """

    mean: Float64
    axes: Float64

    @classmethod
    def fit(cls, reference: NDArray[np.floating], components: int = 16) -> LeadingComponents:
        """The leading `components` axes of `reference`, `(M, D)`, in float64.

        Raises:
            TooFewImages: `reference` does not have that many directions.
        """
        available = min(len(reference) - 1, reference.shape[1])
        if components > available:
            raise TooFewImages(
                f"{components} components need {components + 1} reference images and {components} features, "
                f"got {len(reference)} and {reference.shape[1]}: lower scoring.components to {max(available, 0)}"
            )
        rows = np.asarray(reference, dtype=np.float64)
        mean = rows.mean(axis=0)
        _, _, axes = np.linalg.svd(rows - mean, full_matrices=False)
        return cls(mean, axes[:components].T.copy())

    def __call__(self, features: NDArray[np.floating]) -> Float64:
        """`(N, D)` -> `(N, k)` float64."""
        return (np.asarray(features, dtype=np.float64) - self.mean) @ self.axes


def frechet_distance(features: NDArray[np.floating], reference: NDArray[np.floating]) -> float:
    """Fréchet distance between Gaussians fitted to two feature sets.

    Args:
        features: `(N, D)`, one row per generated image.
        reference: `(M, D)`, one row per held-out image; N and M at least D + 1.
    Raises:
        TooFewImages: a covariance would be singular; project on fewer components first, or use `full_frechet_distance`.
        MemControlError: NaN or infinite features.
    Source: Heusel et al. 2017 (arXiv 1706.08500), eq. 6. Biased upward at small N: compare at equal N only.
    """
    mean, covariance, root = _moments(features, reference)
    return float(_distances(*_gaussian(features), mean, covariance, root))


def frechet_interval(
    features: NDArray[np.floating],
    reference: NDArray[np.floating],
    *,
    rng: np.random.Generator,
    resamples: int = 200,
) -> Interval:
    """`frechet_distance` and the ends of its 95 % interval, by resampling the generated images.

    It covers which N images happened to be generated. It leaves out the upward bias at small N (resampling adds to
    it, so the quantiles are shifted until their median is the measured value), the draw of the reference, and the
    seed of the training.

    Args:
        features: `(N, D)`.
        reference: `(M, D)`.
    Raises:
        TooFewImages: as `frechet_distance`.
    """
    mean, covariance, root = _moments(features, reference)
    rows = np.asarray(features, dtype=np.float64)
    value = float(_distances(*_gaussian(rows), mean, covariance, root))
    drawn = [_gaussian(rows[rng.integers(len(rows), size=len(rows))]) for _ in range(resamples)]
    means, covariances = (np.stack(part) for part in zip(*drawn, strict=True))
    low, middle, high = np.quantile(_distances(means, covariances, mean, covariance, root), (0.025, 0.5, 0.975))
    return value, max(value - float(middle - low), 0.0), value + float(high - middle)


def _moments(features: NDArray[np.floating], reference: NDArray[np.floating]) -> tuple[Float64, Float64, Float64]:
    """The reference's mean, covariance and the covariance's square root, after checking both sets."""
    for name, rows in (("generated", features), ("reference", reference)):
        if len(rows) <= rows.shape[1]:
            raise TooFewImages(
                f"Fréchet distance on {rows.shape[1]} features needs {rows.shape[1] + 1} {name} images or more, "
                f"got {len(rows)}: give more images or lower scoring.components"
            )
        finite_rows("Fréchet distance", name, rows, 1)
    mean, covariance = _gaussian(reference)
    values, vectors = np.linalg.eigh(covariance)
    return mean, covariance, (vectors * np.sqrt(np.clip(values, 0.0, None))) @ vectors.T


def _gaussian(rows: NDArray[np.floating]) -> tuple[Float64, Float64]:
    values = np.asarray(rows, dtype=np.float64)
    mean = values.mean(axis=0)
    centred = values - mean
    return mean, centred.T @ centred / (len(values) - 1)


def _distances(means: Float64, covariances: Float64, mean: Float64, covariance: Float64, root: Float64) -> Float64:
    """Distances of one or many Gaussians, `(..., D)` and `(..., D, D)`, from the reference's.

    tr (A B)^(1/2) is the sum of the roots of the eigenvalues of B^(1/2) A B^(1/2), which is symmetric: no complex
    root arises, and eigenvalues that rounding makes negative are set to zero.
    """
    values = np.clip(np.linalg.eigvalsh(root @ covariances @ root), 0.0, None)
    traces = np.trace(covariances, axis1=-2, axis2=-1) + np.trace(covariance)
    distances = ((means - mean) ** 2).sum(axis=-1) + traces - 2.0 * np.sqrt(values).sum(axis=-1)
    return np.asarray(np.clip(distances, 0.0, None))
