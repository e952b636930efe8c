"""Which candidate comes next: known baselines first, then what a sampler proposes, and never one that has been seen.

A proposal is a pure function of (history, seed, number): Optuna's samplers are made anew over an in-memory copy of the
history, and `hamming` is fitted anew to it, so a resumed search proposes what an undisturbed one would have.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from memcontrol.errors import MemControlError
from memcontrol.study.candidate import Candidate, CandidateSpace
from memcontrol.study.hamming_proposals import MOST_OBJECTIVES, Known
from memcontrol.study.hamming_proposals import proposed as hamming_proposal
from memcontrol.study.rungs import Floats, foreseen, records

Direction = Literal["minimize", "maximize"]
RATE = "learning_rate_index"
ATTEMPTS = 4
"""How often the sampler is asked again, each time with another seed, before its last proposal is changed at random."""
POPULATION = 12
GENERATION = "NSGAIISampler:generation"
HAMMING = "hamming"
HAMMING_TRIALS, HAMMING_GROUPS = 2000, 256
"""Up to both, a proposal of `hamming` takes at most about a second; above either it has not been measured."""
GP_TRIALS, GP_GROUPS = 200, 32
"""Above either, Optuna's Gaussian process takes seconds for a proposal."""


def chosen_sampler(name: str, *, budget: int, groups: int, objectives: int) -> str:
    """The sampler that `auto` means for this budget, space and number of objectives; any other name is its own.

    Raises:
        MemControlError: `hamming` for more objectives than it can do.
    """
    if name != "auto":
        _check_objectives(name, objectives)
        return name
    if objectives == MOST_OBJECTIVES:
        return HAMMING if budget <= HAMMING_TRIALS and groups <= HAMMING_GROUPS else "tpe"
    return "gp" if budget <= GP_TRIALS and groups <= GP_GROUPS else "tpe"


def _check_objectives(sampler: str, objectives: int) -> None:
    if sampler == HAMMING and objectives > MOST_OBJECTIVES:
        raise MemControlError(
            f"sampler {HAMMING} searches for one or two objectives, got {objectives}: choose gp or tpe, or auto"
        )


def _sampler(name: str, seed: int) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if name == "gp":
            return optuna.samplers.GPSampler(seed=seed, n_startup_trials=10)
        if name == "tpe":
            return optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)
        if name == "nsga2":
            return optuna.samplers.NSGAIISampler(seed=seed, population_size=POPULATION)
        return optuna.samplers.RandomSampler(seed=seed)


class _Shared(dict[str, BaseDistribution]):
    """Distributions that a copy of a trial shares: Optuna copies every trial that it is given, and reads them alone."""

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        return self


