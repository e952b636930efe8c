"""Every tuning method at equal steps on brain slices: quality, copying, size and cost.

    python experiments/methods_table/measure.py --tune 0 1 --report 5 6 7

Each method trains all of its groups for 300 steps under the default settings of `memcontrol search`. Its learning rate
is the one of lowest mean `fd` over the tuning seeds; the table is of the other seeds, training sets redrawn. Appends
one JSON line for each training to runs.jsonl (lines that are there are not computed again), writes results.json and
prints the table as Markdown.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from memcontrol.cache import Cache, default_cache_folder
from memcontrol.config import RunConfig
from memcontrol.groups import parameter_groups
from memcontrol.space import load_space
from memcontrol.study.trial import Laboratory

HERE = Path(__file__).parent
LINES = HERE / "runs.jsonl"
FREEZE = "freeze"
SPACES = {
    "full": "full-tuning",
    "attention": "attention-tuning",
    "bias": "bias-tuning",
    "norm": "norm-tuning",
    "BitFit": "bitfit",
    "DiffFit": "paper-difffit",
    "SV-DIFF": "paper-svdiff",
    "LoRA, rank 4": "lora-blocks",
}
RATES = {"full": (1e-3, 3e-3), "attention": (1e-3, 3e-3, 1e-2)}
SMALL = (3e-3, 1e-2, 3e-2)
SHOWN = {
    "fd": "fd@efficientnet-lite0",
    "kid": "kid@efficientnet-lite0",
    "amd": "amd@efficientnet-lite0",
    "copy_gap": "copy_gap@pixels",
}


def run(laboratory: Laboratory, seed: int, method: str, rate: float | None) -> None:
    unet = laboratory.frozen.unet
    groups = () if method == FREEZE else parameter_groups(load_space(SPACES[method]), unet)
    stamps: list[float] = []
    evaluation = laboratory.evaluate(
        groups,
        rate,
        laboratory.config.tuning.steps,
        lambda phase, *_: stamps.append(time.monotonic()) if phase == "tune" else None,
    )
    numel = sum(group.numel for group in groups)
    line: dict[str, Any] = {"seed": seed, "method": method, "learning_rate": rate, "numel": numel}
    line["percent"] = 100 * numel / sum(parameter.numel() for parameter in unet.parameters())
    line["step_s"] = float(np.median(np.diff(stamps))) if stamps else None
    line["scores"] = {name: score.value for name, score in evaluation.scores.items()}
    with LINES.open("a") as stream:
        stream.write(json.dumps(line) + "\n")


def runs() -> list[dict[str, Any]]:
    return [json.loads(line) for line in LINES.read_text().splitlines()] if LINES.exists() else []


def train(seed: int, rates: dict[str, tuple[float | None, ...]]) -> None:
    known = {(row["seed"], row["method"], row["learning_rate"]) for row in runs()}
    missing = [(m, r) for m, chosen in rates.items() for r in chosen if (seed, m, r) not in known]
    if missing:
        config = RunConfig().model_copy(update={"seed": seed})
        laboratory = Laboratory(config, cache=Cache(default_cache_folder()), device="cpu")
        for method, rate in missing:
            run(laboratory, seed, method, rate)


def best_rates(seeds: list[int]) -> dict[str, tuple[float | None, ...]]:
    rows = [row for row in runs() if row["seed"] in seeds]
    chosen: dict[str, tuple[float | None, ...]] = {FREEZE: (None,)}
    for method in SPACES:
        fd = {
            rate: np.mean(
                [r["scores"][SHOWN["fd"]] for r in rows if (r["method"], r["learning_rate"]) == (method, rate)]
            )
            for rate in RATES.get(method, SMALL)
        }
        chosen[method] = (min(fd, key=lambda rate: fd[rate]),)
    return chosen


def table(chosen: dict[str, tuple[float | None, ...]], seeds: list[int]) -> dict[str, Any]:
    rows = [row for row in runs() if row["seed"] in seeds]
    result: dict[str, Any] = {}
    print("| method | rate |", " | ".join(SHOWN), "| trained % | s a step |\n|" + "---|" * (4 + len(SHOWN)))
    for method, (rate,) in chosen.items():
        own = [row for row in rows if (row["method"], row["learning_rate"]) == (method, rate)]
        scores = {short: [row["scores"][name] for row in own] for short, name in SHOWN.items()}
        steps = [row["step_s"] for row in own if row["step_s"] is not None]
        facts = {
            "learning_rate": rate,
            "numel": own[0]["numel"],
            "percent": own[0]["percent"],
            "seeds": [row["seed"] for row in own],
        }
        result[method] = facts | {"step_s": float(np.median(steps)) if steps else None, "scores": scores}
        cells = [f"{np.mean(values):.4g} ({np.std(values, ddof=1):.2g})" for values in scores.values()]
        step = f"{result[method]['step_s']:.3f}" if steps else ""
        print("|", method, "|", rate or "", "|", " | ".join(cells), f"| {own[0]['percent']:.3g} |", step, "|")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tune", type=int, nargs="+", required=True)
    parser.add_argument("--report", type=int, nargs="+", required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for seed in options.tune:
        train(seed, {method: RATES.get(method, SMALL) for method in SPACES})
    chosen = best_rates(options.tune)
    for seed in options.report:
        train(seed, chosen)
    hardware = f"{os.cpu_count()} cores, no GPU, one thread, torch {torch.__version__}"
    content = {
        "hardware": hardware,
        "tuned on": options.tune,
        "reported on": options.report,
        "methods": table(chosen, options.report),
    }
    (HERE / "results.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
