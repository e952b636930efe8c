"""The nearest of a pool of training and held-out images, and what they say under any membership of the pool."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from memcontrol.metrics.neighbours import Distance, nearest_either

Float64 = NDArray[np.float64]
Features = NDArray[np.floating]
Members = NDArray[np.bool_]

NEGLIGIBLE = 1e-9
TIE = 1e-6
"""Cosine distances closer than this are one distance: float32 inner products are no more exact."""
GLANCE = 64
"""Among so many neighbours most queries have two members, so that the others alone are looked at further."""


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
    def search(
        cls,
        queries: Features,
        pool: Features,
        depth: int,
        mirrored: Features | None = None,
        *,
        distance: Distance = "cosine",
        name: str = "query",
    ) -> Neighbourhood:
        """The `depth` nearest of `pool` to each query, both `(rows, D)`.

        Args:
            queries: `(N, D)`.
            pool: `(P, D)`.
            depth: from 1 to P.
            mirrored: `(N, D)`, features of the mirrored queries: each distance is then the smaller of the two.
            distance: cosine, or *squared* Euclidean.
            name: what errors call the queries.
        """
        found, positions = nearest_either(queries, mirrored, pool, depth, distance=distance, names=(name, "pool"))
        exact = found.astype(np.float64)
        last = np.concatenate([np.diff(exact) >= TIE, np.ones((len(exact), 1), dtype=bool)], axis=1)
        if last.all():
            return cls(exact, positions, None)
        ends = np.where(last, np.arange(depth), depth)
        return cls(exact, positions, np.minimum.accumulate(ends[:, ::-1], axis=1)[:, ::-1])

    def first(self, depth: int) -> Neighbourhood:
        """The same with the `depth` nearest alone, in memory of its own: it is gone through many times."""
        ends = None if self.ends is None else np.minimum(self.ends[:, :depth], depth - 1)
        distances = np.ascontiguousarray(self.distances[:, :depth])
        return Neighbourhood(distances, np.ascontiguousarray(self.positions[:, :depth]), ends)

    @cached_property
    def glance(self) -> NDArray[np.int64]:
        """`(N, GLANCE)` positions of the first neighbours, or of all where there are fewer."""
        return np.ascontiguousarray(self.positions[:, :GLANCE])

    @cached_property
    def tied(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Flat places of neighbours with others at the same distance behind them, and of the last of those."""
        width = self.positions.shape[1]
        if self.ends is None:
            return np.array([], dtype=np.intp), np.array([], dtype=np.intp)
        rows, columns = np.nonzero(self.ends != np.arange(width))
        return rows * width + columns, rows * width + self.ends[rows, columns]

    @cached_property
    def steps(self) -> Float64:
        """`(N, K - 1)`, from each distance to the next."""
        return np.diff(self.distances)

    @cached_property
    def by_position(self) -> Float64:
        """`(P, N)`, the distances in the pool's order, where K is the whole pool."""
        ordered = np.empty_like(self.distances)
        np.put_along_axis(ordered, self.positions, self.distances, axis=1)
        return np.ascontiguousarray(ordered.T)


@dataclass(frozen=True)
class Matches:
    """What each query's two nearest members are.

    Attributes:
        distances: `(N,)`, to the nearest member; to the last neighbour where no member is in sight.
        positions: `(N,)`, of it in the pool.
        ratios: `(N,)`, of that distance to the second nearest's; 1 where both are zero, or where two are not in sight:
            no evidence of a copy.
    """

    distances: Float64
    positions: NDArray[np.int64]
    ratios: Float64

    @classmethod
    def of(cls, near: Neighbourhood, members: Members) -> Matches:
        """The matches under one membership of the pool, `(P,)`."""
        rows, width = np.arange(len(near.positions)), near.positions.shape[1]
        one, two = _first_two(near.glance, members)
        unsure = np.flatnonzero(two == near.glance.shape[1])
        if unsure.size and near.glance.shape[1] < width:
            one[unsure], two[unsure] = _first_two(near.positions[unsure], members)
        first, second = np.minimum(one, width - 1), np.minimum(two, width - 1)
        distances = near.distances[rows, first]
        others = np.where(two < width, near.distances[rows, second], 0.0)
        ratios = np.divide(distances, others, out=np.ones_like(others), where=others > 0)
        return cls(distances, near.positions[rows, first], ratios)


