"""Differences of two rows of a table, paired by seed, and rows against full fine-tuning trained less, at equal `fd`.

    python experiments/capacity_control_tables/pairs.py experiments/capacity_control_tables/900-steps

Prints means over seeds with 95 % intervals (Student), as Markdown. For the second table each seed has a line through
full fine-tuning and full fine-tuning for half the steps, `copy_gap` over log `fd`; a row's difference to it at the
row's own `fd` is below zero where the row copies less than training less would have it.
"""

import csv
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from memcontrol.comparison.intervals import mean_over_seeds

Floats = NDArray[np.float64]
FD, GAP = "fd@efficientnet-lite0", "copy_gap@pixels"
HALF = "full + fewer-steps"
PAIRS = (
    ("attention", HALF),
    ("full + rwa", HALF),
    ("difffit", "full + early-stopping"),
    ("svdiff", "full + early-stopping"),
    ("knee", "full + early-stopping"),
    ("knee", "full + iet-agc"),
    ("knee + rwa", "knee"),
    ("best-fidelity", "full"),
)
ON_LINE = ("best-fidelity", "full + threshold", "attention", "full + rwa")


def read(folder: Path) -> dict[str, dict[str, Floats]]:
    """Row -> score -> `(seeds,)` values, seeds in order."""
    found: dict[str, dict[int, dict[str, str]]] = {}
    for line in csv.DictReader((folder / "results.csv").open()):
        if line["state"] == "complete":
            found.setdefault(line["cell"], {})[int(line["seed"])] = line
    return {
        row: {name: np.array([float(own[seed][name]) for seed in sorted(own)]) for name in (FD, GAP)}
        for row, own in found.items()
    }


def interval(values: Floats) -> str:
    mean = mean_over_seeds(values)
    return f"{mean.value:+.3g} ({mean.low:+.3g} to {mean.high:+.3g})"


def main() -> None:
    rows = read(Path(sys.argv[1]))
    print("| row | less | fd | copy_gap |\n|---|---|---|---|")
    for row, other in PAIRS:
        fd, gap = (interval(rows[row][name] - rows[other][name]) for name in (FD, GAP))
        print(f"| {row} | {other} | {fd} | {gap} |")
    print("\n| row | copy_gap less the line's |\n|---|---|")
    logs = {row: np.log(values[FD]) for row, values in rows.items()}
    slope = (rows[HALF][GAP] - rows["full"][GAP]) / (logs[HALF] - logs["full"])
    for row in ON_LINE:
        line = rows["full"][GAP] + slope * (logs[row] - logs["full"])
        print(f"| {row} | {interval(rows[row][GAP] - line)} |")


if __name__ == "__main__":
    main()
