"""Times a training step, a sampling step and the decoder in float32, bf16 and channels last; scores what is faster.

    python experiments/benchmarks/precision/measure.py
    python experiments/benchmarks/precision/measure.py --scores "bf16 decoder"

Each variant runs in processes of its own, since some end with a segmentation fault. Each measurement is one JSON line
of results.jsonl; the first command writes timings anew, the second scores: of variants of sampling or of the decoder
and, where `--training` is given, of training. `--table` prints the README's tables.
"""

import argparse
import json
import multiprocessing
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from variants import DECODER, SAMPLING, TRAINING, lone
from works import Line, Make, mask_groups, works

from memcontrol.cache import Cache, default_cache_folder
from memcontrol.config import RunConfig
from memcontrol.finetuning import finetune
from memcontrol.methods import tuned
from memcontrol.sampling import sample
from memcontrol.study.trial import Laboratory

HERE = Path(__file__).parent
HALVED = "bf16 decoder"
FD, GAP = "fd@efficientnet-lite0", "copy_gap@pixels"


def laboratory_of(seed: int, options: argparse.Namespace) -> Laboratory:
    """The default search's; seeds differ in batches, noise and sampling."""
    default = RunConfig()
    config = default.model_copy(
        update={
            "seed": seed,
            "data": default.data.model_copy(update={"seed": 0}),
            "tuning": default.tuning.model_copy(update={"steps": options.steps}),
            "sampling": default.sampling.model_copy(update={"images": options.images}),
            "scoring": default.scoring.model_copy(update={"objectives": (FD, GAP), "reported": ()}),
        }
    )
    return Laboratory(config, cache=Cache(default_cache_folder()), device="cpu")


def _timed(laboratory: Laboratory, make: Make, repeats: int, voice: Any) -> None:
    work, spent = make(laboratory), list[float]()
    for _ in range(3):
        found = work()
    for _ in range(repeats):
        began = time.process_time()
        found = work()
        spent.append(time.process_time() - began)
    voice.send((spent, found.numpy()))


def timings(options: argparse.Namespace) -> Iterator[Line]:
    """Rounds of all variants, each in a process forked from this one, which never computes a gradient itself."""
    laboratory, context = laboratory_of(0, options), multiprocessing.get_context("fork")
    spent, found, ended = defaultdict[int, list[float]](list), dict[int, Any](), dict[int, int]()
    jobs = list(works())
    for _ in range(options.rounds):
        for place, (_line, make) in enumerate(jobs):
            ear, voice = context.Pipe(duplex=False)
            process = context.Process(target=_timed, args=(laboratory, make, options.repeats, voice))
            process.start()
            voice.close()
            try:
                readings, found[place] = ear.recv()
                spent[place] += readings
            except EOFError:
                pass
            process.join()
            if process.exitcode:
                ended[place] = process.exitcode
    plain = 0
    for place, (line, _make) in enumerate(jobs):
        if (line["part"], line["groups"]) != (jobs[plain][0]["part"], jobs[plain][0]["groups"]):
            plain = place
        if place in ended:
            yield line | {"exit_code": ended[place]}
            continue
        yield line | reading(spent[place], spent[plain]) | {"difference": off(found[place], found[plain])}


def reading(spent: Sequence[float], plain: Sequence[float]) -> Line:
    """Milliseconds, and how many times faster than plain by medians and by the least readings.

    Other work on the cores spoils the least ones least.
    """
    least, low, middle, high = (round(float(ms), 2) for ms in np.quantile(np.array(spent) * 1000, (0, 0.25, 0.5, 0.75)))
    faster, faster_least = float(np.median(plain) / np.median(spent)), min(plain) / min(spent)
    milliseconds = {"cpu_ms": middle, "least_ms": least, "quartiles_ms": [low, high], "n": len(spent)}
    return milliseconds | {"times_faster": round(faster, 2), "times_faster_least": round(faster_least, 2)}


def off(found: Any, plain: Any) -> float:
    """Relative difference, by Euclidean norms."""
    return float(np.linalg.norm(found - plain) / np.linalg.norm(plain))


# What it does to the scores


