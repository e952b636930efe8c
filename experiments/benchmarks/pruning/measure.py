"""Candidates trained to their ends and scored on the way, so that pruning can be replayed without training anything.

    python experiments/benchmarks/pruning/measure.py --worker 0/2
    python experiments/benchmarks/pruning/measure.py --worker 1/2

For each seed the known baselines and random masks at random rates are trained as the default search trains them, under
each variant: `average` samples the running average of the tuned tensors at each share of the steps, as a search does,
`raw` the tensors themselves, and `constant` the average of a training whose rate does not fall. Objectives are scored
by the first 32, 64, 128 and 256 images at each share. Appends one JSON line for each training to trials-I.jsonl; lines
that are there are not computed again, whichever worker wrote them. `replay.py` makes the tables.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from memcontrol.cache import Cache, default_cache_folder
from memcontrol.config import RunConfig, Rung, ScoringConfig, SearchConfig
from memcontrol.score import Score
from memcontrol.study.candidate import Candidate, CandidateSpace
from memcontrol.study.trial import Laboratory, Reached

HERE = Path(__file__).parent
SHARES = (0.125, 0.25, 0.5, 0.75)
IMAGES = (32, 64, 128, 256)
VARIANTS: dict[str, dict[str, Any]] = {"average": {}, "raw": {"ema_decay": 0.0}, "constant": {"schedule": "constant"}}
Line = dict[str, Any]


def lines(folder: Path) -> list[Line]:
    """What is there, without a line that an interruption cut off."""
    files = sorted(folder.glob("trials-*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().split("\n")[:-1]]


def key(line: Line) -> tuple[object, ...]:
    return line["seed"], line["variant"], line["mask"], line["learning_rate"], line["steps"], line["images"]


def candidates(space: CandidateSpace, seed: int, count: int) -> list[Candidate]:
    """The known baselines, then random masks of uniformly distributed size at random rates."""
    rng, found = np.random.default_rng([seed, 605]), dict.fromkeys(space.baselines())
    while len(found) < count:
        size = int(rng.integers(1, len(space.groups) + 1))
        chosen = set(rng.permutation(len(space.groups))[:size].tolist())
        levels = [int(place in chosen) for place in range(len(space.groups))]
        found.setdefault(space.candidate(levels, int(rng.integers(space.rates.first, space.rates.last + 1))))
    return list(found)[:count]


def laboratory_of(seed: int, variant: str, options: argparse.Namespace) -> Laboratory:
    default = RunConfig()
    config = RunConfig(
        seed=seed,
        tuning=default.tuning.model_copy(update={"steps": options.steps, **VARIANTS[variant]}),
        sampling=default.sampling.model_copy(update={"images": options.images}),
        scoring=ScoringConfig(reported=()),
        search=SearchConfig(rungs=tuple(Rung(share=share, images=options.images) for share in SHARES), eta=1.0),
    )
    return Laboratory(config, cache=Cache(default_cache_folder()), device="cpu")


class Watch:
    """What a candidate scores on the way, and the CPU seconds of training between looks."""

    def __init__(self, laboratory: Laboratory) -> None:
        self.scorer = laboratory.scorer.only(laboratory.config.scoring.objectives)
        self.prompts = laboratory.prompts
        self.rungs = list[Line]()
        self.tuned, self.at = 0.0, time.process_time()

    def on_step(self, phase: str, _done: int, _total: int) -> None:
        now = time.process_time()
        if phase == "tune":
            self.tuned += now - self.at
        self.at = now

    def __call__(self, reached: Reached) -> bool:
        images = reached.evaluation.images
        scores = {
            str(count): written(self.scorer(images[:count], self.prompts[:count]))
            for count in IMAGES
            if count < len(images)
        }
        scores[str(len(images))] = written(reached.evaluation.scores)
        steps = reached.evaluation.steps
        self.rungs.append(
            {"share": reached.rung.share, "steps": steps, "tuned_s": round(self.tuned, 3), "scores": scores}
        )
        self.at = time.process_time()
        return True


def written(scores: dict[str, Score]) -> dict[str, Any]:
    return {name: score.to_json() for name, score in scores.items()}


def trained(laboratory: Laboratory, candidate: Candidate, variant: str) -> Line:
    space, config, watch = laboratory.candidates, laboratory.config, Watch(laboratory)
    groups = space.trained(candidate.levels)
    found = laboratory.evaluate(groups, candidate.learning_rate, candidate.steps, watch.on_step, judge=watch)
    return {
        "seed": config.seed,
        "variant": variant,
        "mask": candidate.mask,
        "learning_rate": candidate.learning_rate,
        "steps": candidate.steps,
        "images": config.sampling.images,
        "baseline": candidate in space.baselines(),
        "rungs": watch.rungs,
        "scores": written(found.scores),
        "tuned_s": round(watch.tuned, 3),
    }


def sampling_seconds(laboratory: Laboratory) -> float:
    """CPU seconds to sample and score all images once: the untuned model's, real images being encoded already."""
    laboratory.untuned(lambda *_: None)
    began = time.process_time()
    laboratory.untuned(lambda *_: None)
    return round(time.process_time() - began, 3)


def work(options: argparse.Namespace) -> Iterator[Line]:
    done = {key(line) for line in lines(options.out)}
    part, parts = options.worker
    for seed in options.seeds:
        for variant in options.variants:
            laboratory = laboratory_of(seed, variant, options)
            chosen = candidates(laboratory.candidates, seed, options.candidates)[part::parts]
            sampled_s = sampling_seconds(laboratory)
            for candidate in chosen:
                named = (seed, variant, candidate.mask, candidate.learning_rate, candidate.steps, options.images)
                if named not in done:
                    yield trained(laboratory, candidate, variant) | {"sampled_s": sampled_s}


def share(text: str) -> tuple[int, int]:
    part, _, parts = text.partition("/")
    if not (part.isdigit() and parts.isdigit() and int(part) < int(parts)):
        raise argparse.ArgumentTypeError(f"{text!r}: expected I/N with 0 <= I < N, such as 0/2")
    return int(part), int(parts)


def main() -> None:
    default = RunConfig()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worker", type=share, default=(0, 1), metavar="I/N")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=["average"])
    parser.add_argument("--candidates", type=int, default=30)
    parser.add_argument("--steps", type=int, default=default.tuning.steps)
    parser.add_argument("--images", type=int, default=default.sampling.images)
    parser.add_argument("--out", type=Path, default=HERE)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / f"trials-{options.worker[0]}.jsonl"
    kept = file.read_text().split("\n")[:-1] if file.exists() else []
    file.write_text("".join(f"{line}\n" for line in kept))
    with file.open("a") as stream:
        for line in work(options):
            stream.write(json.dumps(line) + "\n")
            stream.flush()


if __name__ == "__main__":
    main()
