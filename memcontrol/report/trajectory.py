"""A mask against full fine-tuning's trajectory: what each gives at equal fidelity, and whether that is noise.

A mask that is merely trained less copies less as well, so a mask's copying means something only beside that of full
fine-tuning when it was as good. The first objective stands for fidelity, and each other one is compared in turn.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from memcontrol.study.front import minimised_points, weights_at

Floats = NDArray[np.float64]
Case = Literal["equal", "beyond", "short", "best"]
Verdict = Literal["better", "worse", "within noise"]


def at_equal_fidelity(trajectory_points: ArrayLike, fidelity: float) -> float | None:
    """What full fine-tuning has in the second objective where its first is `fidelity`.

    Between neighbouring Pareto points of all its steps and rates, along a straight line, which is generous to
    full fine-tuning: no one trained it to a point between.

    Args:
        trajectory_points: `(N, 2)`, both objectives to be minimised.
        fidelity: value of the first.
    Returns:
        None where `fidelity` is outside the Pareto points' range.
    """
    points = np.asarray(trajectory_points, dtype=np.float64).reshape(-1, 2)
    if not len(points):
        return None
    case, weights = weights_at(points, fidelity)
    return float(weights @ points[:, 1]) if case == "equal" else None


@dataclass(frozen=True)
class Reading:
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, scored: dict[str, Any], name: str) -> Reading:
        """A score of a front member or of a reference point."""
        score = scored["scores"][name]
        return cls(score["value"], score["low"], score["high"])


@dataclass(frozen=True)
class Comparison:
    """One objective of a mask against full fine-tuning.

    Attributes:
        objective: its name; values are in its own direction.
        case: `equal` where full fine-tuning has the mask's first objective; `beyond` where it never got so far, so its
            best of the first objective stands here; `short` where its Pareto points all have a better first objective,
            so the nearest of them stands here; `best` for the first objective itself, against its best.
        first: full fine-tuning's first objective there.
        full: its value of `objective` there.
        difference: the mask's value minus `full`.
        verdict: on the mask; within noise where the two intervals overlap. The first objective's interval is not used.
        interpolated: whether `full` lies between two points that were scored.
    """

    objective: str
    case: Case
    first: float
    full: float
    difference: float
    verdict: Verdict
    interpolated: bool = False


def trajectory(front: dict[str, Any]) -> list[dict[str, Any]]:
    """Every training of full fine-tuning, for all rates and steps, from the content of `front.json`."""
    return [point for points in front["references"].values() for point in points if point["learning_rate"] is not None]


def untuned(front: dict[str, Any]) -> dict[str, Any] | None:
    """The scores of the model as it was."""
    found = (point for points in front["references"].values() for point in points if point["learning_rate"] is None)
    return next(found, None)


def compare(front: dict[str, Any], member: dict[str, Any]) -> list[Comparison]:
    """A front member against full fine-tuning: its first objective, then each other at an equal first.

    Args:
        front: the content of `front.json`; nothing comes back where it holds no trajectory.
    """
    scored = trajectory(front)
    if not scored:
        return []
    first, *others = front["objectives"]
    best = Reading.of(scored[int(np.argmin(minimised_points(scored, [first])[:, 0]))], first["name"])
    return [
        _comparison(first, "best", best.value, best, member),
        *(_beside(scored, member, first, other) for other in others),
    ]


def _beside(
    scored: list[dict[str, Any]], member: dict[str, Any], first: dict[str, str], other: dict[str, str]
) -> Comparison:
    points = minimised_points(scored, [first, other])
    fidelity = float(minimised_points([member], [first])[0, 0])
    case, shares = weights_at(points, fidelity)
    there = [(share, scored[i]) for i, share in enumerate(shares) if share]
    if case != "equal":
        [(_, end)] = there
        return _comparison(other, case, Reading.of(end, first["name"]).value, Reading.of(end, other["name"]), member)
    readings = [(share, Reading.of(point, other["name"])) for share, point in there]
    full = Reading(
        *(
            float(sum(share * getattr(reading, part) for share, reading in readings))
            for part in ("value", "low", "high")
        )
    )
    compared = _comparison(other, case, Reading.of(member, first["name"]).value, full, member)
    return replace(compared, interpolated=len(there) > 1)


def _comparison(
    objective: dict[str, str], case: Case, first: float, full: Reading, member: dict[str, Any]
) -> Comparison:
    name = objective["name"]
    own = Reading.of(member, name)
    verdict: Verdict = "better" if (own.value < full.value) == (objective["better"] == "lower") else "worse"
    if own.low <= full.high and full.low <= own.high:
        verdict = "within noise"
    return Comparison(name, case, first, full.value, own.value - full.value, verdict)
