"""Times the same trials as the authors' code runs them and as ours does, each difference on its own; compares scores.

    python experiments/benchmarks/reference_loop/measure.py --repetitions 3
    python experiments/benchmarks/reference_loop/measure.py --ranks

Each mask of each repetition of the first runs in two processes, one that leaves memory to the C library, as the
authors' code does, and one that keeps what is freed, as a search's workers do; every other repetition has processes and
variants in reverse order. Each trial is one JSON line of times.jsonl or ranks.jsonl; lines that are there are not
computed again. `summarise.py` makes the tables.
"""

import argparse
import json
import multiprocessing
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from disk import Disk
from loop import GUIDANCE, ReferenceLoop
from switches import Switches

from memcontrol.cache import Cache, default_cache_folder
from memcontrol.config import RunConfig
from memcontrol.groups import ParameterGroup
from memcontrol.score import Score
from memcontrol.study.placement import take_device
from memcontrol.study.trial import Laboratory
from memcontrol.tracing import traces

HERE = Path(__file__).parent
SPACES = {"stage-kinds": "stage-kinds", "svdiff": str(HERE / "svdiff-stage-kinds.yaml")}
FD, GAP = "fd@efficientnet-lite0", "copy_gap@pixels"
OURS, REFERENCE, EVERYTHING, GUIDED = "ours", "reference", "all switches", "ours, guidance 4"
SPECTRAL = {
    "decomposed": Switches(decomposed=True),
    "factored": Switches(decomposed=True, factored=True),
}
TRACED = Switches(kept=True, replayed=True)
ONE_BY_ONE = (
    {field.name: Switches(**{field.name: True}) for field in fields(Switches) if field.name not in SPECTRAL}
    | {"replayed": TRACED}
    | SPECTRAL
)
LOOPS = {REFERENCE: Switches(), **ONE_BY_ONE, EVERYTHING: Switches.everything()}
VARIANTS = (REFERENCE, *ONE_BY_ONE, EVERYTHING, OURS, GUIDED)
TIMED = (("stage-kinds", "all"), ("stage-kinds", "attention"), ("stage-kinds", "norms"), ("svdiff", "all"))
RANKED, RANKED_BITS = 20, 14
"""Masks of `stage-kinds`, and its groups."""


@dataclass(frozen=True)
class Job:
    """One trial, and where it belongs."""

    repetition: int
    space: str
    mask: str
    variant: str
    seed: int

    @property
    def key(self) -> tuple[object, ...]:
        return self.repetition, self.space, self.mask, self.variant, self.seed

    @property
    def process(self) -> tuple[int, str, str, bool]:
        """Jobs with the same run in one process; the last says whether that keeps freed memory."""
        return self.repetition, self.space, self.mask, self.variant not in LOOPS or LOOPS[self.variant].freed


class Bench:
    """All that trials need, made when first asked for."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options, self.folder = options, folder
        self.laboratory, self.loop, self.disk = cache(self._laboratory), cache(self._loop), cache(self._disk)

    def config(self, space: str, seed: int, guidance: float = RunConfig().sampling.guidance) -> RunConfig:
        default, options = RunConfig(), self.options
        return default.model_copy(
            update={
                "space": SPACES[space],
                "seed": seed,
                "data": default.data.model_copy(update={"seed": 0}),
                "tuning": default.tuning.model_copy(update={"steps": options.steps}),
                "sampling": default.sampling.model_copy(update={"images": options.images, "guidance": guidance}),
                "scoring": default.scoring.model_copy(update={"objectives": (FD, GAP), "reported": ()}),
            }
        )

    def _laboratory(self, space: str, seed: int, guidance: float) -> Laboratory:
        found = Laboratory(self.config(space, seed, guidance), cache=Cache(default_cache_folder()), device="cpu")
        found.scorer(found.scorer.real.fidelity)  # features of real images, which all trials of a run share
        space = found.candidates
        groups, rate = space.groups, space.rates.rate(space.rates.first)
        found.evaluate(groups, rate, 2, lambda *_: None)  # traces, which a worker's trials share
        return found

    def _disk(self) -> Disk:
        return Disk.written(self.folder, self.laboratory("stage-kinds", 0, 1.0))

    def _loop(self, space: str, seed: int, variant: str) -> ReferenceLoop:
        return ReferenceLoop(self.disk(), self.config(space, seed), LOOPS[variant])

    def groups(self, job: Job) -> tuple[tuple[ParameterGroup, ...], float]:
        """What a mask trains, and at which rate: its customary one."""
        space = self.laboratory(job.space, 0, 1.0).candidates
        if set(job.mask) <= set("01"):
            levels = [int(bit) for bit in job.mask]
        else:
            levels = [int(job.mask == "all" or group.name.endswith(job.mask)) for group in space.groups]
        return space.trained(levels), space.rates.rate(space.customary_rate(levels))

    def run(self, job: Job) -> dict[str, Any]:
        """The trial's line."""
        groups, rate = self.groups(job)
        once, parts = 0.0, dict[str, float]()
        if job.variant in LOOPS:
            loop = self.loop(job.space, job.seed, job.variant)
            once = loop.prepare(groups)
            began = time.process_time(), time.perf_counter()
            scores = loop.trial(groups, rate, job.seed)
            parts = loop.spent
        else:
            laboratory = self.laboratory(job.space, job.seed, GUIDANCE if job.variant == GUIDED else 1.0)
            began = time.process_time(), time.perf_counter()
            scores = laboratory.evaluate(groups, rate, self.options.steps, lambda *_: None).scores
        taken = {"cpu_s": time.process_time() - began[0], "wall_s": time.perf_counter() - began[1], "once_cpu_s": once}
        line = dict(vars(job)) | {"steps": self.options.steps, "images": self.options.images, "rate": rate}
        line |= {name: round(seconds, 3) for name, seconds in taken.items()}
        return line | {"parts": {name: round(seconds, 3) for name, seconds in parts.items()}} | values(scores)


