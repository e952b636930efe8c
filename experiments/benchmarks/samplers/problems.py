"""What strategies are replayed on: the table of all masks on `brain`, and synthetic problems with a known front."""

import csv
import json
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import combinations, product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from memcontrol.groups import ParameterGroup
from memcontrol.study.candidate import Candidate, CandidateSpace, RateGrid
from memcontrol.study.front import front_places, hypervolume

Floats = NDArray[np.float64]
TABLE = Path(__file__).parent.parent / "mask_table"
ONE_SHOT = Path(__file__).parent.parent / "one_shot"
FIXED = RateGrid.between(1e-3, 1e-3)
SEARCHED = RateGrid.between(3e-4, 1e-2)


@dataclass(frozen=True)
class Problem:
    """All candidates of a space with what a search sees of them and what they are worth.

    Attributes:
        seen: `(N, 2)` fd and copy_gap as one training gave them; NaN where there is none yet.
        true: `(N, 2)` log fd and copy_gap that a front is judged by; NaN likewise.
        reference: `(2,)` in the scale of `true`, the same for every strategy.
        hints: `(N, 2)` standardised log fd and copy_gap of one set of tensors that all masks share; None where there is
            none.
    """

    space: CandidateSpace
    candidates: tuple[Candidate, ...]
    seen: Floats
    true: Floats
    reference: Floats
    hints: Floats | None = None

    @cached_property
    def places(self) -> dict[Candidate, int]:
        return {candidate: place for place, candidate in enumerate(self.candidates)}

    @cached_property
    def best(self) -> float:
        """Hypervolume of all candidates."""
        return hypervolume(front(self.true[np.isfinite(self.true).all(1)]), self.reference)

    def values(self, candidate: Candidate) -> tuple[float, float] | None:
        """What a search sees of a candidate; None where it has not been trained yet."""
        row = self.seen[self.places[candidate]]
        return (float(row[0]), float(row[1])) if np.isfinite(row).all() else None

    def delivered(self, tried: list[int]) -> float:
        """Share of the best hypervolume that the front of the seen values has, by the true ones."""
        shown = np.array(tried)[front_places(self.seen[tried])]
        return hypervolume(front(self.true[shown]), self.reference) / self.best

    def reached(self, tried: list[int]) -> float:
        """Share of the best hypervolume among everything that was tried, were the true values known."""
        return hypervolume(front(self.true[tried]), self.reference) / self.best


def front(points: Floats) -> Floats:
    """The rows that no row dominates, by the first column."""
    return points[front_places(points)]


@cache
def enumerated(sizes: tuple[tuple[str, int], ...], rates: RateGrid) -> tuple[CandidateSpace, tuple[Candidate, ...]]:
    """A space of groups of so many numbers by name, and all of its candidates."""
    groups = tuple(ParameterGroup(name, "full", (name,), numel) for name, numel in sizes)
    space = CandidateSpace(groups=groups, always=(), rates=rates, steps=1)
    indices = range(rates.first, rates.last + 1)
    made = (space.candidate(levels, index) for levels in product((0, 1), repeat=len(sizes)) for index in indices)
    return space, tuple(dict.fromkeys(made))


