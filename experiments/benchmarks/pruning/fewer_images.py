"""Whole searches that score a candidate by fewer images, on fresh seeds, beside searches that score it by all.

    python experiments/benchmarks/pruning/fewer_images.py --worker 0/2 --work runs/fewer-images
    python experiments/benchmarks/pruning/fewer_images.py --table

For each seed two searches of the default, one worker each, whose sampler sees scores of 256 images or of the first 128
of them. A training is shared by both, and every candidate of either has its scores by 64, 128 and all 256 images in
fewer-images-*.jsonl, one line for each finished search. `--table` chooses each search's front by what its sampler saw
and judges it by all images, and writes searches_of_fewer_images.json. An interrupted search resumes.
"""

import argparse
import csv
import json
import pickle
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from replay import markdown, scaled
from summarise import interval

from memcontrol.cache import Cache, default_cache_folder
from memcontrol.config import ConfirmConfig, RunConfig, SamplingConfig
from memcontrol.fingerprint import fingerprint
from memcontrol.groups import ParameterGroup
from memcontrol.run import RunFolder, write_atomically
from memcontrol.score import Score
from memcontrol.study.events import ignore
from memcontrol.study.front import front_positions, hypervolume
from memcontrol.study.placement import take_device
from memcontrol.study.references import FREEZE
from memcontrol.study.results import write_results
from memcontrol.study.trial import Evaluation, Laboratory, OnStep
from memcontrol.study.worker import Worker

HERE = Path(__file__).parent
ALL, FEWER, LEAST = 256, 128, 64
ARMS = (ALL, FEWER)
SHOWN = 48
"""Images of a training that are kept for the trial's picture."""
Floats = NDArray[np.float64]
Line = dict[str, Any]


@dataclass(frozen=True)
class Training:
    """What one training scores, by number of images; `LEAST` has the objectives alone."""

    whole: Evaluation
    scores: dict[int, dict[str, Score]]


class Shared:
    """Trainings of one seed, each done once and scored by 256 images, and by the first 128 and 64 of them."""

    def __init__(self, seed: int, folder: Path) -> None:
        cache = Cache(default_cache_folder())
        first = Laboratory(configured(seed, ALL), cache=cache, device="cpu")
        self.folder, self.done = folder, dict[str, Training]()
        self.trained, self.untuned = first.evaluate, first.untuned
        self.laboratories = {ALL: first}
        for images in (FEWER, LEAST):
            config = configured(seed, images)
            frozen, dataset = first.frozen, first.dataset
            self.laboratories[images] = Laboratory(config, cache=cache, device="cpu", frozen=frozen, dataset=dataset)
        folder.mkdir(parents=True, exist_ok=True)

    def laboratory(self, images: int) -> Laboratory:
        """One whose evaluations are looked up here."""
        found = self.laboratories[images]
        found.evaluate = partial(self.evaluated, images)  # type: ignore[method-assign]
        found.untuned = partial(self.scored, images, FREEZE, self.untuned)  # type: ignore[method-assign]
        return found

    def evaluated(
        self, images: int, groups: tuple[ParameterGroup, ...], rate: float | None, steps: int, told: OnStep, **_: Any
    ) -> Evaluation:
        """In place of `Laboratory.evaluate`."""
        if rate is None:
            return self.scored(images, FREEZE, self.untuned, told)
        return self.scored(images, named(groups, rate, steps), partial(self.trained, groups, rate, steps), told)

    def scored(self, images: int, name: str, train: Any, told: OnStep) -> Evaluation:
        file = self.file(name)
        if name not in self.done and file.exists():
            self.done[name] = pickle.loads(file.read_bytes())
        if name not in self.done:
            whole = train(told)
            scores = {ALL: whole.scores, FEWER: self.by(FEWER, whole), LEAST: self.by(LEAST, whole)}
            self.done[name] = Training(replace(whole, images=whole.images[:SHOWN]), scores)
            write_atomically(file, pickle.dumps(self.done[name]))
        training = self.done[name]
        return replace(training.whole, scores=training.scores[images])

    def by(self, images: int, whole: Evaluation) -> dict[str, Score]:
        laboratory = self.laboratories[images]
        scorer = laboratory.scorer.only(laboratory.config.scoring.objectives) if images == LEAST else laboratory.scorer
        known = {} if images == LEAST else whole.scores  # which has what is measured on the model, not on images
        return known | scorer(whole.images[:images], laboratory.prompts)

    def values(self, name: str) -> dict[str, list[float]]:
        """A training's objectives by number of images."""
        objectives = self.laboratories[ALL].config.scoring.objectives
        training = self.done[name] if name in self.done else pickle.loads(self.file(name).read_bytes())
        return {str(n): [scores[one].value for one in objectives] for n, scores in training.scores.items()}

    def file(self, name: str) -> Path:
        """Where a training's scores are kept."""
        return self.folder / f"{name[-24:]}.pkl"


