"""Replays the default's sampler on scores by 128 images instead of 256: what the noisier scores cost a search.

    python experiments/benchmarks/samplers/noisier.py

What the first 128 images say differs from what all 256 do: the differences are those of the trainings of `../pruning`,
which have both, less what all trainings of a seed have in common. A replay draws one of the `NEAREST` trainings whose
`copy_gap` is nearest (synthetic problems: normal numbers of the same size relative to the objective's spread), each
candidate by itself; in a search candidates share their images' seeds, so that differences of like candidates cancel in
part, and a replay has more noise than a search. Pairs of searches of 50, with the noise and without; with it also
after 58, which take as long by 128 images as 50 do by 256. Writes noisier.jsonl, and prints the table.

Fixed before the first run: 128 images become the default if the lower end of the interval of the difference at 50 is
above -0.005, on the table and on the mean of the synthetic problems, and the interval of `../pruning`'s whole searches
(`fewer_images.py`) reaches 1.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from problems import SYNTHETIC, Floats, Problem, table_problem
from replay import BRAIN, replay
from strategies import strategy
from summarise import interval

HERE = Path(__file__).parent
TRAININGS = HERE.parent / "pruning"
FD, GAP = "fd@efficientnet-lite0", "copy_gap@pixels"
STRATEGY, SHARE, NEAREST = "hamming+baselines", 0.75, 30
BUDGET, LONGER = 50, 58
Line = dict[str, Any]


def differences() -> tuple[Floats, Floats]:
    """`(N, 2)` of each training of variant `average`: log fd and copy_gap by 256 images, and 128 images' less those."""
    whole, half = dict[int, list[list[float]]](), dict[int, list[list[float]]]()
    for file in sorted(TRAININGS.glob("trials-*.jsonl")):
        for line in map(json.loads, file.read_text().splitlines()):
            (rung,) = [one for one in line["rungs"] if one["share"] == SHARE]
            if line["variant"] == "average":
                for kept, images in ((whole, "256"), (half, "128")):
                    named = rung["scores"][images]
                    point = [float(np.log(named[FD]["value"])), named[GAP]["value"]]
                    kept.setdefault(line["seed"], []).append(point)
    found, apart = [], []
    for seed in whole:
        own, other = np.array(whole[seed]), np.array(half[seed])
        found.append(own)
        apart.append(other - own - (other - own).mean(axis=0))
    return np.concatenate(found), np.concatenate(apart)


def noisier(on: Problem, repetition: int, known: tuple[Floats, Floats], *, table: bool) -> Problem:
    """The problem as it is seen by 128 images."""
    rng, (points, apart) = np.random.default_rng([811, repetition]), known
    logs = np.stack([np.log(on.seen[:, 0]), on.seen[:, 1]], axis=1)
    if table:
        nearest = np.argsort(np.abs(points[:, 1] - logs[:, 1:]), axis=1, kind="stable")[:, :NEAREST]
        added = apart[nearest[np.arange(len(logs)), rng.integers(NEAREST, size=len(logs))]]
    else:
        added = rng.normal(size=logs.shape) * (apart.std(axis=0) / points.std(axis=0) * logs.std(axis=0))
    return replace(on, seen=np.stack([np.exp(logs[:, 0] + added[:, 0]), logs[:, 1] + added[:, 1]], axis=1))


def measured(options: argparse.Namespace, known: tuple[Floats, Floats]) -> Iterator[Line]:
    repetitions = {BRAIN: options.repetitions} | dict.fromkeys(SYNTHETIC, options.synthetic)
    for name, count in repetitions.items():
        for repetition in range(count):
            on = table_problem(repetition) if name == BRAIN else SYNTHETIC[name].draw(repetition)
            line: Line = {"problem": name, "repetition": repetition}
            for kind, seen in (("256", on), ("128", noisier(on, repetition, known, table=name == BRAIN))):
                budgets = (BUDGET, LONGER) if kind == "128" else (BUDGET,)
                shares = replay(seen, strategy(STRATEGY, seen, repetition), budgets[-1], 0)["delivered"]
                line[kind] = {budget: shares[budget - 1] for budget in budgets}
            yield line


def table(lines: list[Line]) -> None:
    names = {BRAIN: [BRAIN], "synthetic": list(SYNTHETIC)}
    print("| problem | pairs | 256 images, 50 | 128 images, 50 | difference | 128 images, 58 | difference |")
    print("|---" * 7 + "|")
    for title, problems in names.items():
        some = [line for line in lines if line["problem"] in problems]
        whole, half, longer = (
            np.array([line[kind][str(at)] for line in some])
            for kind, at in (("256", BUDGET), ("128", BUDGET), ("128", LONGER))
        )
        cells = [f"{whole.mean():.4f}", f"{half.mean():.4f}", told(half - whole), f"{longer.mean():.4f}"]
        print("| " + " | ".join([title, str(len(some)), *cells, told(longer - whole)]) + " |")


def told(values: Floats) -> str:
    mean, low, high = interval(values)
    return f"{mean:+.4f} ({low:+.4f} to {high:+.4f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=300)
    parser.add_argument("--synthetic", type=int, default=40, help="repetitions of each synthetic problem")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    known = differences()
    print("standard deviations of log fd and copy_gap, 128 images less 256:", known[1].std(axis=0).round(5))
    file = HERE / "noisier.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in measured(options, known)))
    table([json.loads(line) for line in file.read_text().splitlines()])


if __name__ == "__main__":
    main()
