"""A training step of several candidates in one pass against one after the other, where either is replayed from a trace.

    python experiments/benchmarks/several_masks/traced.py

Forward and backward of the search's first batch for random masks: each alone, cut to its gradients, as a search replays
it; and K of them joined (`joined, grouped convolutions`, 1 x 1 convolutions as matrix products). Writes traced.jsonl,
one line for each K, and prints it. CPU time, one thread, median of `--readings`; alone before and after the others.
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from candidates import RANDOM, candidates
from measure import training_steps
from passes import Tensor, as_groups, joined
from torch.func import functional_call

from memcontrol.cache import Cache, default_cache_folder
from memcontrol.config import RunConfig
from memcontrol.study.placement import take_device
from memcontrol.study.trial import Laboratory
from memcontrol.tracing import graphs

HERE = Path(__file__).parent
COUNTS = (2, 4, 8)
Predict = Callable[[Mapping[str, Tensor]], Tensor]


def convolved(layer: torch.nn.Conv2d, weight: Tensor, bias: Tensor | None, given: Tensor) -> Tensor:
    """A 1 x 1 convolution as one product for each image, with its candidate's weights; others as groups."""
    if layer.kernel_size != (1, 1):
        return as_groups(layer, weight, bias, given)
    count, (images, channels, height, width) = len(weight), given.shape
    each = (count, images // count, -1, -1)
    matrices = weight.flatten(2).unsqueeze(1).expand(each).reshape(images, -1, channels)
    columns = given.reshape(images, channels, height * width)
    if bias is None:
        return torch.bmm(matrices, columns).view(images, -1, height, width)
    added = bias[:, None, :, None].expand(each).reshape(images, -1, 1)
    return torch.baddbmm(added, matrices, columns).view(images, -1, height, width)


def replayed(tensors: Mapping[str, Tensor], predict: Predict) -> Callable[[], object]:
    """A step's gradients of these tensors, from a trace."""
    values = [one.detach().clone().requires_grad_() for one in tensors.values()]
    given = torch.randn_like(predict(tensors))

    def joint(*values: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(predict(dict(zip(tensors, values, strict=False))), values[:-1], values[-1])

    with torch.enable_grad():
        traced = graphs._traced(joint, (*values, given))
    graphs.narrowed(traced.graph)
    step, plain = graphs._compiled(traced, traced.graph), [one.detach() for one in values]
    return torch.no_grad()(lambda: step(*plain, given))


def milliseconds(step: Callable[[], object], readings: int) -> float:
    spent = []
    for reading in range(-5, readings):
        began = time.process_time()
        step()
        if reading >= 0:
            spent.append(1e3 * (time.process_time() - began))
    return float(np.median(spent))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--readings", type=int, default=60)
    options = parser.parse_args()
    take_device("cpu")
    laboratory = Laboratory(RunConfig(), cache=Cache(default_cache_folder()), device="cpu")
    unet = laboratory.frozen.unet.requires_grad_(False)
    steps, own = training_steps(laboratory), dict(unet.named_parameters())
    inputs = (steps.noisy, steps.timesteps, steps.text)

    def predicted(tensors: Mapping[str, Tensor]) -> Tensor:
        found: Tensor = functional_call(unet, dict(tensors), inputs, {"return_dict": False})[0]
        return found

    def alone(names: Sequence[str]) -> float:
        return milliseconds(replayed({name: own[name] for name in names}, predicted), options.readings)

    masks = candidates(laboratory, RANDOM, max(COUNTS)).names
    before = [alone(names) for names in masks]
    together = {}
    for count in COUNTS:
        stacked = candidates(laboratory, RANDOM, count).stacked
        torch.testing.assert_close(joined(convolved, unet, stacked, *inputs), joined(as_groups, unet, stacked, *inputs))
        step = replayed(stacked, lambda tensors: joined(convolved, unet, tensors, *inputs))
        together[count] = milliseconds(step, options.readings) / count
    each = np.mean([before, [alone(names) for names in masks]], axis=0)
    lines = [
        {"k": count, "together_ms": round(spent, 2), "alone_ms": round(float(each[:count].mean()), 2)}
        for count, spent in together.items()
    ]
    (HERE / "traced.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    print("| K | together, ms a candidate | alone, ms | times faster |\n|---|---|---|---|")
    for line in lines:
        ratio = line["alone_ms"] / line["together_ms"]
        print(f"| {line['k']} | {line['together_ms']} | {line['alone_ms']} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