def named(groups: tuple[ParameterGroup, ...], rate: float, steps: int) -> str:
    """What tells a training of a seed from others."""
    trained = [[group.name, group.method, list(group.parameters)] for group in groups]
    return fingerprint({"trained": json.dumps(trained), "rate": repr(rate), "steps": str(steps)})


def configured(seed: int, images: int) -> RunConfig:
    return RunConfig(seed=seed, confirm=ConfirmConfig(seeds=0), sampling=SamplingConfig(images=images))


def run(shared: Shared, seed: int, images: int, folder: Path) -> Line:
    """One search, to its budget."""
    laboratory, began = shared.laboratory(images), time.process_time()
    run_folder = RunFolder(folder)
    run_folder.prepare()
    worker = Worker(laboratory, run_folder, 0, ignore)
    worker.run()
    front = write_results(laboratory, worker.ledger, run_folder)
    with run_folder.trials.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["state"] == "complete"]
    ends = []
    for row in rows:
        groups = laboratory.candidates.trained([int(level) for level in row["mask"]])
        rate = float(row["learning_rate"]) if groups else None
        name = FREEZE if rate is None else named(groups, rate, laboratory.config.tuning.steps)
        ends.append({"mask": row["mask"], "rate": rate, "scores": shared.values(name)})
    told = {"reference_point": front["reference_point"], "cpu_s": round(time.process_time() - began, 1)}
    return {"seed": seed, "images": images, **told, "ends": ends}


def written(file: Path) -> list[Line]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def measure(options: argparse.Namespace) -> None:
    take_device("cpu")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    number, count = map(int, options.worker.split("/"))
    file = options.out / f"fewer-images-{number}.jsonl"
    for seed in options.seeds[number::count]:
        folder = options.work / f"seed-{seed:02d}"
        done = {(line["seed"], line["images"]) for line in written(file)}
        if all((seed, images) in done for images in ARMS):
            continue
        shared = Shared(seed, folder / "trainings")
        for images in ARMS:
            if (seed, images) not in done:
                line = run(shared, seed, images, folder / str(images))
                with file.open("a") as stream:
                    stream.write(json.dumps(line) + "\n")


def points(line: Line, images: int) -> Floats:
    """Log fidelity and copying of a search's candidates by so many images, both to be minimised."""
    return scaled(np.array([end["scores"][str(images)] for end in line["ends"]], dtype=np.float64))


def judged(line: Line, seen: int, reference: Floats) -> float:
    """By all images, the hypervolume of the front that a search has by those that it saw."""
    chosen = front_positions(points(line, seen))
    return hypervolume(points(line, ALL)[chosen], reference)


def table(options: argparse.Namespace) -> None:
    lines = {
        (line["seed"], line["images"]): line
        for file in sorted(options.out.glob("fewer-images-*.jsonl"))
        for line in written(file)
    }
    rows = []
    for seed in sorted({seed for seed, images in lines if {(seed, one) for one in ARMS} <= set(lines)}):
        whole, fewer = (lines[seed, images] for images in ARMS)
        reference = scaled(np.array([whole["reference_point"]]))[0]
        volume = judged(whole, ALL, reference)
        shares = {
            "128 images": judged(fewer, FEWER, reference),
            "256 images, chosen by 128": judged(whole, FEWER, reference),
            "all of the search with 128": hypervolume(points(fewer, ALL), reference),
        }
        common = {(end["mask"], end["rate"]) for end in whole["ends"]} & {
            (end["mask"], end["rate"]) for end in fewer["ends"]
        }
        rows.append(
            {
                "seed": seed,
                **{name: round(value / volume, 4) for name, value in shares.items()},
                "candidates of both": len(common),
            }
        )
    means = {name: interval(np.array([row[name] for row in rows], dtype=np.float64)) for name in shares}
    (options.out / "searches_of_fewer_images.json").write_text(
        json.dumps({"seeds": rows, "means": means}, indent=1) + "\n"
    )
    print(markdown(rows), "\n")
    print(markdown([{"figure": name, "mean": m, "low": a, "high": b} for name, (m, a, b) in means.items()]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5, 13)))
    parser.add_argument("--worker", default="0/1", help="number of this process, and of all that share the seeds")
    parser.add_argument("--work", type=Path, default=Path("runs/fewer-images"))
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--table", action="store_true", help="only make the tables")
    options = parser.parse_args()
    (table if options.table else measure)(options)


if __name__ == "__main__":
    main()
