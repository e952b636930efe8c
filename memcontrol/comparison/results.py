"""What a comparison writes: a line for every row and seed as CSV, and the papers' table as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from optuna.trial import FrozenTrial, TrialState

from memcontrol.comparison.cells import FULL_ALONE, Cell
from memcontrol.comparison.config import ComparisonConfig, RowsConfig
from memcontrol.comparison.intervals import CONFIDENCE, mean_over_seeds, paired_difference
from memcontrol.comparison.ledger import CellLedger
from memcontrol.errors import MemControlError, RunError, nearest_names
from memcontrol.run import RunFolder, read_document
from memcontrol.score import direction
from memcontrol.study.shared import was_interrupted

SCHEMA = "memcontrol/comparison@1"


@dataclass(frozen=True)
class ComparisonFolder(RunFolder):
    """The files of one comparison; those of a search that it has too have the same names.

    Attributes:
        schema: of its document.
    """

    schema: ClassVar[str] = SCHEMA

    @property
    def results(self) -> Path:
        """Every row and seed with all scores, as CSV."""
        return self.path / "results.csv"

    @property
    def document(self) -> Path:
        """The table, as JSON."""
        return self.path / "comparison.json"

    @property
    def table(self) -> Path:
        """The table as CSV, a line for each row and score."""
        return self.path / "table.csv"

    @property
    def markdown(self) -> Path:
        """The table as Markdown."""
        return self.path / "table.md"

    @property
    def chart(self) -> Path:
        """The table, drawn."""
        return self.path / "comparison.png"

    def read(self) -> dict[str, Any]:
        """The content of its document.

        Raises:
            RunError: there is none, or it is not one of this program's.
        """
        if not self.document.is_file():
            raise RunError(f"no {self.document.name} in {self.path}: name the folder of one that has begun")
        return read_document(self.document, self.schema)


@dataclass(frozen=True)
class Told:
    """What the results say besides scores.

    Attributes:
        names: all scores, in their order.
        unet_numel: numbers in the whole U-Net.
        data: name of the data set and number of training images.
    """

    names: tuple[str, ...]
    unet_numel: int
    data: Mapping[str, Any]


def shown_columns(config: ComparisonConfig, names: Sequence[str]) -> tuple[str, ...]:
    """The scores that tables show.

    Raises:
        MemControlError: one that is not measured.
    """
    for name in config.columns or ():
        if name not in names:
            raise MemControlError(f"column {name} is not measured here: {nearest_names(name, names)}")
    return config.columns or tuple(names)


def write_results(ledger: CellLedger, cells: Sequence[Cell], told: Told, folder: ComparisonFolder) -> None:
    """Write `results.csv`, a line for every row and seed in any state, in order of seeds."""
    latest, by_name = ledger.latest(), {cell.name: cell for cell in cells}
    lines = [_line(by_name[name], seed, latest.get((name, seed)), told) for name, seed in ledger.keys]
    facts = ("cell", "method", "mitigation", "seed", "state", "learning_rate", "numel", "percent", "steps", "loss")
    folder.write_table(folder.results, [*facts, *told.names, "seconds", "worker", "trial", "error"], lines)


def _line(cell: Cell, seed: int, trial: FrozenTrial | None, told: Told) -> dict[str, Any]:
    line: dict[str, Any] = {
        "cell": cell.name,
        "method": cell.recipe.name,
        "mitigation": cell.mitigation,
        "seed": seed,
        "state": _state(trial),
        "learning_rate": "" if cell.recipe.rate is None else cell.recipe.rate,
    }
    if trial is None:
        return line
    kept = ("numel", "steps", "loss", "seconds", "worker", "error")
    line |= {key: trial.user_attrs.get(key, "") for key in kept} | {"trial": trial.number}
    if trial.state == TrialState.COMPLETE:
        line["percent"] = 100 * int(line["numel"]) / told.unet_numel
        line |= {name: trial.user_attrs["scores"][name]["value"] for name in told.names}
    return line


def _state(trial: FrozenTrial | None) -> str:
    if trial is None:
        return "waiting"
    return "interrupted" if was_interrupted(trial) else trial.state.name.lower()


def document_of(config: RowsConfig, ledger: CellLedger, cells: Sequence[Cell], told: Told) -> dict[str, Any]:
    """The content of `comparison.json`: for each row and score the mean over seeds, and minus full fine-tuning's."""
    latest = ledger.latest()
    done = {
        cell.name: {
            seed: latest[cell.name, seed]
            for seed in config.seeds
            if (cell.name, seed) in latest and latest[cell.name, seed].state == TrialState.COMPLETE
        }
        for cell in cells
    }
    drawn = {seed: ledger.study.user_attrs.get(f"data {seed}") for seed in config.seeds}
    known = [content for content in drawn.values() if content is not None]
    return {
        "schema": SCHEMA,
        "data": dict(told.data) | {"drawn_anew": len(known) < 2 or len(set(known)) == len(known)},
        "model": config.model,
        "steps": config.tuning.steps,
        "images": config.sampling.images,
        "seeds": list(config.seeds),
        "confidence": CONFIDENCE,
        "scores": [{"name": name, "better": direction(name)} for name in told.names],
        "columns": list(told.names),
        "reference": FULL_ALONE,
        "cells": [_row(cell, done, ledger, told, drawn) for cell in cells],
    }


def _row(
    cell: Cell,
    done: Mapping[str, Mapping[int, FrozenTrial]],
    ledger: CellLedger,
    told: Told,
    drawn: Mapping[int, str | None],
) -> dict[str, Any]:
    own, full, latest = done[cell.name], done[FULL_ALONE], ledger.latest()
    numel = next((trial.user_attrs["numel"] for trial in own.values()), None)
    failed = [
        {"seed": seed, "error": latest[cell.name, seed].user_attrs["error"]}
        for seed in ledger.seeds
        if (cell.name, seed) in latest and _state(latest[cell.name, seed]) == "fail"
    ]
    differences = {name: paired_difference(_values(own, name), _values(full, name)) for name in told.names}
    return {
        "name": cell.name,
        "method": cell.recipe.name,
        "is_mask": cell.recipe.mask is not None,
        "mitigation": cell.mitigation,
        "learning_rate": cell.recipe.rate,
        "numel": numel,
        "percent": None if numel is None else 100 * numel / told.unet_numel,
        "seeds": list(own),
        "failed": failed,
        "found_on": _found_on(cell, drawn),
        "scores": {name: mean_over_seeds(list(_values(own, name).values())).to_json() for name in told.names if own},
        "against_full": {
            name: mean.to_json() for name, mean in differences.items() if mean and cell.name != FULL_ALONE
        },
    }


def _values(trials: Mapping[int, FrozenTrial], name: str) -> dict[int, float]:
    return {seed: float(trial.user_attrs["scores"][name]["value"]) for seed, trial in trials.items()}


def _found_on(cell: Cell, drawn: Mapping[int, str | None]) -> list[int]:
    """The seeds whose images a mask was chosen on, where its scores are better than they will be on others."""
    found = None if cell.recipe.mask is None else cell.recipe.mask.provenance.get("data", {}).get("sha256")
    return [seed for seed, content in drawn.items() if found is not None and content == found]
