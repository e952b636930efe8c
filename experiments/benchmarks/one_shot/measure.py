"""One set of tensors trained under random masks, and every mask of `layer-kinds` scored on it without its own training.

    python experiments/benchmarks/one_shot/measure.py --seed 0
    python experiments/benchmarks/one_shot/measure.py --seed 0 --adapt 25

In each step of the shared training a mask is drawn: its groups hold the shared tensors and learn, all others hold the
base model's. A mask is then scored by switching its groups on, after `--adapt` steps of its own from there. The masks,
training set and scores are those of `../mask_table`. The shared tensors are kept in shared-S.safetensors, and a row
for each mask is appended to scores-S.csv; what is there is not computed again.
"""

import argparse
import csv
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from memcontrol.cache import Cache, default_cache_folder
from memcontrol.config import DataConfig, RunConfig, SamplingConfig, ScoringConfig
from memcontrol.finetuning import finetune_pipeline
from memcontrol.groups import ParameterGroup
from memcontrol.methods import tuned
from memcontrol.study.trial import Laboratory

HERE = Path(__file__).parent
SPACE, DRAWN = "layer-kinds", 0
FD, GAP = "fd@efficientnet-lite0", "copy_gap@pixels"
COLUMNS = ("mask", "adapt", "images", FD, GAP, "raw_gap", "cpu_s")
DECAY = 0.98
"""Of the running average of a group's tensors, over the steps that trained it."""
Tensors = dict[str, torch.Tensor]
Levels = tuple[int, ...]


@dataclass
class Shared:
    """The tensors that all masks share.

    Attributes:
        parameters: of the U-Net; they hold whatever the mask of the step says.
        base, current, average: values by name: the base model's, the shared ones, and their running average.
        factors: a mask's learning rate over the training's own, by its levels.
        trained: steps in which each group was on.
    """

    parameters: Mapping[str, torch.nn.Parameter]
    groups: tuple[ParameterGroup, ...]
    masks: Iterator[Levels]
    factors: Mapping[Levels, float]
    base: Tensors
    current: Tensors
    average: Tensors
    trained: list[int]
    levels: Levels = field(default=())

    @torch.no_grad()
    def switch(self, levels: Levels, values: Tensors) -> None:
        """Give the groups that are on `values`, and all others the base model's."""
        self.levels = levels
        for group, level in zip(self.groups, levels, strict=True):
            for name in group.parameters:
                self.parameters[name].copy_((values if level else self.base)[name])
                self.parameters[name].requires_grad_(bool(level))
                self.parameters[name].grad = None

    @torch.no_grad()
    def __call__(self, parameters: Mapping[str, torch.nn.Parameter], learning_rate: float) -> None:
        """After a step: keep what the groups learnt, at their mask's rate, and draw the next mask."""
        del learning_rate
        factor = self.factors[self.levels]
        for place, level in enumerate(self.levels):
            if not level:
                continue
            self.trained[place] += 1
            decay = min(DECAY, self.trained[place] / (self.trained[place] + 10))
            for name in self.groups[place].parameters:
                self.current[name].lerp_(parameters[name].detach(), factor)
                self.average[name].lerp_(self.current[name], 1 - decay)
        self.switch(next(self.masks), self.current)


def drawn_masks(groups: int, seed: int) -> Iterator[Levels]:
    """In turn everything, one group, and two masks of uniformly random size."""
    rng = np.random.default_rng([605, seed])
    while True:
        for size in (groups, 1, *rng.integers(1, groups + 1, size=2).tolist()):
            chosen = set(rng.permutation(groups)[:size].tolist())
            yield tuple(int(place in chosen) for place in range(groups))


def every_mask(groups: int) -> list[Levels]:
    return [tuple(map(int, f"{number:0{groups}b}")) for number in range(2**groups)]


def laboratory_of(seed: int, images: int) -> Laboratory:
    config = RunConfig(
        space=SPACE,
        seed=seed,
        data=DataConfig(seed=DRAWN),
        sampling=SamplingConfig(images=images),
        scoring=ScoringConfig(reported=()),
    )
    return Laboratory(config, cache=Cache(default_cache_folder()), device="cpu")