def _generations(history: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Copies that NSGA-II takes for its own, since it reads no trial without a generation; with what samplers read."""
    copies = [copy.copy(trial) for trial in history]
    for trial in copies:
        trial.user_attrs, trial.distributions = {}, _Shared(trial.distributions)
    complete = [trial for trial in copies if trial.state == TrialState.COMPLETE]
    for position, trial in enumerate(complete):
        trial.system_attrs = trial.system_attrs | {GENERATION: position // POPULATION}
    return copies


def _completed(trial: FrozenTrial, values: Floats) -> FrozenTrial:
    """A copy of a trial that ended with these values."""
    found = copy.copy(trial)
    found.state, found.values = TrialState.COMPLETE, values.tolist()
    return found


@dataclass(frozen=True)
class Proposer:
    """Proposes candidates of one space.

    Attributes:
        sampler: `hamming`, `gp`, `tpe`, `nsga2` or `random`.
        directions: `minimize` or `maximize` for each objective.
        logarithmic: for each objective whether what pruned trials would have scored is foreseen in logarithms, and
            whether `hamming` is told logarithms; none is unless given.

    Raises:
        MemControlError: `hamming` for more objectives than it can do.
    """

    space: CandidateSpace
    sampler: str
    directions: tuple[Direction, ...]
    seed: int
    logarithmic: tuple[bool, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a sampler that cannot do so many objectives."""
        _check_objectives(self.sampler, len(self.directions))

    @property
    def signs(self) -> Floats:
        """`(M,)`: 1 for objectives that are minimised, -1 for the others."""
        return np.array([1.0 if direction == "minimize" else -1.0 for direction in self.directions])

    @property
    def scales(self) -> tuple[bool, ...]:
        """For each objective whether what is foreseen of it is foreseen in logarithms."""
        return self.logarithmic or (False,) * len(self.directions)

    def distributions(self) -> dict[str, BaseDistribution]:
        """Optuna's view of the space: a switch for each group, the learning rate's grid index, and searched strengths.

        A group that has alternatives has a level instead of a switch, and a strength the index of its value.
        """
        return dict(self._distributions)

    @cached_property
    def _distributions(self) -> dict[str, BaseDistribution]:
        levels: dict[str, BaseDistribution] = {
            group.name: IntDistribution(0, self.space.highest(group))
            if group.alternatives
            else CategoricalDistribution((False, True))
            for group in self.space.groups
        }
        strengths = {grid.name: IntDistribution(0, len(grid.values) - 1) for grid in self.space.mitigations.grids}
        return levels | {RATE: IntDistribution(self.space.rates.first, self.space.rates.last)} | strengths

    def candidate(self, params: Mapping[str, Any]) -> Candidate:
        """The candidate of a trial's parameters."""
        levels = [params[group.name] for group in self.space.groups]
        return self.space.candidate(levels, params[RATE], [params[grid.name] for grid in self.space.mitigations.grids])

    def params(self, candidate: Candidate) -> dict[str, Any]:
        """A trial's parameters for a candidate.

        One that trains nothing takes the grid's first rate and the middle strengths.
        """
        rate = candidate.learning_rate
        index = self.space.rates.first if rate is None else self.space.rates.nearest(rate)
        levels = {
            group.name: level if group.alternatives else bool(level)
            for group, level in zip(self.space.groups, candidate.levels, strict=True)
        }
        mitigations = self.space.mitigations
        strengths = dict(zip(mitigations.names, candidate.strengths or mitigations.middle, strict=True))
        return levels | {RATE: index} | strengths

    def next(self, history: Sequence[FrozenTrial], number: int) -> Candidate | None:
        """A candidate that no trial of `history` has, or None where the space is exhausted."""
        seen = {self.candidate(trial.params) for trial in history}
        if len(seen) >= self.space.size:
            return None
        for baseline in self.space.baselines():
            if baseline not in seen:
                return baseline
        if self.sampler == HAMMING:
            return self._modelled(history, seen, number)
        for attempt in range(ATTEMPTS):
            proposed = self._asked(history, number, attempt)
            if proposed not in seen:
                return proposed
        return self._changed(proposed, seen, number)

    def _modelled(self, history: Iterable[FrozenTrial], seen: set[Candidate], number: int) -> Candidate:
        told = self._foreseen(history)
        done = [trial for trial in told if trial.state == TrialState.COMPLETE]
        known = Known(
            done=[self.candidate(trial.params) for trial in done],
            values=self._modelled_values(np.array([trial.values for trial in done]).reshape(-1, len(self.directions))),
            running=[self.candidate(trial.params) for trial in told if trial.state != TrialState.COMPLETE],
            seen=seen,
        )
        return hamming_proposal(self.space, known, np.random.default_rng([self.seed, 303, number]))

    def _modelled_values(self, values: Floats) -> Floats:
        """`(N, M)` to be minimised; logarithms where they are asked for and all are positive."""
        found = values.copy()
        for column, wanted in zip(found.T, self.logarithmic, strict=False):
            if wanted and (column > 0).all():
                column[:] = np.log(column)
        return found * self.signs

    def _asked(self, history: Iterable[FrozenTrial], number: int, attempt: int) -> Candidate:
        entropy = np.random.SeedSequence([self.seed, 301, number, attempt])
        sampler = _sampler(self.sampler, int(entropy.generate_state(1)[0]))
        mirror = optuna.create_study(directions=self.directions, sampler=sampler)
        mirror.add_trials(_generations(self._foreseen(history)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return self.candidate(mirror.ask(self.distributions()).params)

    def _foreseen(self, history: Iterable[FrozenTrial]) -> list[FrozenTrial]:
        """The trials that a sampler learns from: pruned ones with what they would have scored.

        Optuna's Gaussian process reads completed trials only, and would propose neighbours of pruned ones again and
        again; its TPE knows no order among pruned trials of several objectives.
        """
        kept = [trial for trial in history if trial.state != TrialState.FAIL]
        known = {trial.number: {record.key: record for record in records(trial.user_attrs)} for trial in kept}
        complete = [(known[trial.number], trial.values) for trial in kept if trial.state == TrialState.COMPLETE]
        found = []
        for trial in kept:
            if trial.state != TrialState.PRUNED:
                found.append(trial)
                continue
            last = records(trial.user_attrs)[-1]
            pairs = [(np.array(own[last.key].values), np.array(values)) for own, values in complete if last.key in own]
            values = foreseen(np.array(last.values), pairs, self.scales)
            if values is not None:
                found.append(_completed(trial, values))
        return found

    def _changed(self, start: Candidate, seen: set[Candidate], number: int) -> Candidate:
        """An unseen candidate a short random walk away."""
        rng = np.random.default_rng([self.seed, 302, number])
        params, rates = self.params(start), self.space.rates
        choices = {group.name: range(self.space.highest(group) + 1) for group in self.space.groups}
        choices |= {RATE: range(rates.first, rates.last + 1)}
        choices |= {grid.name: range(len(grid.values)) for grid in self.space.mitigations.grids}
        names = [name for name, values in choices.items() if len(values) > 1]
        while True:
            name = names[int(rng.integers(len(names)))]
            others = [value for value in choices[name] if value != params[name]]
            params[name] = others[int(rng.integers(len(others)))]
            if (candidate := self.candidate(params)) not in seen:
                return candidate
