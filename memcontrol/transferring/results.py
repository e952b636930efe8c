"""What a transfer writes: for each mask its differences to every reference, its rank, and equal fidelity, as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from optuna.trial import TrialState

from memcontrol.comparison.intervals import paired_difference
from memcontrol.comparison.ledger import CellLedger
from memcontrol.comparison.methods import FREEZE, FULL
from memcontrol.comparison.results import ComparisonFolder, Told, document_of
from memcontrol.exporting import fidelity_then_copying
from memcontrol.score import direction
from memcontrol.transferring.config import TransferConfig
from memcontrol.transferring.ranks import Values, ahead_in_all, at_equal_fidelity, rank_among
from memcontrol.transferring.rows import Row, Rows

SCHEMA = "memcontrol/transfer@1"
Scores = Mapping[str, Values]
"""Score -> seed -> value."""


@dataclass(frozen=True)
class TransferFolder(ComparisonFolder):
    """The files of one transfer."""

    schema: ClassVar[str] = SCHEMA

    @property
    def document(self) -> Path:
        """All that came of it, as JSON."""
        return self.path / "transfer.json"

    @property
    def table(self) -> Path:
        """A line for each mask, score and reference, as CSV."""
        return self.path / "transfer.csv"

    @property
    def markdown(self) -> Path:
        """The tables and what they say, as Markdown."""
        return self.path / "transfer.md"

    @property
    def chart(self) -> Path:
        """Each mask among its random twins, drawn."""
        return self.path / "transfer.png"

    def carried_mask(self, name: str) -> Path:
        """A mask as it was trained on the target."""
        return self.path / "masks" / f"{name}.json"


def transfer_document(config: TransferConfig, rows: Rows, ledger: CellLedger, told: Told) -> dict[str, Any]:
    """The content of `transfer.json`: every row as in a comparison, and what each mask is beside the others."""
    document = document_of(config, ledger, rows.cells, told)
    known = {row.name: row for row in rows.rows}
    values = _values(ledger, rows, told.names)
    objectives = fidelity_then_copying(config.scoring.objectives)
    return document | {
        "schema": SCHEMA,
        "objectives": objectives,
        "random": config.random,
        "map": config.map,
        "cells": [row | _what(known[row["name"]], config.tuning.steps) for row in document["cells"]],
        "masks": [_mask(name, rows, values, objectives, told.names) for name in rows.named("mask")],
    }


def _what(row: Row, steps: int) -> dict[str, Any]:
    """What a row is there for, and what it trains."""
    recipe = row.recipe
    return {
        "role": row.role,
        "of": row.of,
        "steps": 0 if row.role == FREEZE else recipe.steps or steps,
        "bits": None if recipe.mask is None else recipe.mask.key,
    }


def _values(ledger: CellLedger, rows: Rows, names: tuple[str, ...]) -> dict[str, dict[str, dict[int, float]]]:
    """Row -> score -> seed -> value, of what completed."""
    found: dict[str, dict[str, dict[int, float]]] = {row.name: {name: {} for name in names} for row in rows.rows}
    for (row, seed), trial in ledger.latest().items():
        if trial.state == TrialState.COMPLETE:
            for name in names:
                found[row][name][seed] = float(trial.user_attrs["scores"][name]["value"])
    return found


def _mask(
    name: str, rows: Rows, values: Mapping[str, Scores], objectives: list[str], names: tuple[str, ...]
) -> dict[str, Any]:
    """A mask beside everything that it is compared with."""
    carried, twins = rows.carried[name], rows.named("random", of=name)
    references = {"full": FULL, "untuned": FREEZE}
    references |= {"all groups": rows.whole[name]} if name in rows.whole else {}
    references |= {target: target for target in rows.named("target")}
    first, *others = objectives
    curve = {row: values[row] for row in rows.named("full")}
    minuses = {what: _minus(values[name], values[row], names) for what, row in references.items()}
    return {
        "name": name,
        "how": carried.how,
        "sources": dict(carried.sources),
        "unused": list(carried.unused),
        "found": {
            key: carried.mask.provenance[key] for key in ("data", "run", "steps") if key in carried.mask.provenance
        },
        "rows": references,
        "minus": minuses,
        "random": {
            score: _rank(values[name][score], [values[twin][score] for twin in twins], score) for score in names
        },
        "ahead_in_all": ahead_in_all(
            {score: values[name][score] for score in objectives},
            [{score: values[twin][score] for score in objectives} for twin in twins],
            {score: direction(score) for score in objectives},
        ),
        "equal_fidelity": {other: _equal_fidelity(values[name], curve, first, other) for other in others},
    }


def _equal_fidelity(own: Scores, curve: Mapping[str, Scores], first: str, other: str) -> dict[str, Any] | None:
    """A mask's other score beside full fine-tuning's where the two have one first score; None without shared seeds."""
    found = at_equal_fidelity(own, curve, (first, other), (direction(first), direction(other)))
    if found is None:
        return None
    return {
        "case": found.case,
        "fidelity": first,
        "shares": found.shares,
        "full": found.full.to_json(),
        "difference": found.difference.to_json(),
    }


def _rank(own: Values, twins: Sequence[Values], score: str) -> dict[str, Any] | None:
    """Where a mask stands among its random masks in one score; None without shared seeds."""
    found = rank_among(own, twins, better=direction(score))
    return None if found is None else asdict(found) | {"difference": found.difference.to_json()}


def _minus(own: Scores, other: Scores, names: tuple[str, ...]) -> dict[str, Any]:
    """The mask minus a reference, for each score that they share seeds of."""
    differences = {score: paired_difference(own[score], other[score]) for score in names}
    return {score: mean.to_json() for score, mean in differences.items() if mean is not None}
