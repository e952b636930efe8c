"""Plain training, IET-AGC and IET-AGC+ of all parameters: what is memorized, how good it is, and what was skipped.

    python experiments/iet_agc/measure.py --data brain --seeds 5 6 7 8
    python experiments/iet_agc/measure.py --data digits --seeds 5 6 7 8

Appends one JSON line for each training to runs.jsonl; those that are there are not trained again. `summarise.py` makes
tables and pictures of the lines.
"""

import argparse
import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from memcontrol.cache import Cache, default_cache_folder
from memcontrol.comparison.methods import FULL, Recipe
from memcontrol.config import RunConfig, validated
from memcontrol.data.images import Pixels
from memcontrol.metrics.copies import copy_threshold, distance_ratios, memorized_shares
from memcontrol.metrics.neighbours import nearest
from memcontrol.mitigations.ensembles import EnsembleRecord, EnsembleTraining
from memcontrol.mitigations.iet_agc import IterativeEnsemble
from memcontrol.mitigations.loss_bank import AntiGradientControl
from memcontrol.mitigations.plan import MitigationPlan
from memcontrol.mitigations.threshold_augmentation import ThresholdAugmentation
from memcontrol.study.trial import Laboratory

HERE = Path(__file__).parent
LINES = HERE / "runs.jsonl"
HONEST = "held-out images"
STEPS, SHARDS, ROUNDS, MULTIPLIER, WIDTH = 600, 4, 10, 1.25, 50
CAPTIONS = {"brain": "column", "digits": "none"}
SCORES = ("copied_share@pixels", "memorized_share@pixels")
CONTROL = AntiGradientControl(MULTIPLIER)
WIDE = AntiGradientControl(MULTIPLIER, width=WIDTH)


class Arm(NamedTuple):
    """One way to train: for so many steps in all, divided and controlled so."""

    steps: int
    ensemble: IterativeEnsemble | None = None


