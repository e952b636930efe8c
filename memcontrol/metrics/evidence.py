"""What every copying measure is computed from, under the true and under shuffled memberships of the pool."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np

from memcontrol.metrics.cells import Cells, count_cells
from memcontrol.metrics.copying_reference import Bars, CopyingReference, Images, Lengths
from memcontrol.metrics.neighbourhood import Matches, Members, Neighbourhood
from memcontrol.metrics.spacing import Spacing, authentic_share

BY_SIDES = frozenset({"copy_gap", "copy_tail", "closer_share"})
BY_MATCHES = frozenset({"amd", "authpct"})
BY_HONEST_MATCHES = frozenset({"nn_ratio_share", "copied_share", "copied_training_share", "c_t"})
"""Measures by what they need under each membership, which is most of what a score costs."""


@dataclass(frozen=True)
class Evidence:
    """Neighbours of generated images, and what some of the measures need besides.

    Attributes:
        names: the measures wanted; others that cost nothing more may be given too.
        reference: what they are compared with.
        generated: their neighbours in the pool by cosine distance.
        cells: for `c_t`.
        spacing: for `authpct`; None where that is not wanted.
        lengths: for `memorized_share`; None where that is not wanted.
    """

    names: frozenset[str]
    reference: CopyingReference
    generated: Neighbourhood
    cells: Cells
    spacing: Spacing | None = None
    lengths: Lengths | None = None

    @classmethod
    def gather(
        cls,
        generated: Images,
        reference: CopyingReference,
        *,
        names: Collection[str],
        memberships: int,
        rng: np.random.Generator,
    ) -> Evidence:
        """Everything that the measures in `names` need, for that many memberships."""
        pool, members, honest = reference.pool, reference.members, reference.honest.plain
        training, n = int(members.sum()), len(generated.plain)
        count = count_cells(training, n, len(honest)) if "c_t" in names else 1
        return cls(
            frozenset(names),
            reference,
            reference.sides.search(generated.plain, pool, members, generated.mirrored, name=generated.name),
            Cells.fit(pool, generated.plain, honest, count=count, rng=rng),
            Spacing.of(pool, training=training, queries=n, memberships=memberships) if "authpct" in names else None,
            Lengths.gather(generated, pool, members) if "memorized_share" in names else None,
        )

    def shallow(self) -> Evidence:
        """What shuffled memberships need: fewer neighbours."""
        return replace(
            self,
            generated=self.generated.first(self.reference.sides.depth),
            lengths=None if self.lengths is None else self.lengths.shallow(),
        )

    def statistics(self, members: Members) -> dict[str, float]:
        """Every measure in `names` under one membership of the pool, `(P,)` bool."""
        found: dict[str, float] = {}
        bars = self.reference.bars(members)
        if self.names & BY_SIDES:
            compared = self.reference.sides.compare(self.generated, members)
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
            if self.names & BY_HONEST_MATCHES:
                found |= self._against_honest(ours, bars, members)
        if self.lengths is not None:
            found["memorized_share"] = float((self.lengths.ratios(members) < bars.length_ratio).mean())
        return found

    def _against_honest(self, ours: Matches, bars: Bars, members: Members) -> dict[str, float]:
        copied = ours.distances < bars.distance
        found = {"copied_share": float(copied.mean())}
        if "nn_ratio_share" in self.names:
            found["nn_ratio_share"] = float((ours.ratios < bars.ratio).mean())
        if "copied_training_share" in self.names:
            found["copied_training_share"] = len(np.unique(ours.positions[copied])) / int(members.sum())
        if "c_t" in self.names:
            found["c_t"] = self.cells.statistic(ours.distances, bars.matches.distances)
        return found
