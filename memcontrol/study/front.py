"""Pareto fronts: which scored points no other dominates, their hypervolume, and three ways to pick one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from memcontrol.errors import MemControlError, nearest_names

Case = Literal["equal", "beyond", "short"]
PICKS = ("knee", "best-fidelity", "least-copied", "all")


def minimised_points(
    scored: Sequence[Mapping[str, Any]], objectives: Sequence[Mapping[str, str]]
) -> NDArray[np.float64]:
    """`(N, M)` values of the objectives, negated where higher is better, of what `front.json` holds scores of.

    Args:
        scored: each with `scores`: name -> `value`.
        objectives: each with `name` and `better`.
    """
    signs = [1.0 if objective["better"] == "lower" else -1.0 for objective in objectives]
    values = [[point["scores"][objective["name"]]["value"] for objective in objectives] for point in scored]
    return np.array(values, dtype=np.float64).reshape(-1, len(objectives)) * signs


def front_positions(points: NDArray[np.float64]) -> list[int]:
    """Positions of rows of `(N, M)` points, to be minimised, that no row dominates; sorted by the first objective."""
    kept = [
        i
        for i, point in enumerate(points)
        if not any(np.all(other <= point) and np.any(other < point) for other in points)
    ]
    return sorted(kept, key=lambda i: tuple(points[i]))


def front_places(points: NDArray[np.float64]) -> NDArray[np.intp]:
    """Places of the rows of `(N, M)` points, M at most 2, that no row dominates, by the first column; equal rows once.

    Of one objective that is the least row. For long histories: it sorts, where `front_positions` compares all pairs.
    """
    second = points[:, -1]
    order = np.lexsort((second, points[:, 0]))
    ordered = second[order] if points.shape[1] > 1 else np.arange(len(points), dtype=np.float64)
    kept: NDArray[np.intp] = order[np.append(True, ordered[1:] < np.minimum.accumulate(ordered)[:-1])]
    return kept


def weights_at(points: NDArray[np.float64], fidelity: float) -> tuple[Case, NDArray[np.float64]]:
    """Where on a trajectory a first objective of `fidelity` lies: shares `(N,)` of its `(N, 2)` points, sum 1.

    Between neighbouring Pareto points the shares are those of a straight line, which is generous to the trajectory: no
    one trained it to a point between.

    Args:
        points: at least one, both objectives to be minimised.
    Returns:
        `equal`; or `beyond` where no point has so good a first objective, with the best of them; or `short` where all
        Pareto points have a better one, with the nearest of them.
    """
    kept, weights = front_positions(points), np.zeros(len(points))
    first = points[kept, 0]
    weights[kept] = [np.interp(fidelity, first, one) for one in np.eye(len(kept))]
    return "beyond" if fidelity < first[0] else "short" if fidelity > first[-1] else "equal", weights


def hypervolume(points: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
    """Volume that `(N, M)` points to be minimised dominate below a reference point `(M,)`.

    By slicing along the last objective: exact, and quick enough for fronts of some hundred points in few objectives.
    """
    inside = points[np.all(points < reference, axis=1)]
    if not len(inside):
        return 0.0
    if inside.shape[1] == 1:
        return float(reference[0] - inside.min())
    levels = np.append(np.unique(inside[:, -1]), reference[-1])
    return sum(
        float(upper - lower) * hypervolume(inside[inside[:, -1] <= lower, :-1], reference[:-1])
        for lower, upper in pairwise(levels)
    )


def picked(points: NDArray[np.float64], pick: str) -> list[int]:
    """Positions of a front `(N, M)`, to be minimised, that a pick names.

    `knee` is the point farthest below the straight line between the front's two ends, with each objective scaled to
    0 to 1 over the front; `best-fidelity` and `least-copied` are least in the first and in the second objective.

    Raises:
        MemControlError: no such pick, or `least-copied` of a front with one objective.
    """
    if pick not in PICKS:
        raise MemControlError(f"unknown pick {pick!r}: {nearest_names(pick, PICKS)}")
    if pick == "all":
        return list(range(len(points)))
    if pick == "best-fidelity":
        return [_least(points, 0)]
    if pick == "least-copied":
        if points.shape[1] < 2:
            raise MemControlError("least-copied goes by a second objective, and this front has one: pick best-fidelity")
        return [_least(points, 1)]
    span = np.ptp(points, axis=0)
    scaled = (points - points.min(axis=0)) / np.where(span > 0, span, 1.0)
    return [int(np.argmin(scaled.sum(axis=1)))]


def _least(points: NDArray[np.float64], objective: int) -> int:
    order: Sequence[int] = sorted(range(len(points)), key=lambda i: (points[i, objective], tuple(points[i])))
    return order[0]
