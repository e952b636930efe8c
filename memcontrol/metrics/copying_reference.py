"""Training, held-out and honest images, and the bars that honest ones set for generated ones under each membership."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from memcontrol.errors import TooFewImages
from memcontrol.metrics.copies import RATIO_NEIGHBOURS, copy_threshold, member_depth, member_ratios
from memcontrol.metrics.neighbourhood import Features, Float64, Matches, Members, Neighbourhood, Sides
from memcontrol.metrics.rows import check_finite

CALIBRATION_LIMIT = 512


@dataclass(frozen=True)
class Images:
    """Features of images that look for their nearest.

    Attributes:
        plain: `(N, D)`.
        mirrored: `(N, D)`, of the same images flipped left to right, or None.
        name: what errors call them.
    """

    plain: Features
    mirrored: Features | None
    name: str


@dataclass(frozen=True)
class Lengths:
    """Euclidean neighbours of some images, deep enough for the k nearest members.

    Attributes:
        near: neighbours in the pool.
        k: how many members a mean is taken of.
        depth: how deep neighbours are needed under shuffled memberships.
    """

    near: Neighbourhood
    k: int
    depth: int

    @classmethod
    def gather(cls, images: Images, pool: Features, members: Members) -> Lengths:
        """Neighbours deep enough that the true membership is measured exactly."""
        k = min(RATIO_NEIGHBOURS, int(members.sum()))
        depth = needed = member_depth(len(pool), int(members.sum()), k)
        while True:
            near = Neighbourhood.search(
                images.plain, pool, depth, images.mirrored, distance="euclidean", name=images.name
            )
            if depth == len(pool) or members[near.positions].sum(axis=1).min() >= k:
                return cls(near, k, needed)
            depth = min(2 * depth, len(pool))

    def shallow(self) -> Lengths:
        """What shuffled memberships need."""
        return replace(self, near=self.near.first(self.depth))

    def ratios(self, members: Members) -> Float64:
        """`(N,)`, as `copies.distance_ratios` under a membership."""
        return member_ratios(self.near, members, self.k)


class Bars:
    """What honest images set under one membership of the pool, each when first asked for.

    Args:
        shuffled: whether it is not the true membership, so that fewer neighbours do.
    """

    def __init__(self, reference: CopyingReference, members: Members, *, shuffled: bool) -> None:
        self._reference, self._members, self._shuffled = reference, members, shuffled

    @cached_property
    def matches(self) -> Matches:
        """Their own nearest members."""
        reference = self._reference
        return Matches.of(reference.near_shallow if self._shuffled else reference.near, self._members)

    @cached_property
    def distance(self) -> float:
        """The nearest member of a copy lies nearer than this."""
        return copy_threshold(self.matches.distances)

    @cached_property
    def ratio(self) -> float:
        """Two nearest members are closer than this in ratio for 5 % of honest images."""
        return float(np.quantile(self.matches.ratios, 0.05))

    @cached_property
    def length_ratio(self) -> float:
        """The ratio of lengths below which 1 % of honest images lie."""
        reference = self._reference
        lengths = reference.lengths_shallow if self._shuffled else reference.lengths
        return copy_threshold(lengths.ratios(self._members))


class CopyingReference:
    """Real images under one encoder, with what is worked out of them once for all sets of generated images.

    Args:
        training: `(n, D)`, n at least 2.
        heldout: `(M, D)`, never tuned on.
        calibration: `(C, D)`, honest images in neither set, the first 512 of which are used.
        calibration_mirrored: `(C, D)`, features of `calibration` flipped left to right.

    Attributes:
        pool: `(n + M, D)`, training and held-out images.
        members: `(n + M,)` bool, which of them are training images.
        honest: the calibration images that are used.
        sides: chances under random subsets of each side.

    Raises:
        TooFewImages: fewer than two training images, or none elsewhere.
        MemControlError: features that are not finite.
    """

    def __init__(
        self,
        training: Features,
        heldout: Features,
        calibration: Features,
        calibration_mirrored: Features | None = None,
    ) -> None:
        for name, rows, least in (("training", training, 2), ("held-out", heldout, 1), ("calibration", calibration, 1)):
            check_enough(rows, name, least)
        honest = calibration[:CALIBRATION_LIMIT]
        mirrored = None if calibration_mirrored is None else calibration_mirrored[:CALIBRATION_LIMIT]
        self.honest = Images(honest, mirrored, "calibration")
        self.pool = np.concatenate([training, heldout])
        self.members = np.arange(len(self.pool)) < len(training)
        self.sides = Sides.of(len(training), len(heldout))
        self._bars: dict[bytes, Bars] = {}

    def bars(self, members: Members) -> Bars:
        """What honest images set under a membership, `(n + M,)` bool; the same membership's are worked out once."""
        key = members.tobytes()
        if key not in self._bars:
            self._bars[key] = Bars(self, members, shuffled=not np.array_equal(members, self.members))
        return self._bars[key]

    @cached_property
    def near(self) -> Neighbourhood:
        """Honest images' neighbours by cosine distance, deep enough for the true membership."""
        honest = self.honest
        return self.sides.search(honest.plain, self.pool, self.members, honest.mirrored, name=honest.name)

    @cached_property
    def near_shallow(self) -> Neighbourhood:
        """The same for shuffled memberships."""
        return self.near.first(self.sides.depth)

    @cached_property
    def lengths(self) -> Lengths:
        """Honest images' Euclidean neighbours."""
        return Lengths.gather(self.honest, self.pool, self.members)

    @cached_property
    def lengths_shallow(self) -> Lengths:
        """The same for shuffled memberships."""
        return self.lengths.shallow()


def check_enough(rows: Features, name: str, least: int) -> None:
    """Raises where images are too few, or their features not finite.

    Raises:
        TooFewImages: fewer than `least`.
        MemControlError: features that are not finite.
    """
    if len(rows) < least:
        raise TooFewImages(f"copying needs {least} {name} images or more, got {len(rows)}: give more images")
    check_finite(rows, name)
