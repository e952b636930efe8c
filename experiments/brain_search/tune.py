"""Full fine-tuning's trajectories and families of groups, each scored under several ways of sampling.

    python experiments/brain_search/tune.py --seeds 0 1 2 3 4 --guidance 1 2 3 --set tuning.steps=300

What the defaults are chosen by. Appends one JSON line for each training and guidance to tuning.jsonl; lines that are
there already are not computed again.
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
from memcontrol.study.references import everything, trajectory_rates, trajectory_steps
from memcontrol.study.trial import Evaluation, Laboratory, OnStep

HERE = Path(__file__).parent
SHOWN = ("fd@efficientnet-lite0", "copy_gap@pixels", "copy_gap@efficientnet-lite0", "closer_share@pixels")


class ManyWays(Laboratory):
    """A laboratory that scores each training under several guidances and keeps them all."""

    guidances: tuple[float, ...] = ()

    def _scored(self, steps: int, loss: float | None, began: float, on_step: OnStep) -> Evaluation:
        configured, self.kept = self.config, {}
        for guidance in self.guidances:
            sampling = configured.sampling.model_copy(update={"guidance": guidance})
            self.config = configured.model_copy(update={"sampling": sampling})
            self.kept[guidance] = super()._scored(steps, loss, began, on_step)
        self.config = configured
        return self.kept[self.guidances[0]]


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


def works(laboratory: Laboratory) -> dict[str, tuple[Any, float | None, int]]:
    """Name -> groups, learning rate and steps of everything that is trained for a seed."""
    whole = (everything(laboratory.frozen.unet),)
    rates, steps = trajectory_rates(laboratory), trajectory_steps(laboratory.config)
    full = {f"full-{rate:g}-{count}": (whole, rate, count) for rate in rates for count in steps}
    families = {
        f"{made.mask}@{made.learning_rate:g}": (
            laboratory.candidates.trained(made.bits),
            made.learning_rate,
            made.steps,
        )
        for made in laboratory.candidates.baselines()
    }
    return {"freeze": ((), None, 0)} | full | families


def lines(facts: dict[str, Any], laboratory: ManyWays) -> list[dict[str, Any]]:
    return [
        facts
        | {"guidance": guidance, "steps": evaluation.steps}
        | {"scores": {name: evaluation.scores[name].to_json() for name in SHOWN}}
        for guidance, evaluation in laboratory.kept.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    parser.add_argument("--guidance", type=float, nargs="+", default=[RunConfig().sampling.guidance])
    parser.add_argument("--set", nargs="*", default=[], dest="settings")
    parser.add_argument("--out", type=Path, default=HERE / "tuning.jsonl")
    options = parser.parse_args()
    torch.set_num_threads(1)
    text = options.out.read_text() if options.out.exists() else ""
    rows = [json.loads(line) for line in text.splitlines()]
    known = {(row["seed"], row["work"], tuple(row["settings"]), row["guidance"]) for row in rows}
    for seed in options.seeds:
        began = time.monotonic()
        config = changed([*options.settings, f"seed={seed}"])
        laboratory = ManyWays(config, cache=Cache(default_cache_folder()), device="cpu")
        for work, (groups, rate, steps) in works(laboratory).items():
            facts = {"seed": seed, "work": work, "settings": options.settings}
            missing = [g for g in options.guidance if (seed, work, tuple(options.settings), g) not in known]
            if not missing:
                continue
            laboratory.guidances = tuple(missing)
            laboratory.evaluate(groups, rate, steps, lambda *_: None)
            with options.out.open("a") as stream:
                stream.writelines(json.dumps(line) + "\n" for line in lines(facts, laboratory))
        print(f"seed {seed}: {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
