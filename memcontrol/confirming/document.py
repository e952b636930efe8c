"""What a confirmation writes: its own JSON, the confirmed scores in each mask's file, and those in `front.json`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from memcontrol.comparison.intervals import CONFIDENCE, mean_over_seeds
from memcontrol.comparison.ledger import CellLedger
from memcontrol.comparison.results import ComparisonFolder
from memcontrol.confirming.rows import Again
from memcontrol.confirming.settings import Fresh
from memcontrol.mask_records import Confirmed
from memcontrol.run import RunFolder
from memcontrol.score import direction
from memcontrol.study.confirmed import SCHEMA, read_confirmation, with_confirmed
from memcontrol.study.shared import was_interrupted
from memcontrol.study.trial import Laboratory


def write_confirmed(
    rows: Sequence[Again], ledger: CellLedger, fresh: Fresh, laboratory: Laboratory, folder: RunFolder
) -> dict[str, Any]:
    """Write `confirmation.json`, confirmed scores into mask files, and `front.json`; returns the last one's content.

    Rows and seeds that an earlier command confirmed, and this one did not ask for, are kept.
    """
    inner = ComparisonFolder(folder.confirmation)
    done = [_row(row, ledger, laboratory, folder) for row in rows]
    known = read_confirmation(folder)
    earlier = {row["name"]: row for row in known["rows"]} if known else {}
    kept = list((earlier | {row["name"]: row for row in done}).values())
    seeds = sorted(set(fresh.seeds).union(*(row["seeds"] for row in kept)))
    document = _facts(ledger, fresh, laboratory) | {"seeds": seeds, "rows": kept}
    for row, content in zip(rows, done, strict=True):
        _write_mask(row, content, folder)
    inner.write_json(folder.confirmation / "confirmation.json", document)
    front = with_confirmed(folder.read_front(), document)
    folder.write_json(folder.front, front)
    return front


def _facts(ledger: CellLedger, fresh: Fresh, laboratory: Laboratory) -> dict[str, Any]:
    heldout, objectives = laboratory.dataset.heldout, fresh.config.scoring.objectives
    sets = {"fidelity": heldout.fidelity, "copying": heldout.copying}
    if fresh.held_out == "confirmation":
        sets = dict.fromkeys(sets, heldout.confirmation)
    failed = [
        {"name": name, "seed": seed, "error": trial.user_attrs["error"]}
        for (name, seed), trial in ledger.latest().items()
        if trial.state == TrialState.FAIL and not was_interrupted(trial)
    ]
    return {
        "schema": SCHEMA,
        "run": {"seed": fresh.config.seed, "data": laboratory.data_fingerprint},
        "measures": list(fresh.measures),
        "held_out": {"set": fresh.held_out} | {name: len(images) for name, images in sets.items()},
        "images": fresh.config.sampling.images,
        "confidence": CONFIDENCE,
        "scores": [
            {"name": name, "better": direction(name), "objective": name in objectives}
            for name in laboratory.score_names
        ],
        "failed": failed,
    }


def _row(row: Again, ledger: CellLedger, laboratory: Laboratory, folder: RunFolder) -> dict[str, Any]:
    recipe, done = row.cell.recipe, ledger.completed(row.cell.name)
    numel = next((int(trial.user_attrs["numel"]) for trial in done.values()), None)
    return {
        "name": row.name,
        "kind": row.kind,
        "trial": None if row.member is None else row.member["trial"],
        "bits": None if recipe.mask is None else _bits(row),
        "mask": None if recipe.mask is None else _mask_path(row, folder).relative_to(folder.path).as_posix(),
        "learning_rate": recipe.rate,
        "steps": recipe.stop or laboratory.config.tuning.steps,
        "mitigations": list(row.cell.mitigations),
        "numel": numel,
        "seeds": list(done),
        "scores": _means(list(done.values()), laboratory.score_names),
    }


def _bits(row: Again) -> str:
    """As the front writes them for a member, levels and all; zeros and ones of all groups for a random mask."""
    if row.kind == "front" and row.member is not None:
        return str(row.member["bits"])
    return "" if row.cell.recipe.mask is None else "".join("01"[on] for on in row.cell.recipe.mask.bits)


def _means(trials: Sequence[FrozenTrial], names: Sequence[str]) -> dict[str, Any]:
    """Of each score the mean over seeds, Student's interval, images for each seed, and the seeds' values in order."""
    scores = dict[str, Any]()
    for name in names if trials else ():
        found = [trial.user_attrs["scores"][name] for trial in trials]
        values = [float(score["value"]) for score in found]
        mean = mean_over_seeds(np.array(values))
        scores[name] = {
            "value": mean.value,
            "low": mean.low,
            "high": mean.high,
            "n": found[0]["n"],
            "better": found[0]["better"],
            "values": values,
        }
    return scores


def _mask_path(row: Again, folder: RunFolder) -> Path:
    if row.kind == "front" and row.member is not None:
        return folder.path / str(row.member["mask"])
    return folder.confirmation / "masks" / f"{row.name}.json"


def _write_mask(row: Again, content: dict[str, Any], folder: RunFolder) -> None:
    mask = row.cell.recipe.mask
    if mask is None or not content["seeds"]:
        return
    confirmed = Confirmed(tuple(content["seeds"]), content["scores"])
    replace(mask, confirmed=confirmed).save(_mask_path(row, folder))
