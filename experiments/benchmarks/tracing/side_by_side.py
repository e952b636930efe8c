"""Default trials of two checkouts of this project at the same time, on a core each, so that both meet the same load.

    python experiments/benchmarks/tracing/side_by_side.py --checkouts OLDER NEWER

In every other repetition the two change cores. Each trial is one JSON line of side_by_side.jsonl with its CPU seconds
by phase; `--table` prints the ratios.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
PHASES = {"tune": "training", "sample": "sampling", "score": "scoring"}
MASKS = 4
"""Random ones, besides all groups."""


def trials() -> None:
    """Print a line for each mask, computed by the project that this process imports."""
    from memcontrol.cache import Cache, default_cache_folder
    from memcontrol.config import RunConfig
    from memcontrol.study.placement import loaded_for_good, take_device
    from memcontrol.study.trial import Laboratory
    from memcontrol.tracing import traces

    take_device("cpu")
    traces.OFTEN = 0  # what a worker traces in its first trials is traced before
    laboratory = Laboratory(RunConfig(), cache=Cache(default_cache_folder()), device="cpu")
    space, rng = laboratory.candidates, np.random.default_rng(908)
    count = len(space.groups)
    drawn = [rng.permutation(np.arange(count) < rng.integers(1, count + 1)) for _ in range(MASKS)]
    masks = [[1] * count, *([int(bit) for bit in mask] for mask in drawn)]
    laboratory.evaluate(space.trained(masks[0]), 1e-3, 2, lambda *_: None)
    with loaded_for_good():
        for mask in masks:
            rate, reached = space.rates.rate(space.customary_rate(mask)), dict[str, float]()

            def heard(phase: str, _done: int, _total: int, reached: dict[str, float] = reached) -> None:
                reached[phase] = time.process_time()

            began = time.process_time()
            laboratory.evaluate(space.trained(mask), rate, laboratory.config.tuning.steps, heard)
            ends = {"tune": reached["tune"], "sample": reached["sample"], "score": time.process_time()}
            parts = np.diff([began, *ends.values()])
            seconds = {name: round(float(part), 2) for name, part in zip(ends, parts, strict=True)}
            print(json.dumps({"mask": "".join(map(str, mask)), "cpu_s": seconds}), flush=True)


def run(checkouts: list[Path], repetition: int) -> list[dict[str, object]]:
    """Both at once; a checkout's own code is imported."""
    started = []
    for place, checkout in enumerate(checkouts):
        core = sorted(os.sched_getaffinity(0))[(place + repetition) % 2]
        environment = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, __file__, "--trials"]
        started.append(
            subprocess.Popen(
                command,
                env=environment,
                stdout=subprocess.PIPE,
                text=True,
                preexec_fn=lambda core=core: os.sched_setaffinity(0, [core]),
            )
        )
    found = []
    for checkout, process in zip(checkouts, started, strict=True):
        text, _ = process.communicate()
        if process.returncode:
            raise SystemExit(process.returncode)
        commit = subprocess.run(
            ["git", "-C", checkout, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        found += [{"repetition": repetition, "commit": commit} | json.loads(line) for line in text.splitlines()]
    return found


def table(lines: list[dict[str, object]]) -> None:
    """Seconds of each commit in the order of `--checkouts`, and their ratio over repetitions."""
    spent: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(float)))
    for line in lines:
        for phase, seconds in line["cpu_s"].items():
            for name in (PHASES[phase], "trial"):
                spent[name][line["commit"]][line["repetition"]] += seconds / (MASKS + 1)
    print("| | " + " | ".join(next(iter(spent.values()))) + " | times faster, by repetition |\n|---|---|---|---|")
    for name, (older, newer) in ((name, commits.values()) for name, commits in spent.items()):
        ratios = ", ".join(f"{older[place] / newer[place]:.2f}" for place in sorted(older))
        means = " | ".join(f"{np.mean(list(one.values())):.2f}" for one in (older, newer))
        print(f"| {name} | {means} | {ratios} |")


def main() -> None:
    """Measure as the command line asks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkouts", type=Path, nargs=2)
    parser.add_argument("--repetitions", type=int, default=4)
    parser.add_argument("--table", action="store_true", help="print the table alone")
    parser.add_argument("--trials", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=HERE / "side_by_side.jsonl")
    options = parser.parse_args()
    if options.trials:
        trials()
        return
    lines = [json.loads(text) for text in options.out.read_text().splitlines()] if options.table else []
    for repetition in range(0 if options.table else options.repetitions):
        lines += run([path.resolve() for path in options.checkouts], repetition)
        options.out.write_text("".join(json.dumps(line) + "\n" for line in lines))
    table(lines)


if __name__ == "__main__":
    main()
