"""Candidates as whole numbers, the places of a Gaussian process that they are, and which are near to which.

A row has the level of each group, the learning rate's place in its grid, and the place of each searched strength.
Candidates that train nothing have no rate and no strengths: their rows have the middle ones, so that each candidate is
one row.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Set
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from memcontrol.study.candidate import Candidate, CandidateSpace
from memcontrol.study.hamming import Floats

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class CandidateRows:
    """The rows of a space.

    Attributes:
        space: its candidates; all have the same steps.
    """

    space: CandidateSpace

    @cached_property
    def levels(self) -> Rows:
        """`(G,)` how many levels each group has."""
        return np.array([self.space.highest(group) + 1 for group in self.space.groups], dtype=np.int64)

    @cached_property
    def counts(self) -> Rows:
        """`(P,)` how many values each column has."""
        rates = self.space.rates.last - self.space.rates.first + 1
        strengths = [len(grid.values) for grid in self.space.mitigations.grids]
        return np.append(self.levels, [rates, *strengths]).astype(np.int64)

    @cached_property
    def _middle(self) -> Rows:
        """Rate and strengths of a candidate that trains nothing."""
        rates = self.space.rates
        return np.array([(rates.last - rates.first + 1) // 2, *self.space.mitigations.middle], dtype=np.int64)

    def rows(self, candidates: Iterable[Candidate]) -> Rows:
        """`(N, P)` the rows of candidates."""
        found = [self._row(candidate) for candidate in candidates]
        return np.array(found, dtype=np.int64).reshape(-1, len(self.counts))

    def _row(self, candidate: Candidate) -> list[int]:
        if candidate.learning_rate is None:
            return [*candidate.levels, *self._middle]
        rates = self.space.rates
        strengths = candidate.strengths or self.space.mitigations.middle
        return [*candidate.levels, rates.nearest(candidate.learning_rate) - rates.first, *strengths]

    def candidate(self, row: Rows) -> Candidate:
        """The candidate of one row."""
        numbers, groups = row.tolist(), len(self.levels)
        return self.space.candidate(numbers[:groups], self.space.rates.first + numbers[groups], numbers[groups + 1 :])

    def unseen(self, rows: Rows, seen: Set[bytes]) -> Rows:
        """The different candidates among rows, in their order, without those whose bytes were seen."""
        if not self.space.always:
            nothing = ~rows[:, : len(self.levels)].any(axis=1)
            rows = rows.copy()
            rows[nothing, len(self.levels) :] = self._middle
        kept = [text for text in dict.fromkeys(row.tobytes() for row in rows) if text not in seen]
        return np.frombuffer(b"".join(kept), dtype=np.int64).reshape(-1, len(self.counts))

    @property
    def product(self) -> int:
        """How many rows there are, counting those that train nothing with each rate and strength."""
        return math.prod(self.counts.tolist())

    def every(self) -> Rows:
        """All rows; of small spaces only."""
        return np.indices(self.counts.tolist()).reshape(len(self.counts), -1).T.astype(np.int64)

    def random(self, count: int, rng: np.random.Generator) -> Rows:
        """`(count, P)` random rows whose number of trained groups is uniform."""
        groups = len(self.levels)
        places = rng.random((count, groups)).argsort(axis=1)
        trained = places < rng.integers(groups + 1, size=(count, 1))
        rows = rng.integers(0, self.counts, size=(count, len(self.counts)))
        rows[:, :groups] = np.where(trained, 1 + rng.integers(0, np.maximum(self.levels - 1, 1), (count, groups)), 0)
        return rows

    @cached_property
    def single(self) -> Rows:
        """`(C, P)` what to add to a row for each change of one group's level, which is taken modulo."""
        changes = [(place, shift) for place, count in enumerate(self.levels) for shift in range(1, count)]
        found = np.zeros((len(changes), len(self.counts)), dtype=np.int64)
        for number, (place, shift) in enumerate(changes):
            found[number, place] = shift
        return found

    @cached_property
    def steps(self) -> Rows:
        """`(S, P)` what to add to a row for no step, and for each step of the rate or of one strength."""
        moved = [
            sign * np.eye(len(self.counts), dtype=np.int64)[place]
            for place in range(len(self.levels), len(self.counts))
            if self.counts[place] > 1
            for sign in (-1, 1)
        ]
        return np.array([np.zeros(len(self.counts), dtype=np.int64), *moved])

    def changed(self, rows: Rows, changes: Rows) -> Rows:
        """Rows with changes added, row by row; levels modulo their number, rate and strengths kept within theirs."""
        groups, found = len(self.levels), rows + changes
        found[:, :groups] %= self.levels
        found[:, groups:] = np.clip(found[:, groups:], 0, self.counts[groups:] - 1)
        return found

    def beside(self, row: Rows) -> Rows:
        """The rows within one change, or one step, of one row."""
        return self.changed(row, np.concatenate([self.single, self.steps]))

    def near(self, members: Rows, most: int, rng: np.random.Generator) -> Rows:
        """Rows with up to two changes and a step of some `(K, P)` rows: all, or random ones where there are too many.

        Args:
            most: more than these are too many.
        """
        if len(members) * len(self.steps) * (1 + math.comb(len(self.single) + 1, 2)) > most:
            return self._some_near(members, most, rng)
        pairs = np.array(list(combinations(range(len(self.single)), 2)), dtype=np.intp).reshape(-1, 2)
        none, two = np.zeros((1, len(self.counts)), dtype=np.int64), self.single[pairs].sum(axis=1)
        changes = np.concatenate([none, self.single, two])
        moves = (changes[:, None] + self.steps).reshape(-1, len(self.counts))
        return self.changed(np.repeat(members, len(moves), axis=0), np.tile(moves, (len(members), 1)))

    def _some_near(self, members: Rows, most: int, rng: np.random.Generator) -> Rows:
        starts, steps = (among[rng.integers(len(among), size=most)] for among in (members, self.steps))
        if not len(self.single):
            return self.changed(starts, steps)
        first, second = (self.single[rng.integers(len(self.single), size=most)] for _ in range(2))
        return self.changed(starts, steps + first + second * rng.integers(2, size=(most, 1)))

    @cached_property
    def _numel(self) -> tuple[NDArray[np.int64], ...]:
        """For each group how many numbers train at each of its levels."""
        levels = [range(1, self.space.highest(group) + 1) for group in self.space.groups]
        pairs = zip(self.space.groups, levels, strict=True)
        return tuple(np.array([0, *(group.at(level).numel for level in own)]) for group, own in pairs)

    def sizes(self, rows: Rows) -> Floats:
        """`(N,)` logarithms of how many numbers rows train: 0 for the smallest group alone, 1 for the most of all.

        Rows that train nothing count as the smallest.
        """
        always = sum(group.numel for group in self.space.always)
        least = max(1, always + min((int(own[1:].min()) for own in self._numel), default=0))
        most = max(least, always + sum(int(own.max()) for own in self._numel))
        found = np.full(len(rows), always, dtype=np.float64)
        for own, column in zip(self._numel, rows.T, strict=False):
            found += own[column]
        span = math.log(most / least)
        return np.log(np.maximum(found, least) / least) / (span or 1.0)

    def places(self, rows: Rows) -> Floats:
        """`(N, D)` in -1 to 1, where a Gaussian process sees rows.

        A group is -1 where it is frozen, else 1; one with alternatives has besides a column for each of its settings,
        less their mean, zero where it is frozen. Rates and strengths are -1 to 1 along their grids, and have their
        square besides, since a mask's best lies within the grid and not at an end.
        """
        columns = [np.where(rows[:, : len(self.levels)] > 0, 1.0, -1.0)]
        for place in np.flatnonzero(self.levels > 2).tolist():
            level, settings = rows[:, place, None], int(self.levels[place]) - 1
            chosen = (level == np.arange(1, settings + 1)).astype(np.float64)
            columns.append(np.where(level > 0, chosen - 1 / settings, 0.0))
        for place in range(len(self.levels), len(self.counts)):
            if (count := int(self.counts[place])) > 1:
                heights = 2.0 * rows[:, place, None] / (count - 1) - 1
                columns += [heights, 1 - 2 * heights**2][: count - 1]
        return np.concatenate(columns, axis=1)