@contextmanager
def instead(frozen: Any, name: str) -> Iterator[None]:
    """Inside, images are sampled through a variant of the U-Net, or decoded through one of the decoder."""
    own = frozen.unet, frozen.vae
    if name in SAMPLING:
        frozen.unet = SAMPLING[name](frozen.unet)
    else:
        frozen.vae = lone(frozen.vae, dtype=DECODER[name].dtype)
    try:
        yield
    finally:
        frozen.unet, frozen.vae = own


def scores(options: argparse.Namespace) -> Iterator[Line]:
    """For each seed one training of all groups, and from it images of each variant."""
    for seed in options.seeds:
        laboratory = laboratory_of(seed, options)
        yield from trained_scores(laboratory, "float32", ("float32", *options.scores))
        if options.training:
            yield from trained_scores(laboratory, "bf16 autocast", ("float32",))


def trained_scores(laboratory: Laboratory, training: str, variants: Sequence[str]) -> Iterator[Line]:
    frozen, config, space = laboratory.frozen, laboratory.config, laboratory.candidates
    rate = space.rates.rate(space.customary_rate([1] * len(space.groups)))
    said = {"part": "scores", "seed": config.seed, "steps": config.tuning.steps, "images": config.sampling.images}
    with tuned(frozen.unet, mask_groups(laboratory, "all"), laboratory.resources) as tuning:
        steps = finetune(
            TRAINING[training].model(frozen.unet),
            tuning.parameters,
            laboratory.batches,
            learning_rate=rate,
            config=config.tuning,
            scheduler_config=frozen.scheduler_config,
            accelerator=laboratory.accelerator,
        )
        for step in steps:
            if step.number < config.tuning.steps:
                continue
            with step.averaged(), tuning.folded():
                for name in variants:
                    yield said | {"training": training, "variant": name, **sampled_scores(laboratory, name)}


def sampled_scores(laboratory: Laboratory, name: str) -> Line:
    """Both objectives of images of one variant, from the U-Net as it is."""
    frozen, config = laboratory.frozen, laboratory.config
    with instead(frozen, name):
        images = np.concatenate(list(sample(frozen, laboratory.prompts, config.sampling, seed=config.seed)))
    found = laboratory.scorer(images, laboratory.prompts)
    return {FD: found[FD].value, GAP: found[GAP].value, "raw_gap": found[GAP].raw}


def tables(lines: Sequence[Line]) -> None:
    """The README's, as Markdown."""
    print("| part | groups | variant | ms | times faster | relative difference |\n|---|---|---|---|---|---|")
    for line in lines:
        if line["part"] == "scores":
            continue
        head = f"| {line['part']} | {line['groups']} | {line['variant']} |"
        if "exit_code" in line:
            print(f"{head} ends with {line['exit_code']} | | |")
        else:
            print(f"{head} {line['cpu_ms']:.1f} | {line['times_faster']:.2f} | {line['difference']:.1e} |")
    if not any(line["part"] == "scores" for line in lines):
        return
    print(f"\n| seed | training | sampling | `{FD}` | `{GAP}` | before clipping |\n|---|---|---|---|---|---|")
    for line in lines:
        if line["part"] == "scores":
            values = f"{line[FD]:.4g} | {line[GAP]:.4f} | {line['raw_gap']:.4f}"
            print(f"| {line['seed']} | {line['training']} | {line['variant']} | {values} |")


def main() -> None:
    """Measure as the command line asks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=6, help="readings in each round")
    parser.add_argument("--scores", nargs="*", choices=[*SAMPLING, HALVED], help="what to score")
    parser.add_argument("--training", action="store_true", help="score a training under bf16 autocast, too")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--steps", type=int, default=RunConfig().tuning.steps, help="of a training that is scored")
    parser.add_argument("--images", type=int, default=RunConfig().sampling.images, help="that are scored")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--out", type=Path, default=HERE / "results.jsonl")
    options = parser.parse_args()
    lines = [json.loads(text) for text in options.out.read_text().splitlines()] if options.out.exists() else []
    if options.table:
        tables(lines)
        return
    torch.set_num_threads(1)
    scored = options.scores is not None
    lines = [line for line in lines if (line["part"] == "scores") != scored]
    for line in scores(options) if scored else timings(options):
        lines.append(line)
        options.out.write_text("".join(json.dumps(line) + "\n" for line in lines))


if __name__ == "__main__":
    main()
