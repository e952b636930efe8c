"""What every copying measure is computed from, under the true and under shuffled memberships of the pool."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np

from memcontrol.metrics.cells import Cells, count_cells
from memcontrol.metrics.copies import RATIO_NEIGHBOURS, copy_threshold, member_depth, member_ratios
from memcontrol.metrics.neighbourhood import Features, Matches, Members, Neighbourhood, Sides
from memcontrol.metrics.spacing import Spacing, authentic_share

BY_SIDES = frozenset({"copy_gap", "copy_tail", "closer_share"})
BY_MATCHES = frozenset({"amd", "authpct"})
BY_HONEST_MATCHES = frozenset({"nn_ratio_share", "copied_share", "copied_training_share", "c_t"})
"""Measures by what they need under each membership, which is most of what a score costs."""


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
    """Euclidean neighbours of generated and honest images, deep enough for the k nearest members.

    Attributes:
        generated, honest: neighbours in the pool.
        k: how many members a mean is taken of.
        depth: how deep neighbours are needed under shuffled memberships.
    """

    generated: Neighbourhood
    honest: Neighbourhood
    k: int
    depth: int

    @classmethod
    def gather(cls, generated: Images, honest: Images, pool: Features, members: Members) -> Lengths:
        """Neighbours deep enough that the true membership is measured exactly."""
        k = min(RATIO_NEIGHBOURS, int(members.sum()))
        needed = member_depth(len(pool), int(members.sum()), k)

        def search(images: Images) -> Neighbourhood:
            depth = needed
            while True:
                found = Neighbourhood.search(
                    images.plain, pool, depth, images.mirrored, distance="euclidean", name=images.name
                )
                if depth == len(pool) or members[found.positions].sum(axis=1).min() >= k:
                    return found
                depth = min(2 * depth, len(pool))

        return cls(search(generated), search(honest), k, needed)

    def shallow(self) -> Lengths:
        """What shuffled memberships need."""
        return replace(self, generated=self.generated.first(self.depth), honest=self.honest.first(self.depth))

    def memorized_share(self, members: Members) -> float:
        """Share of generated images with a ratio below honest images' 1 % quantile."""
        threshold = copy_threshold(member_ratios(self.honest, members, self.k))
        return float((member_ratios(self.generated, members, self.k) < threshold).mean())


@dataclass(frozen=True)
class Evidence:
    """Neighbours of generated and honest images, and what some of the measures need besides.

    Attributes:
        names: the measures wanted; others that cost nothing more may be given too.
        generated, honest: neighbours in the pool by cosine distance; None where honest images judge nothing.
        sides: chances under random subsets of each side.
        cells: for `c_t`.
        spacing: for `authpct`; None where that is not wanted.
        lengths: for `memorized_share`; None where that is not wanted.
    """

    names: frozenset[str]
    generated: Neighbourhood
    honest: Neighbourhood | None
    sides: Sides
    cells: Cells
    spacing: Spacing | None = None
    lengths: Lengths | None = None

    @classmethod
    def gather(
        cls,
        generated: Images,
        honest: Images,
        pool: Features,
        members: Members,
        *,
        names: Collection[str],
        memberships: int,
        rng: np.random.Generator,
    ) -> Evidence:
        """Everything that the measures in `names` need, for that many memberships."""
        training, n = int(members.sum()), len(generated.plain)
        sides, judged = Sides.of(training, len(pool) - training), not BY_HONEST_MATCHES.isdisjoint(names)
        count = count_cells(training, n, len(honest.plain)) if "c_t" in names else 1
        return cls(
            frozenset(names),
            sides.search(generated.plain, pool, members, generated.mirrored, name=generated.name),
            sides.search(honest.plain, pool, members, honest.mirrored, name=honest.name) if judged else None,
            sides,
            Cells.fit(pool, generated.plain, honest.plain, count=count, rng=rng),
            Spacing.of(pool, training=training, queries=n, memberships=memberships) if "authpct" in names else None,
            Lengths.gather(generated, honest, pool, members) if "memorized_share" in names else None,
        )

    def shallow(self) -> Evidence:
        """What shuffled memberships need: fewer neighbours."""
        return replace(
            self,
            generated=self.generated.first(self.sides.depth),
            honest=None if self.honest is None else self.honest.first(self.sides.depth),
            lengths=None if self.lengths is None else self.lengths.shallow(),
        )

    def statistics(self, members: Members) -> dict[str, float]:
        """Every measure in `names` under one membership of the pool, `(P,)` bool."""
        found: dict[str, float] = {}
        if self.names & BY_SIDES:
            compared = self.sides.compare(self.generated, members)
            differences = compared.differences
            found["copy_gap"] = float(differences.mean())
            if "copy_tail" in self.names:
                found["copy_tail"] = float(np.quantile(differences, 0.95))
            if "closer_share" in self.names:
                found["closer_share"] = float(compared.closer.mean())
        if self.names & (BY_MATCHES | BY_HONEST_MATCHES):
            ours = Matches.of(self.generated, members)
            found["amd"] = float(ours.distances.mean())
            if self.spacing is not None:
                found["authpct"] = authentic_share(ours, self.spacing, members)
            if self.honest is not None:
                found |= self._against_honest(ours, Matches.of(self.honest, members), members)
        if self.lengths is not None:
            found["memorized_share"] = self.lengths.memorized_share(members)
        return found

    def _against_honest(self, ours: Matches, theirs: Matches, members: Members) -> dict[str, float]:
        copied = ours.distances < copy_threshold(theirs.distances)
        found = {"copied_share": float(copied.mean())}
        if "nn_ratio_share" in self.names:
            found["nn_ratio_share"] = float((ours.ratios < np.quantile(theirs.ratios, 0.05)).mean())
        if "copied_training_share" in self.names:
            found["copied_training_share"] = len(np.unique(ours.positions[copied])) / int(members.sum())
        if "c_t" in self.names:
            found["c_t"] = self.cells.statistic(ours.distances, theirs.distances)
        return found