ARMS = {
    "default": Arm(STEPS),
    "shards alone": Arm(STEPS, IterativeEnsemble(SHARDS, ROUNDS)),
    "IET-AGC": Arm(STEPS, IterativeEnsemble(SHARDS, ROUNDS, CONTROL)),
    "IET-AGC, wide": Arm(STEPS, IterativeEnsemble(SHARDS, ROUNDS, WIDE)),
    "IET-AGC+, wide": Arm(STEPS, IterativeEnsemble(SHARDS, ROUNDS, WIDE, 0.25, ThresholdAugmentation())),
    "default, 3/4 of the steps": Arm(STEPS * 3 // 4),
    "default, 1/2 of the steps": Arm(STEPS // 2),
    "default, 1/4 of the steps": Arm(STEPS // 4),
    "control alone, wide": Arm(STEPS, IterativeEnsemble(1, ROUNDS, WIDE)),
}
LONGER = {f"{arm}, each shard {STEPS} steps": Arm(SHARDS * STEPS, ARMS[arm].ensemble) for arm in list(ARMS)[1:5]}
"""As many steps for each shard as the default takes in all: what shards cost that train beside each other."""


@dataclass(frozen=True)
class RecordedEnsemble(IterativeEnsemble):
    """An ensemble that keeps hold of its trainings, so that their records can be read while they go on."""

    trainings: list[EnsembleTraining] = field(default_factory=list, compare=False)

    @classmethod
    def of(cls, ensemble: IterativeEnsemble) -> "RecordedEnsemble":
        return cls(ensemble.shards, ensemble.rounds, ensemble.control, ensemble.moved, ensemble.augmentation)

    def training(self, *args: Any, **settings: Any) -> EnsembleTraining:
        self.trainings.append(super().training(*args, **settings))
        return self.trainings[-1]


def flat(images: Pixels) -> NDArray[np.float32]:
    """Pixels in 0 to 1, one row for each image."""
    return images.reshape(len(images), -1).astype(np.float32) / np.float32(255)


def memorized(images: Pixels, laboratory: Laboratory) -> dict[str, Any]:
    """The published count, and how often each training image is the one that a copy is nearest to.

    A copy, there, has a ratio below that of all but one in a hundred of the held-out images.
    """
    training, honest = (flat(part) for part in (laboratory.scorer.real.training, laboratory.scorer.real.copying))
    bound = copy_threshold(distance_ratios(honest, training))
    ratios = distance_ratios(flat(images), training)
    _, positions = nearest(flat(images)[ratios < bound], training, 1, distance="euclidean")
    copies = np.bincount(positions[:, 0], minlength=len(training))
    shares = memorized_shares(ratios)
    return {
        "memorized": list(shares.values()),
        "below_honest": float((ratios < bound).mean()),
        "copies": copies.tolist(),
    }


def recorded(records: list[EnsembleRecord], width: int) -> dict[str, Any]:
    """What the loss banks hold at the end, and what was skipped: by image, and by round.

    Of banks with a mean for every timestep, that of the first shard alone.
    """
    last = records[-1]
    skips = np.diff([record.skips.sum() for record in records], prepend=0)
    seen = np.diff([record.seen.sum() for record in records], prepend=0)
    banks = [[float(f"{mean:.4g}") for mean in bank.means] for bank in last.banks]
    return {
        "skips": last.skips.tolist(),
        "seen": last.seen.tolist(),
        "skipped_by_round": (skips / np.maximum(seen, 1)).round(5).tolist(),
        "banks": banks[: 1 if width == 1 else None],
        "empty": float(np.mean([np.mean(bank.means == 0) for bank in last.banks])) if banks else None,
        "extra_steps": int(last.extra.sum()),
        "augmented": last.augmented.tolist(),
    }


def trained(laboratory: Laboratory, arm: Arm) -> dict[str, Any]:
    """Train once, and measure it."""
    recipe = Recipe.of_method(FULL)
    ensemble = None if arm.ensemble is None else RecordedEnsemble.of(arm.ensemble)
    records: dict[int, EnsembleRecord] = {}
    spent: list[float] = [time.process_time()]

    def watch(phase: str, *_: int) -> None:
        if phase == "tune":
            spent.append(time.process_time())
        record = ensemble.trainings[0].record if ensemble is not None and ensemble.trainings else None
        if record is not None:
            records[record.rounds] = record

    evaluation = laboratory.evaluate(
        recipe.groups(laboratory.frozen.unet),
        recipe.rate,
        arm.steps,
        watch,
        mitigations=MitigationPlan(() if ensemble is None else (ensemble,)),
    )
    found: dict[str, Any] = {"steps": evaluation.steps, "loss": evaluation.loss}
    found["training_core_seconds"] = round(spent[-1] - spent[0], 1)
    found["scores"] = {
        name: score.raw if score.raw is not None else score.value for name, score in evaluation.scores.items()
    }
    found |= memorized(evaluation.images, laboratory)
    if ensemble is not None:
        width = 1 if ensemble.control is None else ensemble.control.width
        found |= recorded([records[number] for number in sorted(records)], width)
    return found


def configuration(source: str, seed: int) -> RunConfig:
    return validated(
        {
            "seed": seed,
            "data": {"source": source, "captions": CAPTIONS[source]},
            "sampling": {"images": 512},
            "scoring": {"reported": SCORES},
        },
        where="iet_agc",
    )


def rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in LINES.read_text().splitlines()] if LINES.exists() else []


def write(row: dict[str, Any]) -> None:
    # One write to the system, so that two processes may append to one file.
    with LINES.open("ab", buffering=0) as stream:
        stream.write((json.dumps(row) + "\n").encode())


def run(source: str, seed: int, arms: list[str]) -> None:
    known = {row["arm"] for row in rows() if (row["data"], row["seed"]) == (source, seed)}
    missing = [arm for arm in (HONEST, *arms) if arm not in known]
    if not missing:
        return
    laboratory = Laboratory(configuration(source, seed), cache=Cache(default_cache_folder()), device="cpu")
    for arm in missing:
        began, wall = time.process_time(), time.monotonic()
        honest = laboratory.scorer.real.copying
        found = memorized(honest, laboratory) if arm == HONEST else trained(laboratory, (ARMS | LONGER)[arm])
        found["core_seconds"], found["seconds"] = (
            round(time.process_time() - began, 1),
            round(time.monotonic() - wall, 1),
        )
        write({"data": source, "seed": seed, "arm": arm} | found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=list(CAPTIONS), nargs="+", default=list(CAPTIONS))
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    parser.add_argument("--arms", choices=[*ARMS, *LONGER], nargs="+", default=list(ARMS))
    options = parser.parse_args()
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    torch.set_num_threads(1)
    for seed in options.seeds:
        for source in options.data:
            run(source, seed, options.arms)


if __name__ == "__main__":
    main()
