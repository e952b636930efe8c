"""Does longer training of a subset beat full fine-tuning? Fixed subsets at two rates and two numbers of steps.

    python experiments/brain_search/subsets.py --seeds 2 3
    python experiments/brain_search/subsets.py --table

Candidates of the search have 300 steps; small subsets may want more. Each subset is trained for 300 and 900 steps, and
full fine-tuning at the points of its trajectory. Appends one JSON line for each training to subsets.jsonl; lines that
are there are not computed again. `--table` prints them as Markdown, each subset's `copy_gap` beside that of full
fine-tuning's lower envelope at the same `fd`.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from memcontrol.cache import Cache, default_cache_folder
from memcontrol.config import load_config
from memcontrol.groups import ParameterGroup
from memcontrol.report.trajectory import at_equal_fidelity
from memcontrol.study.references import everything, trajectory_rates, trajectory_steps
from memcontrol.study.trial import Laboratory

HERE = Path(__file__).parent
LINES = HERE / "subsets.jsonl"
FD, GAP = "fd@efficientnet-lite0", "copy_gap@pixels"
SUBSETS: dict[str, tuple[Callable[[str], bool], tuple[float, float]]] = {
    "attention": (lambda name: name.endswith("attention"), (3e-3, 1e-2)),
    "norms": (lambda name: "norm" in name, (3e-3, 1e-2)),
    "attention and norms": (lambda name: name.endswith("attention") or "norm" in name, (3e-3, 1e-2)),
    "resnets": (lambda name: name.endswith("resnets"), (1e-3, 3e-3)),
    "up": (lambda name: name.startswith("up"), (3e-3,)),
    "down": (lambda name: name.startswith("down"), (3e-3,)),
}
STEPS = (900, 300)
Work = tuple[str, tuple[ParameterGroup, ...], float, int]


def works(laboratory: Laboratory) -> list[Work]:
    groups = laboratory.candidates.groups
    subsets = [
        (name, tuple(group for group in groups if chosen(group.name)), rate, steps)
        for steps in STEPS
        for name, (chosen, rates) in SUBSETS.items()
        for rate in rates
    ]
    whole = (everything(laboratory.frozen.unet),)
    rates, steps = trajectory_rates(laboratory), trajectory_steps(laboratory.config)
    return subsets + [("full", whole, rate, count) for rate in rates for count in steps]


def train(seed: int, known: set[tuple[Any, ...]]) -> None:
    config = load_config(HERE / "config.yaml").model_copy(update={"seed": seed})
    laboratory = Laboratory(config, cache=Cache(default_cache_folder()), device="cpu")
    for name, groups, rate, steps in works(laboratory):
        if (seed, name, rate, steps) in known:
            continue
        evaluation = laboratory.evaluate(groups, rate, steps, lambda *_: None)
        line = {"seed": seed, "subset": name, "learning_rate": rate, "steps": steps}
        line["numel"] = sum(group.numel for group in groups)
        line["scores"] = {name: round(score.value, 4) for name, score in evaluation.scores.items()}
        with LINES.open("a") as stream:
            stream.write(json.dumps(line) + "\n")


def print_table(rows: list[dict[str, Any]]) -> None:
    print("| seed | subset | numbers | rate | steps | fd | copy_gap | full's copy_gap at that fd |\n|" + "---|" * 8)
    for row in rows:
        full = [other["scores"] for other in rows if other["seed"] == row["seed"] and other["subset"] == "full"]
        if row["subset"] == "full" or not full:
            continue
        at_full = at_equal_fidelity(np.array([[scores[FD], scores[GAP]] for scores in full]), row["scores"][FD])
        beside = "out of its range" if at_full is None else f"{at_full:.4f}"
        cells = [row["seed"], row["subset"], f"{row['numel']:,}", f"{row['learning_rate']:g}", row["steps"]]
        print("|", " | ".join(map(str, [*cells, f"{row['scores'][FD]:.1f}", f"{row['scores'][GAP]:.4f}", beside])), "|")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="*", default=[])
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [json.loads(line) for line in LINES.read_text().splitlines()] if LINES.exists() else []
    known = {(row["seed"], row["subset"], row["learning_rate"], row["steps"]) for row in rows}
    for seed in options.seeds:
        train(seed, known)
    if options.table:
        print_table(rows)


if __name__ == "__main__":
    main()
