"""Times a U-Net's training step, a call of it in sampling, and whole trials: traced or not, with products or without.

    python experiments/benchmarks/tracing/measure.py

`step` is forward and backward of the search's first batch, `sampling` one call at 64 images, `layer` one 1 x 1
convolution, `attention` one of narrow heads, `attached` a training step of other methods, `decoder` and `encoder` 16
images, `tracing` what tracing itself takes, and `trial` a whole trial by phase.
Each measurement is one JSON line of results.jsonl, which is written anew for the parts that are asked for; `--table`
prints the README's tables.
"""

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from diffusers.models.attention_processor import AttnProcessor2_0
from torch import nn

from memcontrol.cache import Cache, default_cache_folder
from memcontrol.config import RunConfig
from memcontrol.data.packages import package_file
from memcontrol.encoders.efficientnet import FILE, EfficientNetLite0, pretrained
from memcontrol.finetuning.loss import Objective
from memcontrol.groups import ParameterGroup
from memcontrol.methods import tuned
from memcontrol.pipeline.narrow_attention import attend_by_products, attended
from memcontrol.pipeline.pointwise import multiply_pointwise
from memcontrol.pipeline.upsampling import upsample_in_quarters
from memcontrol.study.placement import take_device
from memcontrol.study.trial import Laboratory
from memcontrol.tracing import Traces, traces

HERE = Path(__file__).parent
PARTS = ("step", "sampling", "layer", "attention", "attached", "decoder", "encoder", "tracing", "trial")
WAYS = {"neither": (False, False), "products": (True, False), "replayed": (False, True), "both": (True, True)}
"""Whether 1 x 1 convolutions and narrow attention are matrix products, and whether operations are replayed."""
COMPARED = {"replayed": "neither", "both": "products"}
"""What must give the same bits."""
UNTRACED = SimpleNamespace(replayed=nullcontext)
RANDOM_MASKS = 8
SIZES = ((16, 16, 16, 8), (16, 48, 16, 8), (16, 32, 32, 4), (64, 32, 32, 4), (4, 320, 320, 32), (4, 1280, 1280, 8))
"""Images, channels in and out, and side of a layer's input: `tiny` in training and sampling, then SD 1.5."""
ATTENTIONS = ((16, 64, 64), (16, 64, 24), (64, 64, 64), (64, 64, 24), (16, 256, 256))
"""Images, queries and keys of two heads of eight numbers: `tiny`, and as many as the fused attention is left."""
ATTACHED: dict[str, tuple[tuple[type[nn.Module], ...], dict[str, float]]] = {
    "svdiff": ((nn.Conv2d, nn.Linear, nn.GroupNorm, nn.LayerNorm), {}),
    "difffit": ((nn.Linear,), {}),
    "lora": ((nn.Linear,), {"rank": 4, "alpha": 4}),
}
"""Layers that each method is put on, and its settings."""
SHAPE = ("images", "channels", "side", "queries", "keys")
Line = dict[str, Any]


class Bench:
    """A search's laboratory, with either way of each part.

    Attributes:
        traces: made of the U-Net without products, and with them.
    """

    def __init__(self) -> None:
        self.laboratory = Laboratory(RunConfig(), cache=Cache(default_cache_folder()), device="cpu")
        self.unet = self.laboratory.frozen.unet
        self.traces = {products: Traces(self.unet) for products in (False, True)}
        scorer = self.laboratory.scorer
        scorer(scorer.real.fidelity)  # features of real images, which all trials of a run share

    @contextmanager
    def way(self, name: str) -> Iterator[None]:
        """Inside, the U-Net computes in one of `WAYS`."""
        products, replayed = WAYS[name]
        if not products:
            self.unet.set_attn_processor(AttnProcessor2_0())
            for module in self.unet.modules():
                vars(module).pop("_conv_forward", None)
        self.laboratory.traces = self.traces[products] if replayed else UNTRACED
        try:
            with self.laboratory.traces.replayed():
                yield
        finally:
            multiply_pointwise(self.unet)
            attend_by_products(self.unet)

    def masks(self) -> dict[str, list[int]]:
        """Levels by the mask's name."""
        groups, rng = self.laboratory.candidates.groups, np.random.default_rng(907)
        kinds = {"all": "", "attention": "attention", "norms": "norms"}
        named = {name: [int(group.name.endswith(ending)) for group in groups] for name, ending in kinds.items()}
        count = len(groups)
        drawn = [rng.permutation(np.arange(count) < rng.integers(1, count + 1)) for _ in range(RANDOM_MASKS)]
        return named | {f"random {place}": [int(bit) for bit in mask] for place, mask in enumerate(drawn)}


