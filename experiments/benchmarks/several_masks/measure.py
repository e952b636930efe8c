"""Times K candidates trained and sampled in one pass, against one after the other, on one core.

    python experiments/benchmarks/several_masks/measure.py

`step` is forward and backward of a training batch, `sampling` one call of the U-Net, `convolution` one tuned layer,
and `trial` a whole trial by phase. Each measurement is one JSON line of results.jsonl, which is written anew for the
parts that are asked for. `summarise.py` makes the tables.
"""

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from candidates import KINDS, RANDOM, Candidates, Holding, candidates, levels
from passes import WAYS, Stacked, Tensor, as_groups, in_turn
from timing import Line, Stopwatch, saved_mb

from memcontrol.cache import Cache, default_cache_folder
from memcontrol.config import RunConfig
from memcontrol.study.trial import Laboratory

HERE = Path(__file__).parent
PARTS = ("step", "sampling", "convolution", "trial")
COUNTS = (1, 2, 4, 8)
ALONE = "alone"
LARGER = (64, 128, 256)
"""Images in a call of one candidate."""


@dataclass
class Steps:
    """Forward and backward of one training batch, which all candidates share as in a search."""

    unet: Any
    noisy: Tensor
    noise: Tensor
    timesteps: Tensor
    text: Tensor

    def together(self, way: str, stacked: Stacked) -> tuple[Tensor, ...]:
        """Gradients of everything stacked."""
        tuned = {name: values.clone().requires_grad_() for name, values in stacked.items()}
        predicted = WAYS[way](self.unet, tuned, self.noisy, self.timesteps, self.text)
        loss = (predicted - self.noise).square().mean(dim=(1, 2, 3, 4)).sum()
        return torch.autograd.grad(loss, list(tuned.values()))

    def alone(self, parameters: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Gradients of parameters of the U-Net as it is."""
        predicted = self.unet(self.noisy, self.timesteps, self.text, return_dict=False)[0]
        return torch.autograd.grad((predicted - self.noise).square().mean(), list(parameters))


def difference(steps: Steps, way: str, of: Candidates) -> float:
    """Largest relative difference (Euclidean norms) of a candidate's gradient from the one computed alone."""
    found = dict(zip(of.stacked, steps.together(way, of.stacked), strict=True))
    worst = 0.0
    for place, names in enumerate(of.names):
        with Holding(steps.unet, of, place) as parameters:
            expected = torch.cat([one.flatten() for one in steps.alone(parameters)])
        got = torch.cat([found[name][place].flatten() for name in names])
        worst = max(worst, float((got - expected).norm() / expected.norm()))
    return worst


def training_steps(laboratory: Laboratory) -> Steps:
    """The first batch of the search."""
    from diffusers import DDPMScheduler

    batch = laboratory.batches.at(0)
    scheduler = DDPMScheduler.from_config(laboratory.frozen.scheduler_config)
    noisy = scheduler.add_noise(batch.clean, batch.noise, batch.timesteps)
    if batch.text is None:
        raise SystemExit("this model takes no captions: name another")
    return Steps(laboratory.frozen.unet, noisy, batch.noise, batch.timesteps, batch.text)


def measured_steps(laboratory: Laboratory, watch: Stopwatch) -> Iterator[Line]:
    steps = training_steps(laboratory)
    cases = [candidates(laboratory, kind, count) for kind in KINDS for count in COUNTS]
    for _ in range(watch.rounds):
        for of in cases:
            count = len(of.names)
            if count == max(COUNTS):
                for place in range(count if of.kind == RANDOM else 1):
                    with Holding(steps.unet, of, place) as parameters:
                        watch.take((of.kind, ALONE, place), lambda held=parameters: steps.alone(held))
            for way in WAYS:
                watch.take((of.kind, count, way), lambda way=way, of=of: steps.together(way, of.stacked))
    for kind in KINDS:
        of, alone = candidates(laboratory, kind, 1), [key for key in watch.spent if key[:2] == (kind, ALONE)]
        with Holding(steps.unet, of, 0) as parameters:
            kept = saved_mb(lambda held=parameters: steps.alone(held))
        yield {"groups": kind, "k": 1, "way": ALONE, "saved_mb": round(kept, 2)} | watch.each(1, *alone)
    for of in cases:
        for way in WAYS:
            count = len(of.names)
            line = {"groups": of.kind, "k": count, "way": way} | watch.each(count, (of.kind, count, way))
            kept = saved_mb(lambda way=way, of=of: steps.together(way, of.stacked))
            line |= {"saved_mb": round(kept / count, 2), "difference": difference(steps, way, of)}
            print(line["groups"], way, count, f"gradients differ by {line['difference']:.1e}", flush=True)
            yield line


@torch.no_grad()
def measured_sampling(laboratory: Laboratory, watch: Stopwatch) -> Iterator[Line]:
    """One call of the U-Net at sampling's batch, by candidate; after their first step candidates share no latents.

    A larger batch of one candidate needs fewer calls, too: its milliseconds are those of 64 images.
    """
    unet, size = laboratory.frozen.unet, laboratory.config.sampling.batch
    generator = torch.Generator().manual_seed(713)
    embedded = laboratory.frozen.text_embeddings(laboratory.prompts)
    if embedded is None:
        raise SystemExit("this model takes no captions: name another")
    text, timestep = embedded.at(np.arange(size) % len(laboratory.prompts)), torch.tensor(500)
    cases = [(candidates(laboratory, kind, count), count) for kind in KINDS[:3] for count in COUNTS]
    most = max(*COUNTS, max(LARGER) // size)
    noise = torch.randn((most, size, *laboratory.frozen.latent_shape), generator=generator)
    wide = noise.flatten(0, 1)
    for _ in range(watch.rounds):
        for images in LARGER:
            told = text.repeat(images // size, 1, 1)
            watch.take(
                (ALONE, images),
                lambda images=images, told=told: unet(wide[:images], timestep, told, return_dict=False),
            )
        for of, count in cases:
            for way in WAYS:
                given = noise[:count]
                watch.take(
                    (of.kind, count, way),
                    lambda way=way, of=of, given=given: WAYS[way](unet, of.stacked, given, timestep, text),
                )
    for images in LARGER:
        yield {"groups": "", "k": 1, "way": ALONE, "images": images} | watch.each(images // size, (ALONE, images))
    for of, count in cases:
        for way in WAYS:
            yield {"groups": of.kind, "k": count, "way": way} | watch.each(count, (of.kind, count, way))


def measured_convolutions(_laboratory: Laboratory, watch: Stopwatch) -> Iterator[Line]:
    """One 3x3 convolution of the U-Net at a training batch, forward and backward, each candidate with its weights."""
    works: Mapping[str, Any] = {"in turn": in_turn, "grouped": as_groups}
    sizes = ((16, 8), (32, 8), (32, 4))
    for channels, side in sizes:
        layer = torch.nn.Conv2d(channels, channels, 3, padding=1)
        for count in COUNTS:
            weight = torch.randn((count, *layer.weight.shape), requires_grad=True)
            bias = torch.randn((count, channels), requires_grad=True)
            given = torch.randn((count * 16, channels, side, side), requires_grad=True)

            def work(convolve: Any, given: Tensor = given, weight: Tensor = weight, bias: Tensor = bias) -> object:
                made = convolve(layer, weight, bias, given)  # noqa: B023 - called before the layer changes
                return torch.autograd.grad(made.sum(), [given, weight, bias])

            for way, convolve in works.items():
                for _ in range(watch.rounds):
                    watch.take((channels, side, count, way), lambda convolve=convolve, work=work: work(convolve))
                line = {"channels": channels, "side": side, "k": count, "way": way}
                yield line | watch.each(count, (channels, side, count, way))


def measured_trials(laboratory: Laboratory, _watch: Stopwatch) -> Iterator[Line]:
    """CPU seconds of a default trial by phase."""
    space, config, frozen = laboratory.candidates, laboratory.config, laboratory.frozen
    laboratory.scorer(laboratory.scorer.real.fidelity)  # features of real images, which all trials of a run share
    decode, spent = frozen.decode, [0.0]

    def decoded(latents: Tensor) -> Any:
        began = time.process_time()
        pixels = decode(latents)
        spent[0] += time.process_time() - began
        return pixels

    frozen.decode = decoded  # type: ignore[method-assign]
    for kind in KINDS:
        mask = next(levels(laboratory, kind))
        reached, spent[0] = dict[str, float](), 0.0

        def heard(phase: str, _done: int, _total: int, reached: dict[str, float] = reached) -> None:
            reached[phase] = time.process_time()

        began = time.process_time()
        rate = space.rates.rate(space.customary_rate(mask))
        laboratory.evaluate(space.trained(mask), rate, config.tuning.steps, heard)
        found = {
            "tune_s": reached["tune"] - began,
            "sample_s": reached["sample"] - reached["tune"] - spent[0],
            "decode_s": spent[0],
            "score_s": time.process_time() - reached["sample"],
        }
        settings = {"groups": kind, "steps": config.tuning.steps, "images": config.sampling.images}
        yield settings | {name: round(seconds, 3) for name, seconds in found.items()}
    frozen.decode = decode  # type: ignore[method-assign]


MEASURED = dict(zip(PARTS, (measured_steps, measured_sampling, measured_convolutions, measured_trials), strict=True))


def main() -> None:
    """Measure as the command line asks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=4, help="readings in each round")
    parser.add_argument("--out", type=Path, default=HERE / "results.jsonl")
    options = parser.parse_args()
    torch.set_num_threads(1)
    laboratory = Laboratory(RunConfig(), cache=Cache(default_cache_folder()), device="cpu")
    known = [json.loads(text) for text in options.out.read_text().splitlines()] if options.out.exists() else []
    lines = [line for line in known if line["part"] not in options.parts]
    for part in options.parts:
        for line in MEASURED[part](laboratory, Stopwatch(options.rounds, options.repeats)):
            lines.append({"part": part, **line})
            options.out.write_text("".join(json.dumps(line) + "\n" for line in lines))


if __name__ == "__main__":
    main()