@dataclass(frozen=True)
class Synthetic:
    """A kind of random problem: each repetition draws its own.

    Attributes:
        rates: of the learning rate; one for problems of masks alone.
        pairs, triples: standard deviation of the interactions of two and three groups, main effects' being 1.
        noise: that of one training, the objective's over the space being 1.
    """

    bits: int
    rates: RateGrid = FIXED
    pairs: float = 0.0
    triples: float = 0.0
    noise: float = 0.2

    def draw(self, seed: int) -> Problem:
        """One problem: every bit lowers fd and raises copy_gap by its own amounts, up to interactions."""
        sizes = tuple((f"{('down', 'mid', 'up')[i % 3]}.kind{i // 3}", 1) for i in range(self.bits))
        space, candidates = enumerated(sizes, self.rates)
        rng = np.random.default_rng([701, seed])
        bits = np.array([candidate.levels for candidate in candidates], dtype=np.float64)
        own, other = (rng.gamma(1.0, size=self.bits) for _ in range(2))
        fidelity = -self._sum(bits, own, rng)
        copying = self._sum(bits, 0.6 * own + 0.4 * other, rng)
        if self.rates.first < self.rates.last:
            height = np.array([self._height(candidate) for candidate in candidates])
            wanted = 0.5 - bits @ rng.normal(1.0, 0.5, self.bits) / self.bits
            fidelity += 1.5 * fidelity.std() * (height - wanted) ** 2
            copying += 0.5 * copying.std() * height
        true = np.stack([(values - values.mean()) / values.std() for values in (fidelity, copying)], axis=1)
        noisy = true + self.noise * rng.normal(size=true.shape)
        true, noisy = true * (0.4, 0.01) + (5.0, 0.02), noisy * (0.4, 0.01) + (5.0, 0.02)
        seen = np.stack([np.exp(noisy[:, 0]), noisy[:, 1]], axis=1)
        return Problem(space, candidates, seen, true, true.max(axis=0))

    def _height(self, candidate: Candidate) -> float:
        """The learning rate within the grid, -1 to 1."""
        if candidate.learning_rate is None:
            return 0.0
        middle = (self.rates.first + self.rates.last) / 2
        return (self.rates.nearest(candidate.learning_rate) - middle) / (self.rates.last - middle)

    def _sum(self, bits: Floats, weights: Floats, rng: np.random.Generator) -> Floats:
        total = bits @ weights
        signs, scale = 2 * bits - 1, float(total.std())
        for order, share in ((2, self.pairs), (3, self.triples)):
            if share:
                subsets = np.array(list(combinations(range(self.bits), order)))
                terms = signs[:, rng.permutation(subsets)[: 2 * self.bits]].prod(axis=-1)
                interactions = terms @ rng.normal(size=terms.shape[1])
                total = total + share * scale * interactions / interactions.std()
        return total


SYNTHETIC = {
    "additive-8": Synthetic(8),
    "pairwise-8": Synthetic(8, pairs=0.5),
    "pairwise-13": Synthetic(13, pairs=0.5),
    "rugged-13": Synthetic(13, pairs=0.5, triples=0.5),
    "rate-10": Synthetic(10, SEARCHED, pairs=0.3),
}


def table_problem(repetition: int, folder: Path = TABLE) -> Problem:
    """The table of masks: one seed is seen, in turn, and the mean of the others is true.

    The reference is log fd of the untuned model, or the worst where that is worse, and the worst copy_gap, each of the
    mean over all seeds.
    """
    facts = json.loads((folder / "table.json").read_text())
    sizes = tuple((group["name"], group["numel"]) for group in facts["groups"])
    space, candidates = enumerated(sizes, FIXED)
    seeds, places = facts["seeds"], {candidate.mask: place for place, candidate in enumerate(candidates)}
    values = np.full((len(seeds), len(candidates), 2), np.nan)
    for file in sorted(folder.glob("masks-*.csv")):
        for row in csv.DictReader(file.open()):
            at = seeds.index(int(row["seed"])), places[row["mask"]]
            values[at] = float(row["fd@efficientnet-lite0"]), float(row["copy_gap@pixels"])
    values[:, np.isnan(values).any(axis=(0, 2))] = np.nan  # a mask counts once all of its seeds are there
    seen = repetition % len(seeds)
    logs = np.stack([np.log(values[..., 0]), values[..., 1]], axis=-1)
    reference = np.nanmax(logs.mean(axis=0), axis=0)
    true = np.delete(logs, seen, axis=0).mean(axis=0)
    return Problem(space, candidates, values[seen], true, reference, one_shot(seeds[seen], places))


def one_shot(seed: int, places: dict[str, int]) -> Floats | None:
    """Hints for every mask, where all were scored on the shared tensors of this seed with no steps of their own."""
    hints = np.full((len(places), 2), np.nan)
    file = ONE_SHOT / f"scores-{seed}.csv"
    for row in csv.DictReader(file.open()) if file.exists() else ():
        if row["adapt"] == "0":
            hints[places[row["mask"]]] = np.log(float(row["fd@efficientnet-lite0"])), float(row["raw_gap"])
    return (hints - hints.mean(axis=0)) / hints.std(axis=0) if np.isfinite(hints).all() else None