def timed(work: Callable[[], object], readings: int) -> list[float]:
    """Milliseconds of CPU time, after two calls that are not timed."""
    work(), work()
    found = []
    for _ in range(readings):
        began = time.process_time()
        work()
        found.append(1e3 * (time.process_time() - began))
    return found


def milliseconds(spent: list[float]) -> Line:
    return {"ms": round(float(np.median(spent)), 3), "least_ms": round(min(spent), 3), "readings": len(spent)}


def measured_steps(bench: Bench, options: argparse.Namespace) -> Iterator[Line]:
    laboratory = bench.laboratory
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler.from_config(laboratory.frozen.scheduler_config)
    objective, batch = Objective(bench.unet, scheduler, laboratory.accelerator), laboratory.batches.at(0)
    for name, levels in bench.masks().items():
        spent, found = defaultdict[str, list[float]](list), dict[str, tuple[torch.Tensor, ...]]()
        with tuned(bench.unet, laboratory.candidates.trained(levels)) as tuning:
            tensors = list(tuning.parameters.values())

            def step(tensors: list[Any] = tensors) -> tuple[torch.Tensor, ...]:
                predicted = objective.predicted(batch)
                loss = objective.loss(batch, objective.errors(batch, predicted), None, float(len(batch)))
                return torch.autograd.grad(loss, tensors)

            for _ in range(options.rounds):
                for way in WAYS:
                    with bench.way(way):
                        spent[way] += timed(step, options.readings)
                        found[way] = step()
        for way, readings in spent.items():
            line = {"mask": name, "numel": sum(map(torch.numel, tensors)), "way": way} | milliseconds(readings)
            if way in COMPARED:
                line["same_bits"] = all(map(torch.equal, found[way], found[COMPARED[way]]))
            yield line


@torch.no_grad()
def measured_sampling(bench: Bench, options: argparse.Namespace) -> Iterator[Line]:
    frozen, size = bench.laboratory.frozen, bench.laboratory.config.sampling.batch
    noise = torch.randn((size, *frozen.latent_shape), generator=torch.Generator().manual_seed(713))
    text = frozen.text_embeddings(bench.laboratory.prompts)
    told = () if text is None else (text.at(np.arange(size)),)
    spent, found = defaultdict[str, list[float]](list), dict[str, torch.Tensor]()
    for _ in range(options.rounds):
        for way in WAYS:
            with bench.way(way):
                spent[way] += timed(lambda: bench.unet(noise, torch.tensor(500), *told, return_dict=False), 8)
                found[way] = bench.unet(noise, torch.tensor(500), *told, return_dict=False)[0]
    for way, readings in spent.items():
        line = {"images": size, "way": way} | milliseconds(readings)
        if way in COMPARED:
            line["same_bits"] = torch.equal(found[way], found[COMPARED[way]])
        yield line