def customary(laboratory: Laboratory, levels: Levels) -> float:
    space = laboratory.candidates
    return space.rates.rate(space.customary_rate(levels))


def shared_tensors(laboratory: Laboratory, steps: int, seed: int) -> tuple[Tensors, float]:
    """The running average after the shared training, and its CPU seconds."""
    groups, began = laboratory.candidates.groups, time.process_time()
    config = laboratory.config.tuning.model_copy(update={"steps": steps, "ema_decay": 0.0})
    rate = max(customary(laboratory, levels) for levels in every_mask(len(groups)) if any(levels))
    factors = {levels: customary(laboratory, levels) / rate for levels in every_mask(len(groups)) if any(levels)}
    with tuned(laboratory.frozen.unet, groups, laboratory.resources) as tuning:
        base, current, average = (
            {name: tensor.detach().clone() for name, tensor in tuning.parameters.items()} for _ in range(3)
        )
        masks = drawn_masks(len(groups), seed)
        shared = Shared(tuning.parameters, groups, masks, factors, base, current, average, [0] * len(groups))
        shared.switch(next(masks), current)
        for _ in finetune_pipeline(
            laboratory.frozen,
            tuning.parameters,
            laboratory.batches,
            learning_rate=rate,
            config=config,
            accelerator=laboratory.accelerator,
            after=shared,
        ):
            pass
    return average, time.process_time() - began


def scored(laboratory: Laboratory, levels: Levels, shared: Tensors, adapt: int) -> dict[str, object]:
    """A mask's scores with the shared tensors, after `adapt` steps of its own."""
    began, groups = time.process_time(), laboratory.candidates.trained(levels)
    with tuned(laboratory.frozen.unet, groups, laboratory.resources) as tuning:
        with torch.no_grad():
            for name, parameter in tuning.parameters.items():
                parameter.copy_(shared[name])
        if adapt and groups:
            for step in finetune_pipeline(
                laboratory.frozen,
                tuning.parameters,
                laboratory.batches,
                learning_rate=customary(laboratory, levels),
                config=laboratory.config.tuning.model_copy(update={"steps": adapt}),
                accelerator=laboratory.accelerator,
            ):
                last = step
            with last.averaged():
                scores = laboratory.untuned(lambda *_: None).scores
        else:
            scores = laboratory.untuned(lambda *_: None).scores
    return {
        FD: f"{scores[FD].value:.6g}",
        GAP: f"{scores[GAP].value:.6g}",
        "raw_gap": f"{scores[GAP].raw or 0.0:.6g}",
        "cpu_s": f"{time.process_time() - began:.2f}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of batches, noise, masks and sampling")
    parser.add_argument("--steps", type=int, default=1200, help="of the shared training")
    parser.add_argument("--adapt", type=int, default=0, help="steps of each mask's own")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--masks", type=int, help="only the first so many, in the order of the table")
    parser.add_argument("--out", type=Path, default=HERE)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    laboratory = laboratory_of(options.seed, options.images)
    kept = options.out / f"shared-{options.seed}.safetensors"
    if not kept.exists():
        average, seconds = shared_tensors(laboratory, options.steps, options.seed)
        save_file(average, kept)
        facts = {"steps": options.steps, "cpu_s": round(seconds, 1), "images": options.images}
        kept.with_suffix(".json").write_text(json.dumps(facts) + "\n")
    shared = load_file(kept)
    file = options.out / f"scores-{options.seed}.csv"
    rows = list(csv.DictReader(file.open())) if file.exists() else []
    done = {(row["mask"], int(row["adapt"]), int(row["images"])) for row in rows if row["cpu_s"]}
    with file.open("a", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        if not rows:
            writer.writeheader()
        masks = every_mask(len(laboratory.candidates.groups))
        for place in np.random.default_rng(604).permutation(len(masks)).tolist()[: options.masks]:
            mask = "".join(map(str, masks[place]))
            if (mask, options.adapt, options.images) in done:
                continue
            row = {"mask": mask, "adapt": options.adapt, "images": options.images}
            writer.writerow(row | scored(laboratory, masks[place], shared, options.adapt))
            stream.flush()


if __name__ == "__main__":
    main()
