"""The front of a search that still runs, and how it grew, from its table of trials and its references."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memcontrol.run import RunFolder
from memcontrol.run_documents import ReferenceFile, ReferencePoint
from memcontrol.score import direction
from memcontrol.study.front import hypervolume

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Standing:
    """Where a search stands.

    Attributes:
        front: rows of `trials.csv` that no other dominates, by the first objective.
        points, others, full: `(N, M)` objectives of the front, of the other completed trials, and of full fine-tuning.
        volumes: hypervolume after each completed trial, in order of their numbers; none before there is a reference.
        grew: number of the trial that last added to it.
    """

    front: Sequence[dict[str, str]]
    points: Floats
    others: Floats
    full: Floats
    volumes: Sequence[float]
    grew: int | None


def standing(
    rows: Sequence[dict[str, str]], references: Sequence[ReferencePoint], objectives: Sequence[str]
) -> Standing:
    """The front and its hypervolume over the trials, below the worst of the references in each objective.

    Args:
        rows: of `trials.csv`; those that did not complete, or lack an objective, are left out.
        references: those that lack an objective are left out.
    """
    # A folder may hold a study of other objectives until the search has refused it.
    known = [row for row in rows if row["state"] == "complete" and all(row.get(name) for name in objectives)]
    known = sorted(known, key=lambda row: int(row["number"]))
    points = _table([[float(row[name]) for name in objectives] for row in known], objectives)
    scored = [point for point in references if point.scores.keys() >= set(objectives)]
    full = [point for point in scored if point.learning_rate is not None]
    signs = np.array([1.0 if direction(name) == "lower" else -1.0 for name in objectives])
    worst = (_values(scored, objectives) * signs).max(axis=0) if scored else None
    front, volumes, grew = _grown(points * signs, worst)
    return Standing(
        [known[i] for i in front],
        points[front],
        np.delete(points, front, axis=0),
        _values(full, objectives),
        volumes,
        None if grew is None else int(known[grew]["number"]),
    )


def reference_points(folder: RunFolder) -> list[ReferencePoint]:
    """Every point of the references that were scored so far."""
    points = list[ReferencePoint]()
    for path in sorted(folder.references.glob("*.json")):
        try:
            points += ReferenceFile.model_validate_json(path.read_bytes()).points
        except (OSError, ValueError):  # the search itself says what is wrong with it
            continue
    return points


def _grown(points: Floats, worst: Floats | None) -> tuple[list[int], list[float], int | None]:
    """Positions on the front of `(N, M)` points to be minimised, its volume after each, and which last added to it."""
    front, volumes, grew, volume = list[int](), list[float](), None, 0.0
    for i, point in enumerate(points):
        if not np.any(_dominates(points[front], point)):
            front = [*(one for one in front if not _dominates(point, points[one])), i]
            if worst is not None and (now := hypervolume(points[front], worst)) > volume:
                volume, grew = now, i
        if worst is not None:
            volumes.append(volume)
    return sorted(front, key=lambda i: tuple(points[i])), volumes, grew


def _dominates(left: Floats, right: Floats) -> NDArray[np.bool_]:
    return np.all(left <= right, axis=-1) & np.any(left < right, axis=-1)  # type: ignore[no-any-return]


def _values(points: Sequence[ReferencePoint], objectives: Sequence[str]) -> Floats:
    return _table([[point.scores[name].value for name in objectives] for point in points], objectives)


def _table(values: Sequence[Sequence[float]], objectives: Sequence[str]) -> Floats:
    return np.array(values, dtype=np.float64).reshape(-1, len(objectives))