def measured_layers(_bench: Bench, options: argparse.Namespace) -> Iterator[Line]:
    """Forward alone, and forward and backward to input, weight and bias."""
    for images, before, after, side in SIZES:
        given = torch.randn((images, before, side, side), requires_grad=True)
        layer = nn.Conv2d(before, after, 1)
        spent = defaultdict[tuple[str, str], list[float]](list)

        def forward(layer: nn.Conv2d = layer, given: torch.Tensor = given) -> object:
            with torch.no_grad():
                return layer(given)

        def both(layer: nn.Conv2d = layer, given: torch.Tensor = given) -> object:
            return torch.autograd.grad(layer(given).sum(), [given, layer.weight, layer.bias])

        for _ in range(options.rounds):
            for way in ("convolution", "product"):
                vars(layer).pop("_conv_forward", None)
                if way == "product":
                    multiply_pointwise(layer)
                for what, work in (("forward", forward), ("forward and backward", both)):
                    spent[what, way] += timed(work, 5 * options.readings)
        for (what, way), readings in spent.items():
            sizes = {"images": images, "channels": [before, after], "side": side}
            yield sizes | {"what": what, "way": way} | milliseconds(readings)


def measured_attention(_bench: Bench, options: argparse.Namespace) -> Iterator[Line]:
    """Forward alone, and forward and backward to queries, keys and values."""

    def fused(*given: torch.Tensor) -> torch.Tensor:
        split = [one.view(len(one), -1, 2, 8).transpose(1, 2) for one in given]
        found = nn.functional.scaled_dot_product_attention(*split)
        return found.transpose(1, 2).reshape(given[0].shape)

    def products(*given: torch.Tensor) -> torch.Tensor:
        return attended(*given, 2)

    for images, queries, keys in ATTENTIONS:
        given = [torch.randn((images, count, 16), requires_grad=True) for count in (queries, keys, keys)]
        spent = defaultdict[tuple[str, str], list[float]](list)
        for _ in range(options.rounds):
            for way, attend in (("fused", fused), ("products", products)):

                def forward(attend: Any = attend, given: Any = given) -> object:
                    with torch.no_grad():
                        return attend(*given)

                def both(attend: Any = attend, given: Any = given) -> object:
                    return torch.autograd.grad(attend(*given).sum(), given)

                for what, work in (("forward", forward), ("forward and backward", both)):
                    spent[what, way] += timed(work, 5 * options.readings)
        for (what, way), readings in spent.items():
            sizes = {"images": images, "queries": queries, "keys": keys}
            yield sizes | {"what": what, "way": way} | milliseconds(readings)


def measured_attached(bench: Bench, options: argparse.Namespace) -> Iterator[Line]:
    """A step of methods that change layers: by their layers, and replayed on the tensors that these make."""
    laboratory = bench.laboratory
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler.from_config(laboratory.frozen.scheduler_config)
    objective, batch = Objective(bench.unet, scheduler, laboratory.accelerator), laboratory.batches.at(0)
    for method, (kinds, settings) in ATTACHED.items():
        modules = [name for name, module in bench.unet.named_modules() if isinstance(module, kinds)]
        group = ParameterGroup("all", method, tuple(f"{name}.weight" for name in modules), 0, settings=settings)
        made, spent = Traces(bench.unet), defaultdict[str, list[float]](list)
        with tuned(bench.unet, [group], laboratory.resources) as tuning:
            tensors = list(tuning.parameters.values())

            def step(tensors: list[Any] = tensors) -> object:
                predicted = objective.predicted(batch)
                loss = objective.loss(batch, objective.errors(batch, predicted), None, float(len(batch)))
                return torch.autograd.grad(loss, tensors)

            for _ in range(options.rounds):
                spent["by its layers"] += timed(step, options.readings)
                with made.replayed(tuning.tensors):
                    spent["replayed"] += timed(step, options.readings)
        for way, readings in spent.items():
            yield {"method": method, "weights": len(modules), "way": way} | milliseconds(readings)


