"""Precision, recall, density and coverage: which images lie in the neighbourhoods of the other set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memcontrol.errors import MemControlError
from memcontrol.metrics.intervals import NORMAL_95, Interval
from memcontrol.metrics.neighbours import nearest
from memcontrol.metrics.rows import finite_rows

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Labels = NDArray[np.integer]
Features = NDArray[np.floating]

TIE = 1e-6
"""Squared distances within this are equal, in mean squared lengths of the centred reference: float32's rounding."""
DISTANCES_AT_ONCE = 2**23
"""Distances held in memory at a time, 32 MB of them."""


def manifold_scores(
    generated: Features, reference: Features, *, rng: np.random.Generator, k: int = 5, groups: int = 32
) -> dict[str, Interval]:
    """Precision, recall, density and coverage, each with the ends of its 95 % interval. Higher is better.

    An image's ball reaches to the k-th nearest other image of its own set, by Euclidean distance, edge included.

    - `precision`: share of generated images in any reference ball.
    - `recall`: share of reference images in any generated ball.
    - `density`: mean number of reference balls that a generated image lies in, over k; may exceed 1.
    - `coverage`: share of reference balls that hold a generated image.

    Recall and coverage move with the number of generated images: compare at equal N and one reference. Memory beside
    the arguments grows with N + M, not with their product.
    Copies of reference images score well here: give held-out images, never the training set.

    The intervals come from leaving out one of `groups` random groups of generated images at a time (jackknife). They
    cover which images happened to be generated, and neither the draw of the reference nor the training's seed. A share
    of 0 or 1 gets 3 / N at its open side.

    Args:
        generated: `(N, D)`, N at least k + 2; all equal rows are allowed, balls without width.
        reference: `(M, D)`, M at least k + 1.
        rng: draws the groups.
        k: neighbours that a ball reaches to, at least 1.
        groups: of generated images, at least 2; no more are made than leave k + 1 images each time.
    Raises:
        TooFewImages: fewer rows than k asks for.
        MemControlError: NaN or infinite features, widths that differ, a reference of equal rows, `k` or `groups` too
            small.
        MissingPackageError: faiss cannot be imported.
    Source: Kynkäänniemi et al. 2019 (arXiv 1904.06991), section 2; Naeem et al. 2020 (arXiv 2002.09797), section 3.
    """
    if k < 1 or groups < 2:
        raise MemControlError(f"manifold: k is {k} and groups {groups}, expected at least 1 and 2")
    ours, theirs = _centred(generated, reference, k)
    balls = _Balls.of(ours, _labels(len(ours), k, groups, rng), k)
    counts = _counts(ours, theirs, balls, _squared_radii(theirs, k))
    return {name: _interval(name, values, len(ours)) for name, values in counts.values(balls.labels, k).items()}


@dataclass(frozen=True)
class _Balls:
    """Balls of N generated images, with every image there and without each of G groups.

    Attributes:
        labels: `(N,)`, the group of each image, 0 to G - 1.
        radii: `(N,)`, squared.
        without: `(G, N)`, squared; without group g in row g. Of members of g the number means nothing.
    """

    labels: Labels
    radii: Float32
    without: Float32

    @classmethod
    def of(cls, rows: Float32, labels: Labels, k: int) -> _Balls:
        """Every radius from one search, deepened until each image keeps k others whichever group is left out."""
        depth, groups = 3 * (k + 1), int(labels.max()) + 1
        while True:
            depth = min(depth, len(rows))
            distances, positions = nearest(rows, rows, depth, distance="euclidean")
            near, without, short = labels[positions], np.empty((groups, len(rows)), dtype=np.float32), False
            for group in range(groups):
                met = np.cumsum(near != group, axis=1) >= k + 1  # an image counts itself
                short = short or not met[labels != group, -1].all()
                without[group] = distances[np.arange(len(rows)), met.argmax(axis=1)]
            if not short:
                return cls(labels, distances[:, k] + np.float32(TIE), without + np.float32(TIE))
            depth *= 2


