"""Strategies of a search: the program's own proposer under each sampler, local search, and hints of shared tensors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from optuna.trial import FrozenTrial, TrialState, create_trial
from problems import Problem

from memcontrol.study.candidate import Candidate, CandidateSpace
from memcontrol.study.front import front_places
from memcontrol.study.hamming import USUAL, Floats, Process, kernels, likeliest
from memcontrol.study.hamming_places import CandidateRows, Rows
from memcontrol.study.hamming_proposals import Known, proposed
from memcontrol.study.proposals import Proposer

SCORED = 64
"""Masks scored on shared tensors by a strategy that does not score all."""


@dataclass(frozen=True)
class Tried:
    """A candidate and what a search saw of it: fd and copy_gap, or None where the table does not have it."""

    candidate: Candidate
    values: tuple[float, float] | None


class Strategy(Protocol):
    """Which candidate comes next."""

    def next(self, history: Sequence[Tried]) -> Candidate | None:
        """A candidate that is not in the history, or None where the space is exhausted."""
        ...


class Bare(CandidateSpace):
    """A space without known baselines."""

    def baselines(self) -> list[Candidate]:
        return []


def without_baselines(space: CandidateSpace) -> CandidateSpace:
    return Bare(groups=space.groups, always=space.always, rates=space.rates, steps=space.steps)


@dataclass
class Program:
    """The program's own proposer.

    Attributes:
        logarithmic: whether an Optuna sampler is told log fd instead of fd; `hamming` takes logarithms by itself.
    """

    proposer: Proposer
    logarithmic: bool = False
    trials: list[FrozenTrial] = field(default_factory=list)

    def next(self, history: Sequence[Tried]) -> Candidate | None:
        self.trials += [self._trial(tried) for tried in history[len(self.trials) :]]
        return self.proposer.next(self.trials, len(history))

    def _trial(self, tried: Tried) -> FrozenTrial:
        facts: dict[str, Any] = {
            "params": self.proposer.params(tried.candidate),
            "distributions": self.proposer.distributions(),
        }
        if tried.values is None:
            return create_trial(state=TrialState.FAIL, **facts)
        fd, gap = tried.values
        return create_trial(values=[float(np.log(fd)) if self.logarithmic else fd, gap], **facts)


class Own:
    """What the strategies of this folder share: baselines first, then random candidates, and nothing twice.

    Attributes:
        first: random candidates before a model or a front is of use.
    """

    first: float = 8

    def __init__(self, space: CandidateSpace, seed: int) -> None:
        self.space, self.seed = space, seed

    def next(self, history: Sequence[Tried]) -> Candidate | None:
        seen = {tried.candidate for tried in history}
        if len(seen) >= self.space.size:
            return None
        for baseline in self.space.baselines():
            if baseline not in seen:
                return baseline
        rng = np.random.default_rng([self.seed, 702, len(history)])
        done = [tried for tried in history if tried.values is not None]
        if len(done) >= self.first:
            return self.chosen(done, seen, rng)
        return self.random(seen, rng)

    def chosen(self, done: list[Tried], seen: set[Candidate], rng: np.random.Generator) -> Candidate:
        """The next candidate, given some that have values."""
        raise NotImplementedError

    def random(self, seen: set[Candidate], rng: np.random.Generator) -> Candidate:
        """An unseen candidate whose size, in groups, is uniform."""
        count = len(self.space.groups)
        while True:
            levels = np.zeros(count, dtype=int)
            levels[rng.permutation(count)[: rng.integers(count + 1)]] = 1
            candidate = self.space.candidate(levels, int(rng.integers(*self._rates)))
            if candidate not in seen:
                return candidate

    @property
    def _rates(self) -> tuple[int, int]:
        return self.space.rates.first, self.space.rates.last + 1

    def rate_index(self, candidate: Candidate) -> int:
        """The rate's grid index; the middle where nothing trains."""
        if candidate.learning_rate is None:
            return sum(self._rates) // 2
        return self.space.rates.nearest(candidate.learning_rate)

    def changed(self, candidate: Candidate, places: Sequence[int], step: int) -> Candidate:
        """The candidate with the groups at `places` switched and its rate moved."""
        levels = [int(level != (place in places)) for place, level in enumerate(candidate.levels)]
        rate = self.rate_index(candidate) + step
        return self.space.candidate(levels, min(self._rates[1] - 1, max(self._rates[0], rate)))