@torch.no_grad()
def measured_decoder(bench: Bench, options: argparse.Namespace) -> Iterator[Line]:
    """As diffusers has it, and upsampling in quarters."""
    spent = defaultdict[str, list[float]](list)
    frozen: Any = bench.laboratory.frozen
    latents = torch.randn((16, *frozen.latent_shape), generator=torch.Generator().manual_seed(713))
    for _ in range(options.rounds):
        for way in ("whole", "quarters"):
            for module in frozen.vae.modules():
                vars(module).pop("forward", None)
            if way == "quarters":
                upsample_in_quarters(frozen.vae)
            spent[way] += timed(lambda: frozen.decode(latents), options.readings)
    for way, readings in spent.items():
        yield {"images": 16, "way": way} | milliseconds(readings)


@torch.no_grad()
def measured_encoder(bench: Bench, options: argparse.Namespace) -> Iterator[Line]:
    """EfficientNet as its package has it, and folded."""
    encoder, spent = EfficientNetLite0(), defaultdict[str, list[float]](list)
    plain = pretrained(package_file(*FILE, extra="demo"), encoder.size).to(memory_format=torch.channels_last)
    pixels = bench.laboratory.dataset.training.pixels()[:16]
    inputs = encoder._inputs(pixels)

    def whole() -> object:
        return plain.extract_features(inputs).mean(dim=(2, 3))

    def folded() -> object:
        return encoder._network.extract_features(inputs).mean(dim=(2, 3))

    for _ in range(options.rounds):
        for way, work in (("as it comes", whole), ("folded", folded)):
            spent[way] += timed(work, options.readings)
    for way, readings in spent.items():
        yield {"images": 16, "way": way} | milliseconds(readings)


def measured_tracing(bench: Bench, _options: argparse.Namespace) -> Iterator[Line]:
    """Seconds of a call that is traced, of a next mask's first, and of an ordinary one."""
    laboratory = bench.laboratory
    batch = laboratory.batches.at(0)
    inputs = (batch.clean, batch.timesteps, *batch.conditioning)
    masks = bench.masks()
    for repetition in range(3):
        made, spent = Traces(bench.unet), dict[str, float]()

        def call(name: str, made: Traces = made, spent: dict[str, float] = spent) -> None:
            with made.replayed():
                began = time.process_time()
                bench.unet(*inputs, return_dict=False)
                spent[name] = round(time.process_time() - began, 3)

        for name, mask in (("traced with gradients", "all"), ("cut for another mask", "norms")):
            with tuned(bench.unet, laboratory.candidates.trained(masks[mask])):
                call(name)
        call("traced without gradients")
        yield {"repetition": repetition, "seconds": spent}


def measured_trials(bench: Bench, options: argparse.Namespace) -> Iterator[Line]:
    """CPU seconds of default trials; what a worker traces in its first ones is traced before."""
    laboratory, space = bench.laboratory, bench.laboratory.candidates
    steps, names = laboratory.config.tuning.steps, ("all", "attention", "norms", "random 0")
    trained = {name: space.trained(bench.masks()[name]) for name in names}
    rates = {name: space.rates.rate(space.customary_rate(bench.masks()[name])) for name in names}
    for way in WAYS:
        with bench.way(way):
            laboratory.evaluate(trained["all"], rates["all"], 2, lambda *_: None)
    for repetition in range(options.repetitions):
        for name in names:
            for way in list(WAYS)[:: 1 if repetition % 2 == 0 else -1]:
                reached = dict[str, float]()

                def heard(phase: str, _done: int, _total: int, reached: dict[str, float] = reached) -> None:
                    reached[phase] = time.process_time()

                with bench.way(way):
                    began = time.process_time()
                    scores = laboratory.evaluate(trained[name], rates[name], steps, heard).scores
                    ended = time.process_time()
                found = {
                    "tune_s": reached["tune"] - began,
                    "sample_s": reached["sample"] - reached["tune"],
                    "score_s": ended - reached["sample"],
                    "trial_s": ended - began,
                }
                values = {key: scores[key].value for key in laboratory.config.scoring.objectives}
                rounded = {key: round(seconds, 2) for key, seconds in found.items()}
                yield {"repetition": repetition, "mask": name, "way": way} | rounded | {"scores": values}


