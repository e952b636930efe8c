"""All 256 masks of the space `layer-kinds` on `brain`, three seeds each, as a table that searches are replayed on.

    python experiments/benchmarks/mask_table/measure.py --worker 0/2
    python experiments/benchmarks/mask_table/measure.py --worker 1/2

Each mask has one learning rate, its customary one. The seeds share the training set and differ in batches, noise and
sampling. Trainings are looked at on the way, at `RUNGS`, so that stopping some of them early can be replayed too;
looking changes nothing. Appends a row for each training to masks-I.csv; rows that are there are not computed again,
whichever worker wrote them. Masks come in random order, all seeds of a mask together, so that a part of the table is a
fair sample.
"""

import argparse
import csv
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch

from memcontrol.cache import Cache, default_cache_folder
from memcontrol.config import DataConfig, RunConfig, Rung, ScoringConfig
from memcontrol.score import Score
from memcontrol.study.trial import Laboratory, Reached

HERE = Path(__file__).parent
SPACE = "layer-kinds"
DRAWN = 0
"""Seed of the training set."""
SEEDS = (0, 1, 2)
FD, GAP = "fd@efficientnet-lite0", "copy_gap@pixels"
REPORTED = ("amd@efficientnet-lite0", "copied_share@pixels")
RUNGS = (Rung(share=0.25, images=64), Rung(share=0.5, images=64))
LOOKS = tuple(f"{name} at {rung.share:g}" for rung in RUNGS for name in (FD, GAP, "raw_gap"))
COLUMNS = ("mask", "learning_rate", "seed", FD, GAP, "raw_gap", *REPORTED, *LOOKS, "loss", "cpu_s")
Row = dict[str, object]


def rows(folder: Path) -> Iterator[dict[str, str]]:
    """What is there."""
    for file in sorted(folder.glob("masks-*.csv")):
        with file.open() as stream:
            yield from csv.DictReader(stream)


def laboratory_of(seed: int, steps: int) -> Laboratory:
    default = RunConfig()
    config = RunConfig(
        space=SPACE,
        seed=seed,
        data=DataConfig(seed=DRAWN),
        tuning=default.tuning.model_copy(update={"steps": steps}),
        scoring=ScoringConfig(reported=REPORTED),
        search=default.search.model_copy(update={"rungs": RUNGS}),
    )
    return Laboratory(config, cache=Cache(default_cache_folder()), device="cpu")


def written(scores: Mapping[str, Score]) -> Row:
    """Values as the table has them, and `copy_gap` before clipping."""
    return {name: f"{score.value:.6g}" for name, score in scores.items()} | {"raw_gap": f"{scores[GAP].raw or 0.0:.6g}"}


def trained(laboratory: Laboratory, mask: str) -> Row:
    space, levels = laboratory.candidates, [int(bit) for bit in mask]
    candidate = space.candidate(levels, space.customary_rate(levels))
    looks: Row = {}

    def look(reached: Reached) -> bool:
        ending = f" at {reached.rung.share:g}"
        looks.update({f"{name}{ending}": text for name, text in written(reached.evaluation.scores).items()})
        return True

    began = time.process_time()
    groups = space.trained(levels)
    found = laboratory.evaluate(groups, candidate.learning_rate, candidate.steps, lambda *_: None, judge=look)
    return {
        "mask": mask,
        "learning_rate": candidate.learning_rate or "",
        "seed": laboratory.config.seed,
        "loss": "" if found.loss is None else f"{found.loss:.5g}",
        "cpu_s": f"{time.process_time() - began:.2f}",
        **written(found.scores),
        **looks,
    }


def describe(laboratory: Laboratory, folder: Path) -> None:
    """What the rows are of, for readers of the table."""
    groups = [{"name": group.name, "numel": group.numel} for group in laboratory.candidates.groups]
    data = {"source": laboratory.config.data.source, "seed": DRAWN, "sha256": laboratory.data_fingerprint}
    content = {"space": SPACE, "groups": groups, "seeds": list(SEEDS), "data": data}
    content |= {"steps": laboratory.config.tuning.steps, "images": laboratory.config.sampling.images}
    content |= {"rungs": [rung.model_dump() for rung in RUNGS]}
    file = folder / "table.json"
    if file.exists() and json.loads(file.read_text()) != content:
        raise SystemExit(f"{file} is of other settings: name another folder with --out")
    file.write_text(json.dumps(content, indent=1) + "\n")


def work(options: argparse.Namespace) -> Iterator[Row]:
    known = {(row["mask"], row["seed"]) for row in rows(options.out)}
    laboratories = {SEEDS[0]: laboratory_of(SEEDS[0], options.steps)}
    describe(laboratories[SEEDS[0]], options.out)
    bits = len(laboratories[SEEDS[0]].candidates.groups)
    masks = [f"{number:0{bits}b}" for number in range(2**bits)]
    part, parts = options.worker
    for mask in np.random.default_rng(604).permutation(masks).tolist()[: options.masks][part::parts]:
        for seed in SEEDS:
            if (mask, str(seed)) in known:
                continue
            if seed not in laboratories:
                laboratories[seed] = laboratory_of(seed, options.steps)
            yield trained(laboratories[seed], mask)


def whole_lines(file: Path) -> None:
    """Take off a row that an interruption cut short, and begin a new file with the names of its columns."""
    kept = file.read_text().split("\n")[:-1] if file.exists() else []
    file.write_text("".join(f"{line}\n" for line in kept or [",".join(COLUMNS)]))


def share(text: str) -> tuple[int, int]:
    part, _, parts = text.partition("/")
    if not (part.isdigit() and parts.isdigit() and int(part) < int(parts)):
        raise argparse.ArgumentTypeError(f"{text!r}: expected I/N with 0 <= I < N, such as 0/2")
    return int(part), int(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worker", type=share, default=(0, 1), metavar="I/N")
    parser.add_argument("--masks", type=int, help="only the first so many")
    parser.add_argument("--steps", type=int, default=RunConfig().tuning.steps)
    parser.add_argument("--out", type=Path, default=HERE)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / f"masks-{options.worker[0]}.csv"
    whole_lines(file)
    with file.open("a", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        for row in work(options):
            writer.writerow(row)
            stream.flush()


if __name__ == "__main__":
    main()
