"""Which candidates stop early: what each scored at a rung, a share of its steps, against what others scored there.

Fronts are peeled off one after another, and within a front those in the emptier parts come first. As in the
asynchronous rule, a candidate is judged when it reaches a rung, against those that reached it before.

Source: MO-ASHA (Schmucker et al. 2021, arXiv 2106.12639); non-dominated sorting and crowding as in NSGA-II (Deb et al.
2002, 10.1109/4235.996017).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from memcontrol.score import Score

Floats = NDArray[np.float64]
Key = tuple[float, int]
"""A rung: its share of the steps, and its number of images."""
RUNGS = "rungs"
"""A trial's attribute: the records of the rungs that it reached, in order."""

LEAST_LOOKS = 4
"""Checkpoints that must have been scored by all images at a rung before it is foreseen what another would score."""

CHECKPOINTS = "checkpoints"
"""A trial's attribute: its checkpoints that were scored by all images, each `steps`, `of` how many, and `scores`."""


@dataclass(frozen=True)
class Record:
    """What a candidate scored at a rung.

    Attributes:
        share: of the steps, the rung's.
        images: sampled there.
        steps: done there.
        of: steps of the whole training.
        values: of the objectives, in their order.
        goes_on: whether the candidate went on.
    """

    share: float
    images: int
    steps: int
    of: int
    values: tuple[float, ...]
    goes_on: bool

    @property
    def key(self) -> Key:
        """The rung; only what was scored at the same one is compared."""
        return self.share, self.images

    @property
    def text(self) -> str:
        """What became of a candidate that did not go on."""
        return f"pruned at {self.steps:,} of {self.of:,} steps"


def records(attributes: Mapping[str, Any]) -> list[Record]:
    """The records among a trial's attributes, in the order of its rungs."""
    return [Record(**{**content, "values": tuple(content["values"])}) for content in attributes.get(RUNGS, [])]


@dataclass(frozen=True)
class Judgement:
    """How candidates are judged.

    Attributes:
        eta: those among the best 1/eta go on; 1 lets all go on.
        minimum: so many others must have been scored at a rung before it stops a candidate.
        margin: a candidate is given its objectives better than measured by so many half-widths of their intervals.
    """

    eta: float = 2.0
    minimum: int = 8
    margin: float = 0.0

    def goes_on(self, own: Sequence[Score], others: Floats) -> bool:
        """Whether a candidate is among the best 1/eta, rounded up, of itself and the others.

        Of candidates that sorting and crowding leave equal, none stands before another.

        Args:
            own: its objectives.
            others: `(N, M)` of those that reached the rung before, to be minimised.
        """
        if len(others) < self.minimum:
            return True
        points = np.vstack([others, [hopeful(score, self.margin) for score in own]])
        return int(places(points)[-1]) < math.ceil(len(points) / self.eta)


def hopeful(score: Score, margin: float) -> float:
    """A score to be minimised, better than measured by `margin` half-widths of its interval on that side."""
    if score.better == "lower":
        return score.value - margin * (score.value - score.low)
    return -(score.value + margin * (score.high - score.value))


def undominated(own: Sequence[float], others: Floats) -> bool:
    """Whether none of `(N, M)` others, to be minimised, dominates a point."""
    point = np.asarray(own)
    return not bool(np.any(np.all(others <= point, axis=1) & np.any(others < point, axis=1)))


def places(points: Floats) -> NDArray[np.int64]:
    """`(N,)` how many of `(N, M)` points, to be minimised, stand before each: in an earlier front, or less crowded."""
    fronts = front_numbers(points)
    room = crowding(points, fronts)
    before = fronts[:, None] < fronts
    before |= (fronts[:, None] == fronts) & (room[:, None] > room)
    found: NDArray[np.int64] = before.sum(axis=0)
    return found


def front_numbers(points: Floats) -> NDArray[np.int64]:
    """`(N,)`: 0 for points that none dominates, 1 for those that only points of front 0 dominate, and so on."""
    ahead = np.ones((len(points), len(points)), dtype=bool)
    better = np.zeros_like(ahead)
    for values in points.T:
        ahead &= values[:, None] <= values
        better |= values[:, None] < values
    ahead &= better
    fronts = np.full(len(points), -1, dtype=np.int64)
    number = 0
    while (left := fronts < 0).any():
        fronts[left & ~ahead[left].any(axis=0)] = number
        number += 1
    return fronts


