"""One Gaussian process for each objective over a space's rows, and which rows add most to the front."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from memcontrol.study.front import front_places
from memcontrol.study.hamming import (
    USUAL,
    Floats,
    Process,
    expected_improvement,
    kernels,
    likeliest,
    own_kernels,
    size_kernel,
)
from memcontrol.study.hamming_places import CandidateRows, Rows

FITTED = 150
"""Most rows that variances are fitted to; of more, the best and random ones."""
HINTED = 0.6
"""Variance of a kernel along hints, as expected before anything is seen."""
Hints = Callable[[Rows], Floats]
"""`(N, M)` numbers of about zero mean and unit variance that may say something of rows' values."""


def best_and_random(values: Floats, most: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """At most so many places of `(N, M)` values to be minimised: half of one front after another, the rest random."""
    left, best = np.arange(len(values)), np.arange(0)
    if len(values) <= most:
        return left
    while len(best) < most // 2:
        front = front_places(values[left])
        best, left = np.append(best, left[front]), np.delete(left, front)
    best = best[: most // 2]
    others = np.setdiff1d(np.arange(len(values)), best)
    return np.sort(np.append(best, rng.permutation(others)[: most - len(best)]))


@dataclass(frozen=True)
class Model:
    """What is believed of a space.

    Attributes:
        space: the rows' own.
        rows: `(N, P)` whose values are given.
        values: `(N, M)`, M 1 or 2, to be minimised, standardised.
        variances: for each objective `(K + 1,)` of its kernels and of the noise.
        hints: of rows; none unless given.
    """

    space: CandidateRows
    rows: Rows
    values: Floats
    variances: tuple[Floats, ...]
    hints: Hints | None = field(default=None)

    @classmethod
    def fitted(
        cls, space: CandidateRows, rows: Rows, values: Floats, rng: np.random.Generator, hints: Hints | None = None
    ) -> Model:
        """The model whose variances are the most likely ones given `(N, M)` values in any scale."""
        scale = values.std(axis=0)
        values = (values - values.mean(axis=0)) / np.where(scale > 0, scale, 1.0)
        few = best_and_random(values, FITTED, rng)
        usual = USUAL if hints is None else (*USUAL, HINTED)
        parts = cls(space, rows[few], values[few], (), hints).between(rows[few])
        found = (likeliest(part, column, usual) for part, column in zip(parts, values[few].T, strict=True))
        return cls(space, rows, values, tuple(found), hints)

    @cached_property
    def _places(self) -> Floats:
        return self.space.places(self.rows)

    @cached_property
    def _sizes(self) -> Floats:
        return self.space.sizes(self.rows)

    @cached_property
    def processes(self) -> tuple[Process, ...]:
        """Of each objective."""
        given = zip(self.variances, self.between(self.rows), self.values.T, strict=True)
        return tuple(Process.given(variances, parts, column) for variances, parts, column in given)

    @cached_property
    def means(self) -> Floats:
        """`(N, M)` what the processes say of the given rows themselves."""
        parts = self.between(self.rows)
        return np.stack([own.mean(part) for own, part in zip(self.processes, parts, strict=True)], axis=1)

    def between(self, rows: Rows) -> list[Floats]:
        """For each objective the `(K, R, N)` kernels of rows with the given ones."""
        sizes = size_kernel(self.space.sizes(rows), self._sizes)
        plain = np.concatenate([kernels(self.space.places(rows), self._places), sizes[None]])
        if self.hints is None:
            return [plain] * self.values.shape[1]
        pairs = zip(self.hints(rows).T, self.hints(self.rows).T, strict=True)
        return [np.concatenate([plain, np.outer(one, other)[None]]) for one, other in pairs]

    def _own(self, rows: Rows) -> list[Floats]:
        plain = np.concatenate([own_kernels(self.space.places(rows)), np.ones((1, len(rows)))])
        if self.hints is None:
            return [plain] * self.values.shape[1]
        return [np.concatenate([plain, hint[None] ** 2]) for hint in self.hints(rows).T]

    def believing(self, rows: Rows) -> Model:
        """The model given besides `(R, P)` rows that have no values yet, as what it says of them."""
        if not len(rows):
            return self
        parts = self.between(rows)
        said = np.stack([own.mean(part) for own, part in zip(self.processes, parts, strict=True)], axis=1)
        return replace(self, rows=np.concatenate([self.rows, rows]), values=np.concatenate([self.values, said]))

    @cached_property
    def front(self) -> NDArray[np.intp]:
        """Places of the given rows that no other dominates by the means."""
        return front_places(self.means)

    def predicted(self, rows: Rows) -> tuple[Floats, Floats]:
        """Means and standard deviations of rows, `(R, M)` each, without noise, in the scale of the values."""
        pairs = zip(self.processes, self.between(rows), self._own(rows), strict=True)
        found = [process.at(between, own) for process, between, own in pairs]
        mean, spread = (np.stack(part, axis=1) for part in zip(*found, strict=True))
        return mean, spread

    def gains(self, rows: Rows) -> Floats:
        """`(R,)` by how much each row is expected to improve the means' front."""
        mean, spread = self.predicted(rows)
        reference = self.means.max(axis=0) + 0.1 * np.ptp(self.means, axis=0) + 1e-9
        return expected_improvement(mean, spread, self.means[self.front], reference)

    def best(self, rows: Rows) -> tuple[Rows, float]:
        """The one of `(R, P)` rows that is expected to improve the front most, and by how much."""
        gains = self.gains(rows)
        place = int(np.argmax(gains))
        return rows[place], float(gains[place])
