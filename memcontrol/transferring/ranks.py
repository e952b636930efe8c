"""What a mask's scores mean beside others': its rank among random masks, and full fine-tuning at equal fidelity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memcontrol.comparison.intervals import Mean, mean_over_seeds, paired_difference
from memcontrol.study.front import Case, weights_at

Values = Mapping[int, float]
"""Seed -> value, to be minimised or in a score's own direction."""


@dataclass(frozen=True)
class Rank:
    """Where a mask stands among random masks of its size.

    Attributes:
        rank: 1 is best, by the mean over seeds; one that is as good stands before the mask.
        twins: random masks that have all of `seeds`.
        p: chance of so good a rank, were the mask itself one more random draw: rank / (1 + twins).
        by_seed: rank of each seed alone.
        difference: the mask minus the mean of its twins, paired by seed.
    """

    rank: int
    twins: int
    p: float
    by_seed: dict[int, int]
    difference: Mean


def rank_among(own: Values, twins: Sequence[Values], *, better: str) -> Rank | None:
    """The rank of a mask's mean over the seeds that it and all twins have; None where they share none.

    A twin that has no seed (all its trainings failed) is left out, which makes p larger if anything.

    Args:
        better: `lower` or `higher`.

    Source: Phipson and Smyth 2010 (Permutation p-values should never be zero), eq. 2.
    """
    sign = 1.0 if better == "lower" else -1.0
    there = [twin for twin in twins if twin]
    seeds = sorted(set(own).intersection(*there))
    if not seeds or not there:
        return None
    others = sign * np.array([[twin[seed] for seed in seeds] for twin in there])
    mine = sign * np.array([own[seed] for seed in seeds])
    ranks = 1 + (others <= mine).sum(axis=0)
    rank = 1 + int((others.mean(axis=1) <= mine.mean()).sum())
    return Rank(
        rank=rank,
        twins=len(there),
        p=rank / (1 + len(there)),
        by_seed={seed: int(one) for seed, one in zip(seeds, ranks, strict=True)},
        difference=mean_over_seeds(sign * (mine - others.mean(axis=0))),
    )


def ahead_in_all(
    own: Mapping[str, Values], twins: Sequence[Mapping[str, Values]], better: Mapping[str, str]
) -> int | None:
    """How many twins are at least as good in every score of `better`; None without seeds that all have.

    By means over seeds; a twin that has no seed is left out.
    """
    there = [twin for twin in twins if all(twin.values())]
    seeds = set.intersection(*(set(values) for scores in (own, *there) for values in scores.values()))
    if not seeds or not there:
        return None
    signs = {name: 1.0 if way == "lower" else -1.0 for name, way in better.items()}

    def means(scores: Mapping[str, Values]) -> NDArray[np.float64]:
        return np.array([signs[name] * np.mean([scores[name][seed] for seed in seeds]) for name in better])

    return sum(bool(np.all(means(twin) <= means(own))) for twin in there)


@dataclass(frozen=True)
class EqualFidelity:
    """A mask beside full fine-tuning where that is as good.

    Attributes:
        case: `equal`; `beyond` where full fine-tuning was never so good, and its best stands here; `short` where it is
            better at every point that nothing beats, and the nearest of these stands here.
        shares: of full fine-tuning's rows, in what stands here.
        full: its value there.
        difference: the mask's value minus that, paired by seed.
    """

    case: Case
    shares: dict[str, float]
    full: Mean
    difference: Mean


def at_equal_fidelity(
    own: Mapping[str, Values],
    curve: Mapping[str, Mapping[str, Values]],
    names: tuple[str, str],
    better: tuple[str, str],
) -> EqualFidelity | None:
    """A mask's second score against full fine-tuning's where the two have one first score; None without shared seeds.

    A mask that is trained less copies less, so that its copying means something only beside that of full fine-tuning
    when it was as good. Where that is lies by the means over seeds: between which two lengths or rates, and in which
    shares. The same shares of each seed's values then give a paired difference, whose interval takes them as given: it
    does not cover that the means of the first score are uncertain too.

    Args:
        own: score -> values of the mask.
        curve: row -> score -> values of full fine-tuning.
        names: the score to be equal in, and the one to compare.
        better: `lower` or `higher` for both.
    """
    rows = {row: scores for row, scores in curve.items() if scores.get(names[1])}
    seeds = sorted(set(own.get(names[1], ())).intersection(*(scores[names[1]] for scores in rows.values())))
    if not rows or not seeds:
        return None
    signs = np.array([1.0 if way == "lower" else -1.0 for way in better])
    points = signs * np.array(
        [[np.mean([scores[name][seed] for seed in seeds]) for name in names] for scores in rows.values()]
    )
    fidelity = float(signs[0] * np.mean([own[names[0]][seed] for seed in seeds]))
    case, shares = weights_at(points, fidelity)
    full = {seed: float(shares @ np.array([scores[names[1]][seed] for scores in rows.values()])) for seed in seeds}
    difference = paired_difference({seed: own[names[1]][seed] for seed in seeds}, full)
    if difference is None:
        return None
    chosen = {row: float(share) for row, share in zip(rows, shares, strict=True) if share}
    return EqualFidelity(case, chosen, mean_over_seeds(list(full.values())), difference)
