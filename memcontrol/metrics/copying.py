"""How much closer generated images lie to the training set than to held-out images, with null bands.

One design serves all measures. Training and held-out images form a pool; each generated image has its nearest of the
pool, in order, and each of these is a member of the training set or not. Every measure is a function of these
memberships, so shuffling them gives each measure's values when nothing is copied.

Nearest distances fall as a set grows, so both sides are compared at m images, m = min(training, held-out): the
nearest of a random m of them, whose distribution follows from the ordered distances without drawing any. With at
least as many held-out as training images, which is the usual case, m is the whole training set.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from memcontrol.metrics.frechet import TooFewImages
from memcontrol.metrics.neighbours import nearest

Float64 = NDArray[np.float64]
Features = NDArray[np.floating]

BETTER: Mapping[str, Literal["lower", "higher"]] = {
    "copy_gap": "lower",
    "copy_tail": "lower",
    "closer_share": "lower",
    "nn_ratio_share": "lower",
    "amd": "higher",
}
"""The measures, and which direction is less copied."""

SHARES = frozenset({"closer_share", "nn_ratio_share"})
NEGLIGIBLE = 1e-9
TIE = 1e-6
"""Cosine distances closer than this are one distance: float32 inner products are no more exact."""
CALIBRATION_LIMIT = 512


@dataclass(frozen=True)
class Copying:
    """One copying measure with its null distribution.

    Attributes:
        value: as measured; for `copy_gap` no lower than the null median, since luck is no virtue.
        low, high: 95 % interval, the null band's width about `value`: it covers which images happened to be the
            training set and which were held out, and not the seed of the training.
        p: share of shuffled memberships that look at least as copied; at least 1 / (permutations + 1).
        null: 2.5, 50 and 97.5 % quantiles over shuffled memberships.
        raw: as measured, never clipped.
    """

    value: float
    low: float
    high: float
    p: float
    null: tuple[float, float, float]
    raw: float


@dataclass(frozen=True)
class Neighbourhood:
    """For each of N queries its K nearest of the pool.

    Attributes:
        distances: `(N, K)`, ascending.
        positions: `(N, K)`, in the pool.
        ends: `(N, K)`, position of the last neighbour at the same distance; None where no distance occurs twice.
    """

    distances: Float64
    positions: NDArray[np.int64]
    ends: NDArray[np.int64] | None

    @classmethod
    def search(cls, queries: Features, pool: Features, depth: int) -> Neighbourhood:
        """The `depth` nearest of `pool` to each query, both `(rows, D)`."""
        distances, positions = nearest(queries, pool, depth)
        exact = distances.astype(np.float64)
        last = np.concatenate([np.diff(exact) >= TIE, np.ones((len(exact), 1), dtype=bool)], axis=1)
        if last.all():
            return cls(exact, positions, None)
        ends = np.where(last, np.arange(depth), depth)
        return cls(exact, positions, np.minimum.accumulate(ends[:, ::-1], axis=1)[:, ::-1])

    def first(self, depth: int) -> Neighbourhood:
        """The same with the `depth` nearest alone."""
        ends = None if self.ends is None else np.minimum(self.ends[:, :depth], depth - 1)
        return Neighbourhood(self.distances[:, :depth], self.positions[:, :depth], ends)


def survival(population: int, size: int) -> Float64:
    """Probability that none of the k first of `population` is among `size` drawn at random, for k = 0 to `population`.

    C(population - k, size) / C(population, size), by the ratio of neighbouring terms, so that nothing overflows.
    """
    k = np.arange(population, dtype=np.float64)
    ratios = np.clip((population - k - size) / (population - k), 0.0, 1.0)
    return np.concatenate([[1.0], np.cumprod(ratios)])


def measure_copying(
    generated: Features,
    training: Features,
    heldout: Features,
    calibration: Features,
    *,
    rng: np.random.Generator,
    permutations: int = 200,
) -> dict[str, Copying]:
    """Every copying measure of a set of generated images.

    - `copy_gap`: mean over generated images of (expected nearest distance to m random held-out images) - (the same to
      m random training images).
    - `copy_tail`: 95th percentile of that difference, which shows rare copies that the mean hides.
    - `closer_share`: mean probability that the held-out side's nearest is the farther one, ties counted half; 0.5 is
      honest.
    - `nn_ratio_share`: share of generated images whose two nearest training images have d1 / d2 below the 5 % quantile
      of the same ratio among honest images (`calibration`); 0.05 is honest.
    - `amd`: mean distance to the nearest training image. Higher is less copied.

    Args:
        generated: `(N, D)`.
        training: `(n, D)`, n at least 2.
        heldout: `(M, D)`, never tuned on; 8 n or more make the null band narrow.
        calibration: `(C, D)`, honest images in neither set, the first 512 of which are used.
        rng: draws the permutations.
        permutations: how often memberships are shuffled.
    Raises:
        TooFewImages: fewer than two training images, or none elsewhere.
    Source: d1 / d2: Yoon et al. 2023, with their 1/3 replaced by a calibrated bound; amd: Dutt et al. 2024
        (MemControl, arXiv 2405.19458).
    """
    _check_counts(generated, training, heldout, calibration)
    pool = np.concatenate([training, heldout])
    members = np.arange(len(pool)) < len(training)
    sides = _Sides.of(len(training), len(heldout))
    full, honest = _search(generated, pool, members, sides), calibration[:CALIBRATION_LIMIT]
    calibrated = _search(honest, pool, members, sides)
    measured = _statistics(full, calibrated, members, sides)
    near, near_honest = full.first(sides.depth), calibrated.first(sides.depth)
    shuffled = [_statistics(near, near_honest, rng.permutation(members), sides) for _ in range(permutations)]
    return {name: _against_null(name, measured[name], [drawn[name] for drawn in shuffled]) for name in BETTER}


@dataclass(frozen=True)
class _Sides:
    """Chances that a random subset of each side avoids its k nearest, and how deep neighbours are needed.

    Averaged over shuffled memberships, a side's random subset is a random subset of the pool; at `depth` it has a
    member among the nearest but for `NEGLIGIBLE` probability.
    """

    training: Float64
    heldout: Float64
    depth: int

    @classmethod
    def of(cls, training: int, heldout: int) -> _Sides:
        size = min(training, heldout)
        unseen = survival(training + heldout, size)
        depth = int(np.argmax(unseen < NEGLIGIBLE))
        return cls(survival(training, size), survival(heldout, size), max(depth, 2))


def _search(queries: Features, pool: Features, members: NDArray[np.bool_], sides: _Sides) -> Neighbourhood:
    """Neighbours deep enough that the true membership is measured exactly, even where queries keep to one side."""
    depth = sides.depth
    while True:
        found = Neighbourhood.search(queries, pool, depth)
        inside = members[found.positions].sum(axis=1)
        unseen = np.maximum(sides.training[inside], sides.heldout[depth - inside])
        if depth == len(pool) or (unseen.max() < NEGLIGIBLE and inside.min() >= 2):
            return found
        depth = min(2 * depth, len(pool))


def _statistics(
    near: Neighbourhood, calibration: Neighbourhood, members: NDArray[np.bool_], sides: _Sides
) -> dict[str, float]:
    """Every measure under one membership of the pool, `(n + M,)` bool."""
    inside = members[near.positions]
    first, ratios = _first_and_ratio(near.distances, inside.copy())
    _, honest = _first_and_ratio(calibration.distances, members[calibration.positions])
    difference, closer = _compare_sides(near, inside, sides)
    return {
        "copy_gap": float(difference.mean()),
        "copy_tail": float(np.quantile(difference, 0.95)),
        "closer_share": float(closer.mean()),
        "nn_ratio_share": float((ratios < np.quantile(honest, 0.05)).mean()),
        "amd": float(first.mean()),
    }


def _compare_sides(near: Neighbourhood, inside: NDArray[np.bool_], sides: _Sides) -> tuple[Float64, Float64]:
    """Per query: expected nearest held-out less expected nearest training distance; chance that it is larger."""
    seen_training = np.cumsum(inside, axis=1, dtype=np.int64)
    if near.ends is not None:  # all at one distance are met at once
        seen_training = np.take_along_axis(seen_training, near.ends, axis=1)
        seen_heldout = near.ends + 1 - seen_training
    else:
        seen_heldout = np.arange(1, inside.shape[1] + 1) - seen_training
    # Chance that neither of a side's subset is met up to each neighbour; a mean is the integral of such a chance.
    training, heldout = sides.training[seen_training], sides.heldout[seen_heldout]
    steps = np.diff(near.distances)
    difference = np.einsum("nk,nk->n", heldout[:, :-1], steps) - np.einsum("nk,nk->n", training[:, :-1], steps)
    # The training side's nearest falls in each step with the drop of its chance; ties within a step count half.
    drops = training[:, :-1] - training[:, 1:]
    closer = 0.5 * np.einsum("nk,nk->n", drops, heldout[:, :-1] + heldout[:, 1:])
    closer += 0.5 * ((1.0 - training[:, 0]) * (1.0 + heldout[:, 0]) + training[:, -1] * heldout[:, -1])
    return difference, closer


def _first_and_ratio(distances: Float64, inside: NDArray[np.bool_]) -> tuple[Float64, Float64]:
    """Nearest training distance, and its ratio to the second nearest, of each query; changes `inside`.

    The ratio is 1 where both are zero, or where two are not in sight: no evidence of a copy.
    """
    rows = np.arange(len(distances))
    one = inside.argmax(axis=1)
    found = inside[rows, one]
    nearest_one = np.where(found, distances[rows, one], distances[:, -1])
    inside[rows, one] = False
    two = inside.argmax(axis=1)
    second = np.where(inside[rows, two], distances[rows, two], 0.0)
    ratios = np.divide(nearest_one, second, out=np.ones_like(second), where=second > 0)
    return nearest_one, ratios


def _against_null(name: str, raw: float, shuffled: list[float]) -> Copying:
    null = np.array(shuffled)
    low, middle, high = (float(quantile) for quantile in np.quantile(null, (0.025, 0.5, 0.975)))
    as_copied = (null >= raw) if BETTER[name] == "lower" else (null <= raw)
    value = max(raw, middle) if name == "copy_gap" else raw
    bottom, top = value - (high - middle), value + (middle - low)
    if name in SHARES:
        bottom, top = max(bottom, 0.0), min(top, 1.0)
    p = (1 + int(as_copied.sum())) / (1 + len(null))
    return Copying(value=value, low=bottom, high=top, p=p, null=(low, middle, high), raw=raw)


def _check_counts(generated: Features, training: Features, heldout: Features, calibration: Features) -> None:
    counts = {
        "generated": len(generated),
        "training": len(training),
        "held-out": len(heldout),
        "calibration": len(calibration),
    }
    for name, count in counts.items():
        least = 2 if name == "training" else 1
        if count < least:
            raise TooFewImages(f"copying needs {least} {name} images or more, got {count}: give more images")
