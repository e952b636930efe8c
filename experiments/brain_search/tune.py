"""Full fine-tuning's trajectories and families of groups under some settings: what the defaults are chosen by.

    python experiments/brain_search/tune.py --seeds 0 1 2 3 4 --out tuning.jsonl [--set tuning.steps=200 ...]

Appends one JSON line for each tuning and checkpoint; lines that are there already are not computed again.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
import yaml

from memcontrol.cache import Cache, default_cache_folder
from memcontrol.config import RunConfig, validated
from memcontrol.study.references import reference_names, score_reference
from memcontrol.study.trial import Evaluation, Laboratory

SHOWN = ("fd@efficientnet-lite0", "copy_gap@pixels", "copy_gap@efficientnet-lite0", "closer_share@pixels")


def silent(phase: str, done: int, total: int) -> None:
    """Say nothing of progress."""


def changed(settings: list[str]) -> RunConfig:
    """The default configuration with `section.key=value` changes."""
    content = RunConfig().model_dump(mode="json")
    for setting in settings:
        path, value = setting.split("=", 1)
        *sections, key = path.split(".")
        target = content
        for section in sections:
            target = target[section]
        target[key] = yaml.safe_load(value)
    return validated(content, where="--set")


def record(file: Path, facts: dict[str, Any], evaluation: Evaluation) -> None:
    scores = {name: evaluation.scores[name].to_json() for name in SHOWN if name in evaluation.scores}
    line = facts | {"steps": evaluation.steps, "seconds": round(evaluation.seconds, 1), "scores": scores}
    with file.open("a") as stream:
        stream.write(json.dumps(line) + "\n")
    shown = " ".join(f"{name}={score['value']:.3f}" for name, score in scores.items())
    null = scores["copy_gap@pixels"]["null"][2]
    print(
        f"{facts['seed']} {facts['work']} {evaluation.steps} {evaluation.seconds:.0f}s {shown} null97.5={null:.3f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    parser.add_argument("--set", nargs="*", default=[], dest="settings")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--references-only", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    known = {
        (line["seed"], line["work"], tuple(line["settings"]))
        for line in map(json.loads, options.out.read_text().splitlines() if options.out.exists() else [])
    }
    for seed in options.seeds:
        config = changed([*options.settings, f"seed={seed}"])
        began = time.monotonic()
        laboratory = Laboratory(config, cache=Cache(default_cache_folder()), device="cpu")
        facts = {"seed": seed, "settings": options.settings}
        for name in reference_names(config):
            if (seed, name, tuple(options.settings)) not in known:
                for _, evaluation in score_reference(name, laboratory, silent):
                    record(options.out, facts | {"work": name}, evaluation)
        for candidate in () if options.references_only else laboratory.candidates.baselines():
            work = f"{candidate.mask}@{candidate.learning_rate:g}"
            if (seed, work, tuple(options.settings)) not in known:
                groups = laboratory.candidates.trained(candidate.bits)
                evaluation = laboratory.evaluate(groups, candidate.learning_rate, candidate.steps, silent)
                record(options.out, facts | {"work": work}, evaluation)
        print(f"seed {seed}: {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
