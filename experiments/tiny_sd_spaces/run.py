"""The papers' spaces, searched on `tiny-sd` to a budget of 12 each: do they run end to end, and what comes out.

    python experiments/tiny_sd_spaces/run.py --work WORK

Each search goes on where it was interrupted; run folders are made in WORK. Writes results.json and prints its table as
Markdown.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import torch

from memcontrol.config import load_config
from memcontrol.study.search import search

HERE = Path(__file__).parent
SPACES = ("paper-svdiff", "paper-difffit", "paper-attention", "lora-blocks")
FD, GAP = "fd@efficientnet-lite0", "copy_gap@pixels"


def pair(scores: dict[str, Any]) -> tuple[float, float]:
    return scores[FD]["value"], scores[GAP]["value"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    options = parser.parse_args()
    config = load_config(HERE / "config.yaml")
    results: dict[str, Any] = {}
    for space in SPACES:
        began = time.monotonic()
        front = search(config.model_copy(update={"space": space}), options.work / space, workers=2).front
        results[space] = {
            "bits": len(front["front"][0]["bits"]),
            "trials": front["trials"],
            "minutes": (time.monotonic() - began) / 60,
            "front": [
                {key: member[key] for key in ("bits", "learning_rate", "numel")} | {"scores": pair(member["scores"])}
                for member in front["front"]
            ],
            "references": {
                name: [(point["steps"], *pair(point["scores"])) for point in points]
                for name, points in front["references"].items()
            },
        }
    hardware = f"{os.cpu_count()} cores, no GPU, two workers of one thread, torch {torch.__version__}"
    (HERE / "results.json").write_text(json.dumps({"hardware": hardware, "searches": results}, indent=1) + "\n")
    print("| space | bits | minutes | mask | rate | numbers | fd | copy_gap |\n|" + "---|" * 8)
    for space, result in results.items():
        for m in result["front"]:
            rate = "" if m["learning_rate"] is None else f"{m['learning_rate']:g}"
            scored = f"{m['scores'][0]:.1f} | {m['scores'][1]:.4f}"
            said = f"{space} | {result['bits']} | {result['minutes']:.1f}"
            print(f"| {said} | `{m['bits']}` | {rate} | {m['numel']:,} | {scored} |")


if __name__ == "__main__":
    main()
