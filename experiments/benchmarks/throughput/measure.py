"""Times the same trials of a search by one worker and by two: what two cores bring.

    python experiments/benchmarks/throughput/measure.py

References and the first trial are done beforehand, once, in a run folder of which each way gets a copy. Then `--trials`
random masks, the same for every way, run as `memcontrol search` runs them. Each way is one JSON line of results.jsonl,
which grows with each call; `--table` prints the README's tables. The machine should have nothing else to do.
"""

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from memcontrol.config import ConfirmConfig, RunConfig, validated
from memcontrol.run import RunFolder
from memcontrol.study.budget import SEARCH
from memcontrol.study.search import search

HERE = Path(__file__).parent
DONE = 1
"""Trials that are done beforehand."""
Line = dict[str, Any]


def configured(options: argparse.Namespace, budget: int) -> RunConfig:
    """The default search, with the shortest references and the sampler asked for."""
    content = RunConfig(confirm=ConfirmConfig(seeds=0)).model_dump(mode="json")
    content["tuning"]["steps"], content["sampling"]["images"] = options.steps, options.images
    content["search"] |= {"budget": budget, "sampler": options.sampler}
    content["search"] |= {"trajectory_rates": [1e-3], "trajectory_points": [0.1]}
    return validated(content, where="throughput")


def finished(folder: Path) -> list[FrozenTrial]:
    """Trials that ran after those done beforehand."""
    study = optuna.load_study(study_name=SEARCH, storage=f"sqlite:///{RunFolder(folder).study}")
    return study.get_trials()[DONE:]


def measured(options: argparse.Namespace, prepared: Path, folder: Path, workers: int) -> Line:
    """One search by so many workers."""
    shutil.copytree(prepared, folder)
    load, began = os.getloadavg()[0], time.monotonic()
    search(configured(options, DONE + options.trials), folder, workers=workers)
    whole = time.monotonic() - began
    trials = finished(folder)
    failed = [trial.number for trial in trials if trial.state != TrialState.COMPLETE]
    if failed or len(trials) != options.trials:
        raise SystemExit(f"{len(trials)} of {options.trials} trials, of which {failed} did not complete: see {folder}")
    return {
        "workers": workers,
        "trials": len(trials),
        "steps": options.steps,
        "images": options.images,
        "sampler": options.sampler,
        "load_before": round(load, 2),
        "whole_s": round(whole, 2),
        **spans(trials),
        "trial_s": [round(float(trial.user_attrs["seconds"]), 2) for trial in trials],
        "masks": sorted(json.dumps(trial.params, sort_keys=True) for trial in trials),
    }


def spans(trials: Sequence[FrozenTrial]) -> Line:
    """Seconds from the first claim to the last result, and trials a second while every worker has one.

    The latter counts a trial that is under way when the first worker runs out of work by the share of it that is done.
    """
    times = [
        (trial.datetime_start.timestamp(), trial.datetime_complete.timestamp(), trial.user_attrs["worker"])
        for trial in trials
        if trial.datetime_start is not None and trial.datetime_complete is not None
    ]
    first, last = min(start for start, _, _ in times), max(end for _, end, _ in times)
    full = min(max(end for _, end, one in times if one == worker) for worker in {one for _, _, one in times})
    done = sum((min(end, full) - start) / (end - start) for start, end, _ in times if start < full)
    span = last - first
    return {
        "span_s": round(span, 2),
        "trials_per_s": round(len(times) / span, 5),
        "full_s": round(full - first, 2),
        "trials_per_s_while_full": round(done / (full - first), 5),
    }


def tables(lines: Sequence[Line]) -> None:
    """Each way, and ratios of two workers to the one worker measured in the same call."""
    print("| call | workers | trials | first claim to last result, s | trials / s | while all work | mean trial, s |")
    print("|---|---|---|---|---|---|---|")
    for line in lines:
        mean = sum(line["trial_s"]) / len(line["trial_s"])
        rates = f"{line['trials_per_s']:.4f} | {line['trials_per_s_while_full']:.4f}"
        print(
            f"| {line['call']} | {line['workers']} | {line['trials']} | {line['span_s']:.1f} | {rates} | {mean:.1f} |"
        )
    for call in sorted({line["call"] for line in lines}):
        ways = {line["workers"]: line for line in lines if line["call"] == call}
        for workers in sorted(set(ways) - {1}):
            if 1 in ways:
                names = ("trials_per_s", "trials_per_s_while_full")
                whole, full = (ways[workers][name] / ways[1][name] for name in names)
                same = "the same" if ways[workers]["masks"] == ways[1]["masks"] else "other"
                print(
                    f"\ncall {call}, {same} masks: {workers} workers {whole:.2f} times one, {full:.2f} while all work"
                )


def main() -> None:
    """Measure as the command line asks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="in this order")
    parser.add_argument("--steps", type=int, default=RunConfig().tuning.steps)
    parser.add_argument("--images", type=int, default=RunConfig().sampling.images)
    parser.add_argument("--sampler", default="random", help="others propose by what is finished, so masks differ")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--out", type=Path, default=HERE / "results.jsonl")
    options = parser.parse_args()
    lines = [json.loads(text) for text in options.out.read_text().splitlines()] if options.out.exists() else []
    if not options.table:
        call = 1 + max((line["call"] for line in lines), default=0)
        with tempfile.TemporaryDirectory() as place:
            prepared = Path(place) / "prepared"
            search(configured(options, DONE), prepared, workers=1)
            for workers in options.workers:
                line = {"call": call} | measured(options, prepared, Path(place) / f"by-{workers}", workers)
                lines.append(line)
                with options.out.open("a") as stream:
                    stream.write(json.dumps(line) + "\n")
    tables(lines)


if __name__ == "__main__":
    main()