class Spread(Own):
    """Random candidates of uniform size, where independent bits would seldom give small or large masks."""

    first = float("inf")


class Local(Own):
    """Changes one, two or three places of a random member of the front of the seen values."""

    def chosen(self, done: list[Tried], seen: set[Candidate], rng: np.random.Generator) -> Candidate:
        members = [done[i].candidate for i in front_places(np.array([tried.values for tried in done]))]
        for attempt in range(200):
            start = members[int(rng.integers(len(members)))]
            many = int(rng.choice((1, 2, 3), p=(0.6, 0.3, 0.1))) + attempt // 50
            places = rng.permutation(len(self.space.groups))[:many]
            step = int(rng.choice((-1, 0, 1))) if self._rates[1] - self._rates[0] > 1 else 0
            if (candidate := self.changed(start, places.tolist(), step)) not in seen:
                return candidate
        return self.random(seen, rng)


class Hinted(Own):
    """`hamming`, with the scores of masks on one set of tensors that all share as hints, the best of which come first.

    Args:
        scored: how many masks are scored there, drawn at random, where not all are; others are predicted from them.
    """

    def __init__(self, space: CandidateSpace, seed: int, on: Problem, scored: int | None = None) -> None:
        super().__init__(space, seed)
        if on.hints is None:
            raise ValueError("this problem has no scores on shared tensors")
        self.rows, hints = CandidateRows(space), on.hints
        if scored is not None:
            places = self.rows.places(self.rows.rows(on.candidates))
            chosen = np.random.default_rng([seed, 703]).permutation(len(hints))[:scored]
            hints = np.stack([predicted(places, chosen, column[chosen]) for column in hints.T], axis=1)
        self.known = dict(zip(on.candidates, hints.tolist(), strict=True))

    def chosen(self, done: list[Tried], seen: set[Candidate], rng: np.random.Generator) -> Candidate:
        values = np.array([tried.values for tried in done])
        values[:, 0] = np.log(values[:, 0])
        return proposed(self.space, Known([tried.candidate for tried in done], values, [], seen), rng, self.hints)

    def hints(self, rows: Rows) -> Floats:
        """`(N, 2)` what is known of rows before any training."""
        return np.array([self.known[self.rows.candidate(row)] for row in rows])

    def random(self, seen: set[Candidate], rng: np.random.Generator) -> Candidate:
        """In turn a member of the hints' front among what is unseen, and a candidate of uniform size."""
        if len(seen) % 2:
            return super().random(seen, rng)
        unseen = [candidate for candidate in self.known if candidate not in seen]
        best = front_places(np.array([self.known[candidate] for candidate in unseen]))
        return unseen[int(rng.choice(best))]


def predicted(places: Floats, chosen: Sequence[int], values: Floats) -> Floats:
    """`(N,)` standardised predictions at `(N, D)` places from the values at some of them."""
    at = places[chosen]
    parts, target = kernels(at, at), (values - values.mean()) / values.std()
    found = Process.given(likeliest(parts, target, USUAL[: len(parts)]), parts, target).mean(kernels(places, at))
    return (found - found.mean()) / found.std()


def _program(name: str, *, logarithmic: bool = False) -> Callable[[CandidateSpace, int], Strategy]:
    def made(space: CandidateSpace, seed: int) -> Strategy:
        return Program(Proposer(space, name, ("minimize", "minimize"), seed, (True, False)), logarithmic)

    return made


KINDS: dict[str, Callable[[CandidateSpace, int], Strategy]] = {
    "random": _program("random"),
    "nsga2": _program("nsga2"),
    "tpe": _program("tpe"),
    "gp": _program("gp"),
    "gp-log": _program("gp", logarithmic=True),
    "spread": Spread,
    "local": Local,
    "hamming": _program("hamming"),
}
HINTED: dict[str, int | None] = {"hinted": None, f"hinted-{SCORED}": SCORED}
"""Masks scored on shared tensors; None for all."""
BASELINES = "+baselines"
STRATEGIES = (*(f"{kind}{ending}" for kind in KINDS for ending in ("", BASELINES)), *HINTED)


def strategy(name: str, on: Problem, seed: int) -> Strategy:
    """A strategy of `STRATEGIES` on a problem; `Hinted` needs one with hints."""
    if name in HINTED:
        return Hinted(without_baselines(on.space), seed, on, HINTED[name])
    space = on.space if name.endswith(BASELINES) else without_baselines(on.space)
    return KINDS[name.removesuffix(BASELINES)](space, seed)
