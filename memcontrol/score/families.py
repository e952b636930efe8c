"""Families of measures of generated images: encoded images in, every score of the family out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from memcontrol.measures import COPYING, MEASURES, VARIANTS, Family
from memcontrol.metrics.copying import copying_against
from memcontrol.metrics.frechet import LeadingComponents, frechet_interval
from memcontrol.metrics.full_frechet import ReferenceGaussian, extrapolated_frechet, full_frechet_interval
from memcontrol.metrics.informed import calibrated_informed_distance, informed_distance, training_distances
from memcontrol.metrics.intervals import Interval, mean_interval
from memcontrol.metrics.kernel import kernel_interval
from memcontrol.metrics.manifold import manifold_scores
from memcontrol.score.features import GeneratedFeatures, RealFeatures
from memcontrol.score.value import Score


class Reference:
    """The held-out images for fidelity under one encoder, with what is fitted to them once.

    Args:
        real: where their features are.
        components: leading components that `fd` is measured on.
    """

    def __init__(self, real: RealFeatures, encoder: str, components: int) -> None:
        self._real, self._encoder, self._components = real, encoder, components

    @property
    def features(self) -> NDArray[np.float32]:
        """`(M, D)`."""
        return self._real.of("fidelity", self._encoder)

    @cached_property
    def leading(self) -> LeadingComponents:
        """Its leading components, from the cache where they have been fitted before."""

        def fitted(features: NDArray[np.float32]) -> NDArray[np.float64]:
            leading = LeadingComponents.fit(features, self._components)
            return np.vstack([leading.mean, leading.axes.T])

        rows = self._real.statistic(f"leading {self._components}", "fidelity", self._encoder, fitted)
        return LeadingComponents(np.array(rows[0]), np.array(rows[1:].T))

    @cached_property
    def projected(self) -> NDArray[np.float64]:
        """`(M, components)`."""
        return self.leading(self.features)

    @cached_property
    def gaussian(self) -> ReferenceGaussian:
        """The Gaussian at full dimension, likewise."""

        def fitted(features: NDArray[np.float32]) -> NDArray[np.float64]:
            gaussian = ReferenceGaussian.fit(features)
            return np.vstack([gaussian.mean, gaussian.factor])

        rows = self._real.statistic("gaussian", "fidelity", self._encoder, fitted)
        factor = np.array(rows[1:])
        return ReferenceGaussian(np.array(rows[0]), factor, float((factor**2).sum()))


@dataclass(frozen=True)
class Question:
    """What a family is asked: these generated images against real ones, under one encoder.

    Attributes:
        ending: of `memcontrol.measures.VARIANTS`.
        measures: those wanted of a copying family, without their ending.
        permutations: shuffled memberships behind a copying measure's null band.
        seed: of every resampling, so that one score does not depend on which others were asked for.
    """

    generated: GeneratedFeatures
    real: RealFeatures
    reference: Reference
    encoder: str
    ending: str
    measures: frozenset[str]
    permutations: int
    seed: int

    @property
    def features(self) -> NDArray[np.float32]:
        """`(N, D)` of the generated images."""
        return self.generated.of(self.encoder)

    def rng(self) -> np.random.Generator:
        """Anew for every measure."""
        return np.random.default_rng(self.seed)

    def scores(self, **intervals: Interval) -> dict[str, Score]:
        """Value, low and high of each measure as scores of these images."""
        count = len(self.generated)
        return {name: Score(*interval, count, MEASURES[name].better) for name, interval in intervals.items()}


def _frechet(asked: Question) -> dict[str, Score]:
    projected = asked.reference.leading(asked.features)
    return asked.scores(fd=frechet_interval(projected, asked.reference.projected, rng=asked.rng()))


def _extrapolated(asked: Question) -> dict[str, Score]:
    projected = asked.reference.leading(asked.features)
    return asked.scores(fd_infinity=extrapolated_frechet(projected, asked.reference.projected, rng=asked.rng()))


def _full(asked: Question) -> dict[str, Score]:
    interval = full_frechet_interval(asked.features, asked.reference.gaussian)
    return asked.scores(fd_full=interval, fid=interval)


def _full_extrapolated(asked: Question) -> dict[str, Score]:
    return asked.scores(fid_infinity=extrapolated_frechet(asked.features, asked.reference.gaussian, rng=asked.rng()))


def _kernel(asked: Question) -> dict[str, Score]:
    return asked.scores(kid=kernel_interval(asked.features, asked.reference.features, rng=asked.rng()))


def _manifold(asked: Question) -> dict[str, Score]:
    return asked.scores(**manifold_scores(asked.features, asked.reference.features, rng=asked.rng()))


def _informed(asked: Question) -> dict[str, Score]:
    training = asked.real.of("training", asked.encoder)
    distances = training_distances(asked.features, training)
    honest = training_distances(asked.reference.features, training)
    frechet = full_frechet_interval(asked.features, asked.reference.gaussian)
    return asked.scores(
        mifid=informed_distance(frechet, distances, rng=asked.rng()),
        mifid_calibrated=calibrated_informed_distance(frechet, distances, honest, rng=asked.rng()),
    )


def _alignment(asked: Question) -> dict[str, Score]:
    interval = mean_interval(asked.generated.similarities(asked.encoder))
    return asked.scores(clip_score=interval, biovil_t=interval)


def _copying(asked: Question) -> dict[str, Score]:
    found = copying_against(
        asked.real.copying(asked.encoder, asked.ending),
        asked.features,
        rng=asked.rng(),
        permutations=asked.permutations,
        mirrored=asked.generated.of(asked.encoder, flipped=True) if VARIANTS[asked.ending].mirrored else None,
        names=asked.measures,
    )
    count = len(asked.generated)
    return {name: Score(n=count, better=COPYING[name].better, **asdict(copying)) for name, copying in found.items()}


FAMILIES: Mapping[Family, Callable[[Question], dict[str, Score]]] = {
    "frechet": _frechet,
    "extrapolated": _extrapolated,
    "full": _full,
    "full-extrapolated": _full_extrapolated,
    "kernel": _kernel,
    "manifold": _manifold,
    "informed": _informed,
    "alignment": _alignment,
    "copying": _copying,
}
"""What computes each family that needs generated images alone."""
