"""Masks trained with a short and a long inner loop, twice each: does the short one rank them as the long one does?

    python experiments/short_vs_long/measure.py --worker 0/2
    python experiments/short_vs_long/measure.py --worker 1/2

Masks of `stage-kinds`, drawn at random with sizes spread over the whole range, each at its customary learning rate.
Every length is a training of its own, whose rate decays to zero. The two trainings of a mask and length share the
training set and differ in batches, noise and sampling. Appends one JSON line for each training to runs-I.jsonl; lines
that are there are not computed again, whichever worker wrote them. `summarise.py` makes the tables.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from memcontrol.cache import Cache, default_cache_folder
from memcontrol.config import DataConfig, RunConfig, SamplingConfig, ScoringConfig
from memcontrol.study.trial import Laboratory

HERE = Path(__file__).parent
SPACE, GROUPS = "stage-kinds", 14
GAP = "copy_gap@pixels"
REPORTED = ("amd@efficientnet-lite0", "copied_share@pixels")
TRAININGS = 2
"""Of each mask and length; their seeds are the training set's own and the next."""


class Training(NamedTuple):
    """One training.

    Attributes:
        drawn: seed of the training set's draw.
        seed: of batches, noise and sampling.
        mask: zeros and ones.
    """

    drawn: int
    mask: str
    steps: int
    seed: int
    images: int


def masks(count: int) -> list[str]:
    """Distinct masks, first of one group and last of all; the same ones whatever the training set."""
    rng = np.random.default_rng(601)
    drawn: dict[str, None] = {}
    for index in range(count):
        size, mask = 1 + index * GROUPS // count, ""
        while not mask or mask in drawn:
            chosen = set(rng.permutation(GROUPS)[:size].tolist())
            mask = "".join(str(int(place in chosen)) for place in range(GROUPS))
            size = max(1, size - 1) if mask in drawn and size == GROUPS else size
        drawn[mask] = None
    return list(drawn)


def trainings(options: argparse.Namespace) -> list[Training]:
    """This worker's share, a mask at a time, its short trainings first; sizes are mixed, so that a part is of use."""
    part, parts = options.worker
    chosen = np.random.default_rng(602).permutation(masks(options.masks)).tolist()[part::parts]
    return [
        Training(drawn, mask, steps, drawn + again, options.images)
        for drawn in options.sets
        for mask in chosen
        for steps in sorted(options.steps)
        for again in range(TRAININGS)
    ]


def lines(folder: Path) -> list[dict[str, Any]]:
    """What is there, without a line that an interruption cut off."""
    files = sorted(folder.glob("runs-*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().split("\n")[:-1]]


def known(folder: Path) -> set[Training]:
    return {Training(*(line[name] for name in Training._fields)) for line in lines(folder)}


def laboratory_of(training: Training) -> Laboratory:
    config = RunConfig(
        space=SPACE,
        seed=training.seed,
        data=DataConfig(seed=training.drawn),
        sampling=SamplingConfig(images=training.images),
        scoring=ScoringConfig(reported=REPORTED),
    )
    return Laboratory(config, cache=Cache(default_cache_folder()), device="cpu")


def trained(laboratory: Laboratory, training: Training) -> dict[str, Any]:
    space, levels = laboratory.candidates, [int(bit) for bit in training.mask]
    rate = space.candidate(levels, space.customary_rate(levels)).learning_rate
    groups = space.trained(levels)
    began = time.process_time()
    evaluation = laboratory.evaluate(groups, rate, training.steps, lambda *_: None)
    line = training._asdict() | {"learning_rate": rate, "numel": sum(group.numel for group in groups)}
    line["scores"] = {name: round(score.value, 6) for name, score in evaluation.scores.items()}
    line["raw"] = {GAP: round(evaluation.scores[GAP].raw or 0.0, 6)}
    return line | {"loss": evaluation.loss, "cpu_s": round(time.process_time() - began, 2)}


def work(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    done = known(options.out)
    laboratories: dict[tuple[int, int], Laboratory] = {}
    for training in trainings(options):
        if training in done:
            continue
        key = training.drawn, training.seed
        if not any(drawn == training.drawn for drawn, _ in laboratories):
            laboratories.clear()  # those of the training set before
        if key not in laboratories:
            laboratories[key] = laboratory_of(training)
        yield trained(laboratories[key], training)


def share(text: str) -> tuple[int, int]:
    part, _, parts = text.partition("/")
    if not (part.isdigit() and parts.isdigit() and int(part) < int(parts)):
        raise argparse.ArgumentTypeError(f"{text!r}: expected I/N with 0 <= I < N, such as 0/2")
    return int(part), int(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, nargs="+", default=[0], help="seeds of the training sets")
    parser.add_argument("--masks", type=int, default=40)
    parser.add_argument("--steps", type=int, nargs="+", default=[75, 150, 300, 900])
    parser.add_argument("--images", type=int, default=SamplingConfig().images)
    parser.add_argument("--worker", type=share, default=(0, 1), metavar="I/N")
    parser.add_argument("--out", type=Path, default=HERE)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / f"runs-{options.worker[0]}.jsonl"
    if file.exists():  # a line that an interruption cut off is computed again
        file.write_text("".join(f"{line}\n" for line in file.read_text().split("\n")[:-1]))
    with file.open("a") as stream:
        for line in work(options):
            stream.write(json.dumps(line) + "\n")
            stream.flush()


if __name__ == "__main__":
    main()
