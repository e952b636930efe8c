"""Confirmed scores beside a front's search scores: which belong to it, and what they say of who dominates whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from memcontrol.errors import RunError
from memcontrol.run import RunFolder, read_document
from memcontrol.run_documents import ConfirmationDocument

SCHEMA = "memcontrol/confirmation@1"
Kind = Literal["front", "full", "random"]
FRONT: Kind = "front"
FULL: Kind = "full"
RANDOM: Kind = "random"
"""What a row of a confirmation is: a member of the front, full fine-tuning, or a random mask of a member's size."""


def read_confirmation(folder: RunFolder) -> dict[str, Any] | None:
    """The content of a run's `confirmation/confirmation.json`; None where nothing was confirmed.

    Raises:
        RunError: it is not one of this program's.
    """
    path = folder.confirmation / "confirmation.json"
    if not path.is_file():
        return None
    try:
        return read_document(path, SCHEMA, ConfirmationDocument)
    except RunError as error:
        raise RunError(f"{error}; move {folder.confirmation} away to confirm anew") from error


def with_confirmed(front: Mapping[str, Any], confirmation: Mapping[str, Any] | None) -> dict[str, Any]:
    """A front's content with the confirmed scores of its members, and of what they are compared with.

    A member that a row of the confirmation dominates is marked, by the means over the seeds that both have.

    Args:
        front: the content of `front.json`, confirmed or not.
        confirmation: of the same folder; rows of masks that are not on this front are left out.
    """
    belongs = confirmation is not None and _belongs(confirmation, front)
    rows: list[Mapping[str, Any]] = [row for row in confirmation["rows"] if row["seeds"]] if confirmation else []
    own = [_row_of(member, rows) if belongs else None for member in front["front"]]
    trials = {row["trial"] for row in own if row is not None}
    present = [row for row in own if row is not None]
    others = [row for row in rows if row["kind"] == FULL or (row["kind"] == RANDOM and row["trial"] in trials)]
    compared = [*present, *others]
    members = [
        dict(member) | _marks(row, compared, front["objectives"])
        for member, row in zip(front["front"], own, strict=True)
    ]
    section: dict[str, Any] | None = None
    if confirmation is not None and present:
        facts = ("seeds", "held_out", "scores", "confidence", "failed")
        section = {key: confirmation[key] for key in facts} | {"rows": [dict(row) for row in others]}
    return dict(front) | {"front": members, "confirmation": section}


def _belongs(confirmation: Mapping[str, Any], front: Mapping[str, Any]) -> bool:
    """Whether a confirmation is of this run, and scored what the front is of."""
    scored = {name for row in confirmation["rows"] if row["seeds"] for name in row["scores"]}
    wanted = {objective["name"] for objective in front["objectives"]}
    return bool(confirmation["run"]["seed"] == front["seed"]) and (not scored or wanted <= scored)


def _row_of(member: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    same = ("trial", "bits", "learning_rate", "steps")
    found = (row for row in rows if row["kind"] == FRONT and all(row[key] == member[key] for key in same))
    return next(found, None)


def _marks(
    row: Mapping[str, Any] | None, compared: Sequence[Mapping[str, Any]], objectives: Sequence[Mapping[str, str]]
) -> dict[str, Any]:
    if row is None:
        return {"confirmed": None, "dominated_after_confirmation": None, "dominated_by": []}
    above = [other["name"] for other in compared if other is not row and _dominates(other, row, objectives)]
    confirmed = {"seeds": row["seeds"], "scores": row["scores"]}
    return {"confirmed": confirmed, "dominated_after_confirmation": bool(above), "dominated_by": above}


def _dominates(one: Mapping[str, Any], other: Mapping[str, Any], objectives: Sequence[Mapping[str, str]]) -> bool:
    """Whether one row is at least as good in every objective and better in one."""
    shared = sorted(set(one["seeds"]) & set(other["seeds"]))
    if not shared:
        return False
    ahead = [
        (_mean(other, objective["name"], shared) - _mean(one, objective["name"], shared))
        * (1 if objective["better"] == "lower" else -1)
        for objective in objectives
    ]
    return min(ahead) >= 0 and max(ahead) > 0


def _mean(row: Mapping[str, Any], name: str, seeds: Sequence[int]) -> float:
    values = dict(zip(row["seeds"], row["scores"][name]["values"], strict=True))
    return float(np.mean([values[seed] for seed in seeds]))
