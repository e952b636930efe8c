"""Whole searches with and without pruning on fresh seeds, from the same references.

    python experiments/benchmarks/pruning/searches.py --rungs 0.25:64 --eta 2 --work runs/pruning

For each seed the arms run one after another, each in a folder of its own; an interrupted one resumes. References are
scored by the first that runs, and copied to the others. The arm `checkpoints` lets checkpoints stand on the front as
well. Each finished arm appends a JSON line to searches.jsonl; lines that are there are not run again, but other rungs
are other searches. `summarise.py` makes tables.
"""

import argparse
import csv
import json
import resource
import shutil
import time
from pathlib import Path
from typing import Any

from memcontrol.config import ConfirmConfig, RunConfig, load_config, validated
from memcontrol.study.search import search

HERE = Path(__file__).parent
ARMS = ("unpruned", "pruned", "checkpoints")


def configured(options: argparse.Namespace, seed: int, arm: str) -> RunConfig:
    base = RunConfig(confirm=ConfirmConfig(seeds=0)) if options.config is None else load_config(options.config)
    content = base.model_dump(mode="json") | {"seed": seed}
    pruning = {"rungs": options.rungs, "eta": options.eta, "minimum": options.minimum, "margin": options.margin}
    if arm != "unpruned":
        content["search"] |= pruning | {"checkpoints": arm == "checkpoints"}
    content["search"]["budget"] = options.budget
    return validated(content, where="searches")


def setting(options: argparse.Namespace, arm: str) -> dict[str, Any]:
    """What tells one pruned search from another of the same seed."""
    if arm == "unpruned":
        return {}
    return {"rungs": options.rungs, "eta": options.eta, "margin": options.margin}


def folder_of(options: argparse.Namespace, seed: int, arm: str) -> Path:
    told = "".join(f"-{value}" for value in setting(options, arm).values())
    return Path(options.work) / f"seed-{seed:02d}-{arm}{told}"


def cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def run(options: argparse.Namespace, seed: int, arm: str) -> dict[str, Any]:
    """One arm; the seconds of every sitting are kept in its folder, so that an interruption loses none."""
    folder = folder_of(options, seed, arm)
    ended = sorted(options.work.glob(f"seed-{seed:02d}-*/front.json"))
    if ended and not (folder / "references").exists():
        shutil.copytree(ended[0].parent / "references", folder / "references")
    folder.mkdir(parents=True, exist_ok=True)
    began, used = time.monotonic(), cpu_seconds()
    try:
        found = search(configured(options, seed, arm), folder, workers=options.workers)
    finally:
        with (folder / "sittings.jsonl").open("a") as stream:
            wall_s, cpu_s = time.monotonic() - began, cpu_seconds() - used
            stream.write(json.dumps({"wall_s": round(wall_s, 1), "cpu_s": round(cpu_s, 1)}) + "\n")
    sittings = [json.loads(line) for line in (folder / "sittings.jsonl").read_text().splitlines()]
    totals = {name: round(sum(one[name] for one in sittings), 1) for name in ("wall_s", "cpu_s")}
    with found.folder.trials.open(newline="") as file:
        trials = list(csv.DictReader(file))
    # In the order of their numbers, as `ends` are, so that a search can be cut off after so many seconds.
    seconds = [float(row["seconds"]) for row in trials if row["state"] in ("complete", "pruned")]
    # A mask and its checkpoints are told apart by `of`.
    members = [
        {key: one[key] for key in ("trial", "steps", "of", "scores") if key in one} for one in found.front["front"]
    ]
    kept = {key: found.front[key] for key in ("trials", "reference_point", "objectives")}
    names = [one["name"] for one in found.front["objectives"]]
    ends = [[float(row[name]) for name in names] for row in trials if row["state"] == "complete"]
    told = setting(options, arm)
    told |= {**totals, "trials_s": round(sum(seconds), 1), "seconds": seconds}
    return {"seed": seed, "arm": arm, **told, "ends": ends, "front": members, **kept}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5, 13)))
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=["unpruned", "pruned"])
    parser.add_argument("--rungs", required=True, help="as memcontrol search --rungs takes them")
    parser.add_argument("--eta", type=float, default=2.0)
    parser.add_argument("--minimum", type=int, default=8)
    parser.add_argument("--margin", type=float, default=0.0)
    parser.add_argument("--budget", type=int, default=50)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--config", type=Path, help="of a search; its defaults unless given")
    parser.add_argument("--work", type=Path, default=Path("runs/pruning"))
    parser.add_argument("--out", type=Path, default=HERE)
    options = parser.parse_args()
    file = options.out / "searches.jsonl"
    done = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    for seed in options.seeds:
        for arm in options.arms:
            wanted = {"seed": seed, "arm": arm, **setting(options, arm)}
            if not any(wanted.items() <= line.items() for line in done):
                line = run(options, seed, arm)
                with file.open("a") as stream:
                    stream.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
