"""Is there anything to carry? Do masks of one size differ at all, and do their ranks hold over seeds and targets?

    python experiments/transfer/ranks.py

Reads faces/results.csv and digits/results.csv, trains nothing, and prints a Markdown table.
"""

import csv
from collections import defaultdict
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

HERE = Path(__file__).parent
TARGETS, MASKS = ("faces", "digits"), ("knee", "least-copied")
FD, GAP = "fd@efficientnet-lite0", "copy_gap@pixels"
RESAMPLES = 2000
Floats = NDArray[np.float64]


def scores(target: str, mask: str) -> Floats:
    """`(20, seeds, 2)` log fd and copy_gap of a mask and of its random ones, in the order of their names."""
    found: dict[str, dict[int, tuple[float, float]]] = defaultdict(dict)
    for row in csv.DictReader((HERE / target / "results.csv").open()):
        if row["method"] == mask or row["method"].startswith(f"{mask}, random "):
            found[row["method"]][int(row["seed"])] = float(np.log(float(row[FD]))), float(row[GAP])
    seeds = sorted(set.intersection(*(set(own) for own in found.values()))) if found else []
    return np.array([[found[name][seed] for seed in seeds] for name in sorted(found)])


def correlation(first: Floats, second: Floats) -> str:
    """Spearman's over masks, with its 95 % interval from drawing masks anew."""
    rng = np.random.default_rng(0)
    draws = [rng.integers(len(first), size=len(first)) for _ in range(RESAMPLES)]
    drawn = [spearmanr(first[chosen], second[chosen]).statistic for chosen in draws]
    low, high = np.nanquantile(drawn, (0.025, 0.975))
    return f"{spearmanr(first, second).statistic:.2f} ({low:.2f} to {high:.2f})"


def halves(values: Floats) -> float:
    """Mean Spearman's correlation of `(masks, seeds)` values between all ways to halve the seeds."""
    seeds = range(values.shape[1])
    found = []
    for chosen in combinations(seeds, len(seeds) // 2):
        others = [seed for seed in seeds if seed not in chosen]
        found.append(spearmanr(values[:, chosen].mean(axis=1), values[:, others].mean(axis=1)).statistic)
    return float(np.mean(found))


def main() -> None:
    print(
        "| masks of the size of | target | seeds | `fd`, half the seeds with the others | `copy_gap`, likewise |",
        end=" ",
    )
    print("`fd` with `copy_gap` |\n" + "|---" * 6 + "|")
    for mask in MASKS:
        for target in TARGETS:
            read = scores(target, mask)
            if len(read):
                means = read.mean(axis=1)
                cells = [f"{halves(read[..., 0]):.2f}", f"{halves(read[..., 1]):.2f}", correlation(*means.T)]
                print(f"| `{mask}` | {target} | {read.shape[1]} |", " | ".join(cells), "|")
    print("\n| masks of the size of | `fd` on faces with digits | `copy_gap`, likewise |\n|---|---|---|")
    for mask in MASKS:
        read = [scores(target, mask) for target in TARGETS]
        if all(len(one) for one in read):
            first, second = (one.mean(axis=1) for one in read)
            cells = [correlation(first[:, place], second[:, place]) for place in (0, 1)]
            print(f"| `{mask}` |", " | ".join(cells), "|")


if __name__ == "__main__":
    main()