@dataclass(frozen=True)
class _Counts:
    """How many balls images lie in.

    Attributes:
        holding: `(N,)`, reference balls that hold each generated image.
        held: `(G, M)`, generated images of each group in each reference ball.
        around: `(G, M)`, generated balls of each group that hold each reference image.
        grown: `(G, M)`, whether a ball that grows when group g is left out holds each reference image.
    """

    holding: NDArray[np.int64]
    held: Float32
    around: Float32
    grown: NDArray[np.bool_]

    def values(self, labels: Labels, k: int) -> dict[str, Float64]:
        """Each measure with every image, then without each group, `(1 + G,)`."""
        sizes = np.bincount(labels).astype(np.float64)
        inside = np.bincount(labels, weights=self.holding > 0)
        density = np.bincount(labels, weights=self.holding) / k
        found = _leaving_out(self.around) > 0
        found[1:] |= self.grown
        return {
            "precision": _leaving_out(inside) / _leaving_out(sizes),
            "recall": found.mean(axis=1),
            "density": _leaving_out(density) / _leaving_out(sizes),
            "coverage": (_leaving_out(self.held) > 0).mean(axis=1),
        }


def _counts(ours: Float32, theirs: Float32, balls: _Balls, radii: Float32) -> _Counts:
    groups, count = balls.without.shape
    holding, shape = np.empty(count, dtype=np.int64), (groups, len(theirs))
    held, around, grown = np.zeros(shape, np.float32), np.zeros(shape, np.float32), np.zeros(shape, dtype=bool)
    for part, distances in _squared_distances(ours, theirs):
        labels = balls.labels[part]
        members = (labels == np.arange(groups)[:, None]).astype(np.float32)
        inside = distances <= radii
        holding[part] = inside.sum(axis=1)
        held += members @ inside.astype(np.float32)
        around += members @ (distances <= balls.radii[part, None]).astype(np.float32)
        for group, wider in enumerate(balls.without[:, part]):
            grows = (wider > balls.radii[part]) & (labels != group)
            grown[group] |= (distances[grows] <= wider[grows, None]).any(axis=0)
    return _Counts(holding, held, around, grown)


def _squared_distances(ours: Float32, theirs: Float32) -> Iterator[tuple[slice, Float32]]:
    """Blocks of rows of `ours` with their squared distances to all of `theirs`, `(rows, M)`."""
    step = max(1, DISTANCES_AT_ONCE // len(theirs))
    lengths = np.einsum("md,md->m", theirs, theirs)
    for start in range(0, len(ours), step):
        rows = ours[start : start + step]
        distances = rows @ theirs.T
        distances *= -2.0
        distances += lengths
        distances += np.einsum("nd,nd->n", rows, rows)[:, None]
        yield slice(start, start + step), distances


def _squared_radii(rows: Float32, k: int) -> Float32:
    distances, _ = nearest(rows, rows, k + 1, distance="euclidean")
    return np.asarray(distances[:, k] + np.float32(TIE))


def _leaving_out(sums: NDArray[Any]) -> NDArray[Any]:
    """Sums over groups `(G, ...)` -> the sum over all, then over all but each, `(1 + G, ...)`."""
    total = sums.sum(axis=0, keepdims=True)
    return np.concatenate([total, total - sums])


def _interval(name: str, values: Float64, count: int) -> Interval:
    value, without = float(values[0]), values[1:]
    half = NORMAL_95 * float(np.sqrt((len(without) - 1) * without.var()))
    if name == "density":
        return value, max(value - half, 0.0), value + half
    if value in (0.0, 1.0):
        half = max(half, 3.0 / count)
    return value, max(value - half, 0.0), min(value + half, 1.0)


def _labels(count: int, k: int, groups: int, rng: np.random.Generator) -> Labels:
    """The group of each image, at random; groups differ by one image at most, and k + 1 images are never left out."""
    fewest = -(-count // (count - k - 1))
    return np.asarray(rng.permutation(count) % min(max(groups, fewest), count))


def _centred(generated: Features, reference: Features, k: int) -> tuple[Float32, Float32]:
    """Both sets less the reference's mean, in units of its mean length, which changes no comparison."""
    ours = finite_rows("manifold", "generated", generated, k + 2)
    theirs = finite_rows("manifold", "reference", reference, k + 1)
    if ours.shape[1] != theirs.shape[1]:
        raise MemControlError(
            f"manifold: generated images have {ours.shape[1]} features, the reference {theirs.shape[1]}: "
            "encode both with one encoder"
        )
    if (theirs == theirs[0]).all():
        raise MemControlError(
            f"manifold: all {len(theirs)} reference images have the same features, expected images that differ: check "
            "the held-out images and the encoder"
        )
    mean = theirs.mean(axis=0)
    length = np.sqrt(((theirs - mean) ** 2).sum(axis=1).mean())
    return ((ours - mean) / length).astype(np.float32), ((theirs - mean) / length).astype(np.float32)
