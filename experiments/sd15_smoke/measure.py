"""What one trial costs at Stable Diffusion 1.5's full size: peak memory, seconds a step, seconds a sampling step.

    python experiments/sd15_smoke/measure.py --cache CACHE
    python experiments/sd15_smoke/measure.py --cache CACHE --steps 5 --out results.json

A U-Net of Stable Diffusion 1.5's configuration with random weights, latents of 28x28, batch 1, on the CPU with one
thread. Each way of tuning runs in a process of its own, for the peak memory to be its own: `svdiff` trains every shift
of the space `paper-svdiff`, `attention` every attention module (all bits of `paper-attention`). Both take the same
steps and then sample from folded weights; `plain` samples from the untuned U-Net. The first command makes the
decompositions in its first run; the second finds them all, and takes more steps.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from diffusers import DPMSolverMultistepScheduler, UNet2DConditionModel

from memcontrol.cache import Cache
from memcontrol.config import TuningConfig
from memcontrol.finetuning import TrainingBatches, finetune
from memcontrol.groups import parameter_groups
from memcontrol.methods import Resources, tuned
from memcontrol.pipeline import LatentMoments, TextEmbeddings
from memcontrol.space import load_space

HERE = Path(__file__).parent
SPACES = {"svdiff": "paper-svdiff", "attention": "paper-attention"}
SIZE, TOKENS, WIDTH = 28, 77, 768
NOISE = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SAMPLED = 3


def build_unet() -> UNet2DConditionModel:
    torch.manual_seed(0)
    return UNet2DConditionModel(sample_size=SIZE, cross_attention_dim=WIDTH, attention_head_dim=8).eval()


def random_batches() -> TrainingBatches:
    rng = np.random.default_rng(0)
    mean = rng.standard_normal((4, 4, SIZE, SIZE)).astype(np.float32)
    table = rng.standard_normal((5, TOKENS, WIDTH)).astype(np.float32)
    text = TextEmbeddings(table, np.arange(1, 5))
    return TrainingBatches(
        LatentMoments(mean, np.full_like(mean, 0.1)), text, np.ones(4, dtype=np.int64), 1, 0.1, 1000, 0
    )


@torch.no_grad()
def sampling_seconds(unet: torch.nn.Module, batches: TrainingBatches) -> float:
    """Seconds of one step of DPM-Solver++ without guidance, the mean of three after one that is not counted."""
    scheduler = DPMSolverMultistepScheduler(**NOISE, algorithm_type="dpmsolver++")
    scheduler.set_timesteps(SAMPLED + 1)
    latents, text = torch.randn(1, 4, SIZE, SIZE, generator=torch.Generator().manual_seed(0)), batches.at(0).text
    began = 0.0
    for number, timestep in enumerate(scheduler.timesteps):
        if number == 1:
            began = time.monotonic()
        latents = scheduler.step(unet(latents, timestep, text, return_dict=False)[0], timestep, latents).prev_sample
    return (time.monotonic() - began) / (len(scheduler.timesteps) - 1)


def measured(way: str, cache: Path, steps: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    unet, batches = build_unet(), random_batches()
    facts: dict[str, Any] = {"unet": sum(parameter.numel() for parameter in unet.parameters())}
    if way == "plain":
        return facts | {"sampling_step_s": sampling_seconds(unet, batches), "peak_gb": peak_gb()}
    groups = parameter_groups(load_space(SPACES[way]), unet)
    began, seconds, losses = time.monotonic(), [], []
    with tuned(unet, groups, Resources(Cache(cache), 0)) as tuning:
        facts["attach_s"] = time.monotonic() - began
        facts["numel"] = sum(parameter.numel() for parameter in tuning.parameters.values())
        began = time.monotonic()
        for step in finetune(
            unet,
            tuning.parameters,
            batches,
            learning_rate=1e-4,
            config=TuningConfig(steps=steps, batch=1),
            scheduler_config=NOISE,
            accelerator=Accelerator(cpu=True),
        ):
            seconds.append(time.monotonic() - began)
            losses.append(step.loss)
            began = time.monotonic()
        with step.averaged(), tuning.folded():
            facts["fold_s"] = time.monotonic() - began
            facts["sampling_step_s"] = sampling_seconds(unet, batches)
    return facts | {"step_s": seconds, "losses": losses, "peak_gb": peak_gb()}


def peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--way", choices=[*SPACES, "plain"], help="measure one and print it; without it, all in turn")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--cache", type=Path, required=True, help="4.3 GB of decompositions")
    parser.add_argument("--out", default="results-empty-cache.json")
    options = parser.parse_args()
    if options.way:
        print(json.dumps(measured(options.way, options.cache, options.steps)))
        return
    results: dict[str, Any] = {"hardware": f"{os.cpu_count()} cores, no GPU, one thread, torch {torch.__version__}"}
    # svdiff runs twice: its decompositions are computed in the first run and read from the cache in the second.
    for name, way in (
        ("svdiff, first run", "svdiff"),
        ("svdiff", "svdiff"),
        ("attention", "attention"),
        ("plain", "plain"),
    ):
        command = [sys.executable, __file__, "--way", way, "--cache", str(options.cache), "--steps", str(options.steps)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        results[name] = json.loads(done.stdout.splitlines()[-1])
        print(name, results[name], flush=True)
    last = {way: float(np.median(results[way]["step_s"][1:])) for way in SPACES}
    results["step, svdiff over attention"] = last["svdiff"] / last["attention"]
    results["sampling step, svdiff over plain"] = (
        results["svdiff"]["sampling_step_s"] / results["plain"]["sampling_step_s"]
    )
    (HERE / options.out).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
