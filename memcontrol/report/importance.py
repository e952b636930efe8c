"""How much each group matters for each objective: Optuna's PED-ANOVA beside chance, and means with it on and off.

A search does not draw masks at random, so both are associations within its own trials, and groups that it switched
together cannot be told apart.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution

FEWEST = 20
"""Trials below which nothing is said: PED-ANOVA compares the best ones, and asks for at least five of them."""
BEST = 0.25
"""The share of trials that count as the best; with Optuna's tenth, 50 trials tell next to nothing of binary groups."""
SHUFFLES = 40
"""How often the objective's values are dealt out anew among the trials, to see what chance alone gives."""
RESAMPLES = 400
RATE = "learning rate"
MOST_GROUPS = 64
"""More groups than these are too many for the trials that a search has."""


@dataclass(frozen=True)
class Importance:
    """What one group, or the learning rate, has to do with one objective.

    Attributes:
        share: PED-ANOVA's importance, of all that add up to 1, for reaching the best trials.
        chance: what 95 % of shuffles stay below.
        on, off: how many trials trained the group, and how many did not; both 0 for the learning rate.
        difference: mean with it on minus mean with it off, in the objective's units; None where all trials agree.
        low, high: its 95 % bootstrap interval over trials.
    """

    name: str
    share: float
    chance: float
    on: int = 0
    off: int = 0
    difference: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def apart(self) -> bool:
        """Whether the difference's interval excludes zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)

    @property
    def above_chance(self) -> bool:
        """Whether it stands out from what chance alone gives."""
        return self.share > self.chance


def importances(
    names: Sequence[str],
    bits: Sequence[str],
    rates: Sequence[float],
    values: NDArray[np.float64],
    *,
    better: str,
    seed: int = 0,
) -> list[Importance]:
    """Every group's importance for one objective, the largest first; none where there are fewer than 20 trials.

    Args:
        names: of the groups, in bit order.
        bits: each trial's levels as digits; trials that train nothing are left out by the caller.
        rates: each trial's learning rate.
        values: `(N,)` of the objective.
        better: `lower` or `higher`.
        seed: of shuffles and resamples.

    Source: Watanabe et al. 2023 (arXiv 2304.10255), as Optuna implements it.
    """
    if len(values) < FEWEST or len(names) > MOST_GROUPS or np.ptp(values) == 0:
        return []
    study, spaces = _study(names, bits, rates)
    minimised, rng = (values if better == "lower" else -values), np.random.default_rng(seed)
    shares = _shares(study, minimised)
    shuffled = [_shares(study, rng.permutation(minimised)) for _ in range(SHUFFLES)]
    chance = {name: float(np.quantile([one[name] for one in shuffled], 0.95)) for name in spaces}
    found = [Importance(RATE, shares[RATE], chance[RATE])] if RATE in spaces else []
    for i, name in enumerate(names):
        on = np.array([mask[i] != "0" for mask in bits])
        if name in spaces:
            found.append(Importance(name, shares[name], chance[name], *_difference(values, on, rng)))
    return sorted(found, key=lambda one: -one.share)


def _study(
    names: Sequence[str], bits: Sequence[str], rates: Sequence[float]
) -> tuple[Study, dict[str, BaseDistribution]]:
    """These trials as a study, without values, and what differs between them; what never differs cannot matter."""
    import optuna
    from optuna.distributions import CategoricalDistribution

    columns: dict[str, list[Any]] = {name: [int(mask[i], 36) for mask in bits] for i, name in enumerate(names)}
    columns[RATE] = list(rates)  # on a grid, so as discrete as the groups are
    spaces: dict[str, BaseDistribution] = {
        name: CategoricalDistribution(sorted(set(column))) for name, column in columns.items() if len(set(column)) > 1
    }
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study()
    optuna.logging.set_verbosity(verbosity)
    for place in range(len(bits)):
        given = {name: columns[name][place] for name in spaces}
        study.add_trial(optuna.create_trial(params=given, distributions=dict(spaces), value=0.0))
    return study, spaces


def _shares(study: Study, values: NDArray[np.float64]) -> dict[str, float]:
    """PED-ANOVA's importances for these values of the study's trials, to be minimised."""
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    evaluator = PedAnovaImportanceEvaluator(target_quantile=BEST)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says of every such call that low values are taken as good ones
        return get_param_importances(study, evaluator=evaluator, target=lambda trial: float(values[trial.number]))


def _difference(
    values: NDArray[np.float64], on: NDArray[np.bool_], rng: np.random.Generator
) -> tuple[int, int, float | None, float | None, float | None]:
    """Counts on and off, the difference of the means, and its bootstrap interval within both."""
    lit, dark = values[on], values[~on]
    if min(len(lit), len(dark)) < 2:
        return len(lit), len(dark), None, None, None
    means = [rng.choice(part, (RESAMPLES, len(part))).mean(axis=1) for part in (lit, dark)]
    low, high = np.quantile(means[0] - means[1], [0.025, 0.975])
    return len(lit), len(dark), float(lit.mean() - dark.mean()), float(low), float(high)