def _first_two(positions: NDArray[np.int64], members: Members) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Columns of the first and of the second member in each row of `(N, K)` positions; K where there is none."""
    inside = np.take(members, positions)
    rows, found = np.arange(len(inside)), list[NDArray[np.intp]]()
    for _ in range(2):
        column = inside.argmax(axis=1)
        found.append(np.where(inside[rows, column], column, inside.shape[1]))
        inside[rows, column] = False
    return found[0], found[1]


def survival(population: int, size: int) -> Float64:
    """Probability that none of the k first of `population` is among `size` drawn at random, for k = 0 to `population`.

    C(population - k, size) / C(population, size), by the ratio of neighbouring terms, so that nothing overflows.
    """
    k = np.arange(population, dtype=np.float64)
    ratios = np.clip((population - k - size) / (population - k), 0.0, 1.0)
    return np.concatenate([[1.0], np.cumprod(ratios)])


def seen_depth(population: int, size: int) -> int:
    """How many of the nearest of `population` hold one of `size` drawn at random, but for `NEGLIGIBLE` probability."""
    return int(np.argmax(survival(population, size) < NEGLIGIBLE))


def gaps_to_heldout(queries: Features, training: Features, heldout: Features) -> Float64:
    """`(N,)`: expected distance to the nearest of m random held-out images less that to m random training images.

    m is the size of the smaller set; the mean is `copy_gap` before it is clipped.

    Args:
        queries, training, heldout: `(rows, D)` each.
    """
    pool = np.concatenate([training, heldout])
    members = np.arange(len(pool)) < len(training)
    sides = Sides.of(len(training), len(heldout))
    return sides.compare(sides.search(queries, pool, members), members).differences


@dataclass(frozen=True)
class Compared:
    """Chances, per query, that neither of a side's subset is among the first neighbours.

    A mean distance is the integral of such a chance over the distance.

    Attributes:
        training, heldout: `(N, K)`, up to and with each of the K neighbours.
        steps: `(N, K - 1)`, from each neighbour's distance to the next.
    """

    training: Float64
    heldout: Float64
    steps: Float64

    @property
    def differences(self) -> Float64:
        """`(N,)`, expected nearest held-out distance less expected nearest training distance."""
        heldout, training = self.heldout[:, :-1], self.training[:, :-1]
        return np.asarray(np.einsum("nk,nk->n", heldout, self.steps) - np.einsum("nk,nk->n", training, self.steps))

    @property
    def closer(self) -> Float64:
        """`(N,)`, chance that the held-out side's nearest is the farther one."""
        training, heldout = self.training, self.heldout
        # The training side's nearest falls in each step with the drop of its chance; ties within a step count half.
        drops = training[:, :-1] - training[:, 1:]
        closer = 0.5 * np.einsum("nk,nk->n", drops, heldout[:, :-1] + heldout[:, 1:])
        closer += 0.5 * ((1.0 - training[:, 0]) * (1.0 + heldout[:, 0]) + training[:, -1] * heldout[:, -1])
        return np.asarray(closer)


@dataclass(frozen=True)
class Sides:
    """Chances that a random subset of each side avoids its k nearest, and how deep neighbours are needed.

    Averaged over shuffled memberships, a side's random subset is a random subset of the pool; at `depth` it has a
    member among the nearest but for `NEGLIGIBLE` probability.
    """

    training: Float64
    heldout: Float64
    depth: int

    @classmethod
    def of(cls, training: int, heldout: int) -> Sides:
        """The sides of a pool of `training` and `heldout` images."""
        size = min(training, heldout)
        depth = seen_depth(training + heldout, size)
        return cls(survival(training, size), survival(heldout, size), max(depth, 2))

    def search(
        self,
        queries: Features,
        pool: Features,
        members: Members,
        mirrored: Features | None = None,
        *,
        name: str = "query",
    ) -> Neighbourhood:
        """Neighbours deep enough that the true membership is measured exactly, even where queries keep to one side."""
        depth = self.depth
        while True:
            found = Neighbourhood.search(queries, pool, depth, mirrored, name=name)
            inside = members[found.positions].sum(axis=1)
            unseen = np.maximum(self.training[inside], self.heldout[depth - inside])
            if depth == len(pool) or (unseen.max() < NEGLIGIBLE and inside.min() >= 2):
                return found
            depth = min(2 * depth, len(pool))

    def compare(self, near: Neighbourhood, members: Members) -> Compared:
        """How near each query's training and held-out side are, under one membership of the pool, `(P,)`."""
        seen_training = np.take(members.astype(np.int64), near.positions)
        np.cumsum(seen_training, axis=1, out=seen_training)
        seen_heldout = np.arange(1, seen_training.shape[1] + 1) - seen_training
        tied, last = near.tied
        for seen in (seen_training, seen_heldout):  # all at one distance are met at once
            seen.ravel()[tied] = seen.ravel()[last]
        training, heldout = np.take(self.training, seen_training), np.take(self.heldout, seen_heldout)
        return Compared(training, heldout, near.steps)