def values(scores: dict[str, Score]) -> dict[str, float]:
    gap = scores[GAP]
    return {"fd": scores[FD].value, "copy_gap": gap.value, "raw_gap": gap.value if gap.raw is None else gap.raw}


def timed_jobs(options: argparse.Namespace) -> Iterator[Job]:
    """One repetition after another; the order of variants turns each time."""
    for repetition in range(options.first, options.first + options.repetitions):
        for space, mask in TIMED:
            chosen = [name for name in options.variants if space == "svdiff" or name not in SPECTRAL]
            jobs = sorted((Job(repetition, space, mask, name, 0) for name in chosen), key=lambda job: job.process)
            yield from jobs[:: 1 if repetition % 2 == 0 else -1]


def ranked_jobs(options: argparse.Namespace) -> Iterator[Job]:
    """Random masks, their number of groups uniform, under two seeds."""
    rng, bits = np.random.default_rng(605), RANKED_BITS
    masks = [rng.permutation(np.arange(bits) < rng.integers(1, bits + 1)).astype(int) for _ in range(RANKED)]
    for mask in masks[: options.masks]:
        for seed in (0, 1):
            for variant in options.variants:
                yield Job(0, "stage-kinds", "".join(map(str, mask)), variant, seed)


def lines(file: Path) -> list[dict[str, Any]]:
    """What is there, without a line that an interruption cut off."""
    return [json.loads(line) for line in file.read_text().split("\n")[:-1]] if file.exists() else []


def warm_up(bench: Bench, options: argparse.Namespace) -> None:
    """What only the first trial of a process pays for is paid here."""
    small = argparse.Namespace(**vars(options) | {"steps": 2, "images": 64})
    first = Bench(small, bench.folder)
    for variant in (REFERENCE, OURS):
        first.run(Job(0, "stage-kinds", "norms", variant, 0))


def run(options: argparse.Namespace, jobs: Sequence[Job], *, keep_freed: bool) -> None:
    """Run jobs in this process, and append their lines."""
    traces.OFTEN = 0  # what a worker traces in its first trials is traced before the first that is timed
    if keep_freed:
        take_device("cpu")
    else:
        torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, options.file.open("a") as stream:
        bench = Bench(options, Path(folder))
        warm_up(bench, options)
        for job in jobs:
            stream.write(json.dumps(bench.run(job)) + "\n")
            stream.flush()


def run_apart(options: argparse.Namespace, jobs: Sequence[Job]) -> None:
    """Run jobs in a new process each time that they need one."""
    for (*_, keep_freed), own in groupby(jobs, key=lambda job: job.process):
        child = multiprocessing.get_context("spawn").Process(
            target=run, args=(options, list(own)), kwargs={"keep_freed": keep_freed}
        )
        child.start()
        child.join()
        if child.exitcode:
            raise SystemExit(child.exitcode)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", action="store_true", help="compare scores over random masks instead of times")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="number of the first repetition")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, help="all; with --ranks, the reference and ours")
    parser.add_argument("--masks", type=int, default=RANKED, help="with --ranks, only the first so many")
    parser.add_argument("--steps", type=int, default=RunConfig().tuning.steps)
    parser.add_argument("--images", type=int, default=RunConfig().sampling.images)
    parser.add_argument("--out", type=Path, default=HERE)
    options = parser.parse_args()
    options.variants = options.variants or ((REFERENCE, OURS) if options.ranks else VARIANTS)
    options.out.mkdir(parents=True, exist_ok=True)
    options.file = options.out / ("ranks.jsonl" if options.ranks else "times.jsonl")
    known = lines(options.file)
    options.file.write_text("".join(json.dumps(line) + "\n" for line in known))
    keys = {(line["steps"], line["images"], *Job(**{f.name: line[f.name] for f in fields(Job)}).key) for line in known}
    jobs = ranked_jobs(options) if options.ranks else timed_jobs(options)
    missing = [job for job in jobs if (options.steps, options.images, *job.key) not in keys]
    if options.ranks:
        run(options, missing, keep_freed=True)
    else:
        run_apart(options, missing)


if __name__ == "__main__":
    main()