def crowding(points: Floats, fronts: NDArray[np.int64]) -> Floats:
    """`(N,)` crowding distances within each front; infinite at a front's ends, and equal for equal points.

    Objectives are taken as their ranks among all points. Fréchet distances span decades, in which one untuned model
    would make all others neighbours, and copying gaps are often equal; ranks need no scale, so that a distance and its
    logarithm give the same order.
    """
    ranks = np.stack([np.unique(values, return_inverse=True)[1] for values in points.T], axis=1)
    spans = np.maximum(1, ranks.max(axis=0))
    room = np.empty(len(points))
    for number in np.unique(fronts):
        own = np.flatnonzero(fronts == number)
        distinct, back = np.unique(ranks[own], axis=0, return_inverse=True)
        room[own] = _distances(distinct / spans)[back.reshape(-1)]
    return room


def _distances(points: Floats) -> Floats:
    """Of each of the distinct points of one front: the sum over objectives from the next lower to the next higher."""
    total = np.zeros(len(points))
    for values in points.T:
        levels = np.unique(values)
        at = np.searchsorted(levels, values)
        inside = (at > 0) & (at < len(levels) - 1)
        total[~inside] = np.inf
        total[inside] += levels[at[inside] + 1] - levels[at[inside] - 1]
    return total


def foreseen(reached: Floats, pairs: Sequence[tuple[Floats, Floats]], logarithmic: Sequence[bool]) -> Floats | None:
    """What a pruned candidate would have scored in the end, for a sampler to learn from; None where nothing says.

    Each objective goes along its own straight line, which never falls, through what candidates that were not pruned
    scored at the same rung and in the end.

    Args:
        reached: `(M,)` at the rung.
        pairs: of others, `(M,)` at the rung and in the end.
        logarithmic: for each objective whether the line is one of logarithms; not where a value is not positive.
    """
    if not pairs:
        return None
    early, late = (np.array([pair[side] for pair in pairs]) for side in (0, 1))
    lines = zip(reached, early.T, late.T, logarithmic, strict=True)
    return np.array([_along(at, before, after, log=log) for at, before, after, log in lines])


def _along(at: float, before: Floats, after: Floats, *, log: bool) -> float:
    if log and min(at, before.min(), after.min()) > 0:
        return math.exp(_along(math.log(at), np.log(before), np.log(after), log=False))
    spread = float(((before - before.mean()) ** 2).sum())
    if spread == 0:
        return float(after.mean() + at - before.mean())
    slope = float(((before - before.mean()) * (after - after.mean())).sum()) / spread
    return float(after.mean() + max(0.0, slope) * (at - before.mean()))


def may_stand(
    own: Floats,
    others: Floats,
    looks: Sequence[tuple[Floats, Floats]],
    known: Floats,
    *,
    logarithmic: Sequence[bool],
    signs: Floats,
) -> bool:
    """Whether a checkpoint may stand on the front, as far as a rung's few images say: only then all are sampled.

    At its rung nothing dominates it, and as soon as enough checkpoints there were scored by all images, nothing that
    was so scored dominates what it is foreseen to score.

    Args:
        own: `(M,)` at the rung.
        others: `(N, M)` of other candidates at the rung.
        looks: of others, `(M,)` at the rung by its images and by all.
        known: `(K, M)` of everything that was scored by all images, ends and checkpoints.
        logarithmic: as in `foreseen`.
        signs: `(M,)`: 1 for objectives that are minimised, -1 for the others.
    """
    if not undominated((own * signs).tolist(), others * signs):
        return False
    expected = foreseen(own, looks, logarithmic) if len(looks) >= LEAST_LOOKS else None
    return expected is None or undominated((expected * signs).tolist(), known * signs)


def at_rung(known: Iterable[Sequence[Record]], key: Key) -> list[Record]:
    """The records of one rung among those of several trials."""
    return [record for own in known for record in own if record.key == key]