MEASURED = {
    "step": measured_steps,
    "sampling": measured_sampling,
    "layer": measured_layers,
    "attention": measured_attention,
    "attached": measured_attached,
    "decoder": measured_decoder,
    "encoder": measured_encoder,
    "tracing": measured_tracing,
    "trial": measured_trials,
}


def rows(lines: list[Line]) -> dict[tuple[str, ...], dict[str, list[float]]]:
    """Readings by what was measured and way."""
    found: dict[tuple[str, ...], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        if line["part"] in ("step", "sampling"):
            found[line["part"], line.get("mask", "64 images")][line["way"]].append(line["ms"])
        elif line["part"] == "trial":
            for key in ("tune_s", "sample_s", "score_s", "trial_s"):
                found["trial", line["mask"], key][line["way"]].append(line[key])
    return found


def tables(lines: list[Line]) -> None:
    """The README's tables, in Markdown."""
    print("| | " + " | ".join(WAYS) + " | both, times faster |\n|---|" + "---|" * (len(WAYS) + 1))
    for name, ways in rows(lines).items():
        means = [float(np.mean(ways[way])) for way in WAYS]
        print(
            f"| {', '.join(name)} | " + " | ".join(f"{one:.1f}" for one in means) + f" | {means[0] / means[-1]:.2f} |"
        )
    layers = [one for one in lines if one["part"] in ("layer", "attention")]
    print("\n| | what | before, us | products, us | times faster |\n|---|---|---|---|---|")
    for one in (line for line in layers if line["way"] in ("convolution", "fused")):
        other = layers[next(place for place, line in enumerate(layers) if line is one) + 2]
        sizes = ", ".join(f"{key} {one[key]}" for key in SHAPE if key in one)
        times = f"{1e3 * one['ms']:.0f} | {1e3 * other['ms']:.0f} | {one['ms'] / other['ms']:.2f}"
        print(f"| {sizes} | {one['what']} | {times} |")
    print("\n| | ms | with | ms | times faster |\n|---|---|---|---|---|")
    for part in ("attached", "decoder", "encoder"):
        pair = [line for line in lines if line["part"] == part]
        for before, after in zip(pair[::2], pair[1::2], strict=True):
            ways = [f"{line['way']} | {line['ms']:.1f}" for line in (before, after)]
            times = before["ms"] / after["ms"]
            print(f"| {before.get('method', part)}, {' | '.join(ways)} | {times:.2f} |")
    print()
    for line in lines:
        if line["part"] == "tracing":
            print(line["seconds"])
    compared = [line["same_bits"] for line in lines if "same_bits" in line]
    print(f"replayed as computed, to the last bit: {sum(compared)} of {len(compared)}")


def main() -> None:
    """Measure as the command line asks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=6, help="in each of which all ways take turns")
    parser.add_argument("--readings", type=int, default=10, help="of each way in each round")
    parser.add_argument("--repetitions", type=int, default=2, help="of each trial")
    parser.add_argument("--table", action="store_true", help="print the tables alone")
    parser.add_argument("--out", type=Path, default=HERE / "results.jsonl")
    options = parser.parse_args()
    known = [json.loads(text) for text in options.out.read_text().splitlines()] if options.out.exists() else []
    if not options.table:
        take_device("cpu")
        traces.OFTEN = 0
        bench = Bench()
        known = [line for line in known if line["part"] not in options.parts]
        for part in options.parts:
            for line in MEASURED[part](bench, options):
                known.append({"part": part, **line})
                options.out.write_text("".join(json.dumps(one) + "\n" for one in known))
    tables(known)


if __name__ == "__main__":
    main()
