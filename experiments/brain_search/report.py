"""The frozen default on fresh seeds, training sets redrawn: a whole search, then re-training with fresh seeds.

    python experiments/brain_search/report.py --seeds 5 6 7 8 9 10 11 12 --work WORK

For each seed: `memcontrol search` to its budget of 50 with config.yaml, on two workers; then up to four members of the
front, spread along it, and for each a random mask of as nearly equal size as 500 draws give, at the same learning rate,
are trained again with another seed of training and sampling on the same training set, so that no compared score was
the best of many. Full fine-tuning's trajectory was not selected and is taken from the search. One JSON file a seed;
seeds that have one are not run again, and an interrupted search resumes.
"""

import argparse
import json
import os
import platform
import time
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from memcontrol.cache import Cache, default_cache_folder
from memcontrol.config import RunConfig, load_config
from memcontrol.study.candidate import Candidate
from memcontrol.study.search import search
from memcontrol.study.trial import Laboratory

HERE = Path(__file__).parent
FRESH = 1000
"""Added to a seed for the training and sampling of what is trained again."""
MEMBERS, DRAWS = 4, 500


@dataclass(frozen=True)
class Again:
    """A candidate to train again."""

    kind: str
    trial: int
    bits: str
    learning_rate: float


def spread(front: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """At most `MEMBERS` members that train something, evenly along the front."""
    tuned = [member for member in front if member["learning_rate"] is not None]
    places = np.unique(np.linspace(0, len(tuned) - 1, MEMBERS).round().astype(int))
    return [tuned[i] for i in places]


def random_twin(member: dict[str, Any], sizes: list[int], seed: int) -> str:
    """Random bits, unlike the member's, that train as nearly as many parameters as it does."""
    rng = np.random.default_rng([seed, 401, member["trial"]])
    drawn = rng.random((DRAWS, len(sizes))) < rng.random((DRAWS, 1))
    distance = np.abs(drawn @ np.array(sizes) - member["numel"])
    for i in np.argsort(distance, kind="stable"):
        bits = "".join("01"[int(bit)] for bit in drawn[i])
        if bits != member["bits"] and "1" in bits:
            return bits
    raise ValueError("no other mask was drawn")


def trained_again(config: RunConfig, order: list[Again]) -> list[dict[str, Any]]:
    torch.set_num_threads(1)
    laboratory = Laboratory(config, cache=Cache(default_cache_folder()), device="cpu")
    results = []
    for again in order:
        candidate = Candidate(tuple(bit == "1" for bit in again.bits), again.learning_rate, config.tuning.steps)
        groups = laboratory.candidates.trained(candidate.bits)
        evaluation = laboratory.evaluate(groups, candidate.learning_rate, candidate.steps, lambda *_: None)
        scores = {name: score.to_json() for name, score in evaluation.scores.items()}
        results.append(vars(again) | {"numel": sum(group.numel for group in groups), "scores": scores})
    return results


def report_seed(config: RunConfig, seed: int, work: Path) -> dict[str, Any]:
    config = config.model_copy(update={"seed": seed})
    began = time.monotonic()
    result = search(config, work / f"seed-{seed:02d}", workers=2)
    searched = time.monotonic() - began
    laboratory = Laboratory(config, cache=Cache(default_cache_folder()), device="cpu")
    sizes = [group.numel for group in laboratory.candidates.groups]
    chosen = spread(result.front["front"])
    order = [Again("front", m["trial"], m["bits"], m["learning_rate"]) for m in chosen]
    order += [Again("random", m["trial"], random_twin(m, sizes, seed), m["learning_rate"]) for m in chosen]
    fresh = config.model_copy(update={"seed": seed + FRESH, "data": config.data.model_copy(update={"seed": seed})})
    with get_context("spawn").Pool(2) as pool:
        halves = pool.starmap(trained_again, [(fresh, order[::2]), (fresh, order[1::2])])
    front = {key: result.front[key] for key in ("references", "front", "hypervolume", "reference_point", "trials")}
    hardware = f"{os.cpu_count()} cores, {platform.machine()}, torch {torch.__version__}"
    return {
        "seed": seed,
        "hardware": hardware,
        "search_seconds": round(searched),
        "seconds": round(time.monotonic() - began),
        "search": front,
        "again": [row for half in halves for row in half],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    parser.add_argument("--work", type=Path, required=True, help="run folders")
    options = parser.parse_args()
    config = load_config(HERE / "config.yaml")
    for seed in options.seeds:
        file = HERE / "seeds" / f"{seed:02d}.json"
        if not file.exists():
            result = report_seed(config, seed, options.work)
            file.parent.mkdir(exist_ok=True)
            file.write_text(json.dumps(result, indent=1) + "\n")
            print(f"seed {seed}: search {result['search_seconds']} s, all {result['seconds']} s", flush=True)


if __name__ == "__main__":
    main()
