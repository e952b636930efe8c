"""How well scores on shared tensors order masks, beside one real training of each, from what `measure.py` wrote.

    python experiments/benchmarks/one_shot/summarise.py

True values are those of `../mask_table`, the mean of the two seeds that the shared training did not have. Writes
results.json and a picture, and prints the README's table as Markdown. Intervals are of 95 %, from drawing masks anew;
they do not cover other training sets.
"""

import csv
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

mpl.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
TABLE = HERE.parent / "mask_table"
OBJECTIVES = {"fd@efficientnet-lite0": "log fd", "raw_gap": "copy_gap before clipping"}
LEARNT = (10, 20)
"""Real trainings that a calibration by size is fitted on."""
COMPARED = ("one-shot", "one real training", "size alone")
RESAMPLES, DRAWS = 2000, 200
Floats = NDArray[np.float64]
Values = dict[str, tuple[float, float]]
"""Mask -> log fd, and copy_gap before clipping."""


def value(row: dict[str, str]) -> tuple[float, float]:
    fd, gap = OBJECTIVES
    return float(np.log(float(row[fd]))), float(row[gap])


def table() -> dict[int, Values]:
    """Values of each seed."""
    found: dict[int, Values] = {}
    for file in sorted(TABLE.glob("masks-*.csv")):
        for row in csv.DictReader(file.open()):
            found.setdefault(int(row["seed"]), {})[row["mask"]] = value(row)
    return found


def one_shot() -> dict[tuple[int, int], dict[str, Any]]:
    """By seed and steps of a mask's own: values, and CPU seconds for a mask."""
    found: dict[tuple[int, int], dict[str, Any]] = {}
    for file in sorted(HERE.glob("scores-*.csv")):
        seed = int(file.stem.split("-")[1])
        for row in csv.DictReader(file.open()):
            own = found.setdefault((seed, int(row["adapt"])), {"values": {}, "cpu_s": []})
            own["values"][row["mask"]] = value(row)
            own["cpu_s"].append(float(row["cpu_s"]))
    return found


def spearman(first: Floats, second: Floats) -> float:
    return float(np.corrcoef(rankdata(first), rankdata(second))[0, 1])


def interval(first: Floats, second: Floats) -> list[float]:
    rng, count = np.random.default_rng(0), len(first)
    drawn = [spearman(first[chosen], second[chosen]) for chosen in rng.integers(count, size=(RESAMPLES, count))]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return [round(number, 3) for number in (spearman(first, second), float(low), float(high))]


def calibrated(known: Floats, size: Floats, true: Floats, count: int) -> float:
    """Mean correlation on the other masks of a line in the score and the size, fitted on `count` real trainings."""
    rng, places = np.random.default_rng(1), np.arange(len(true))
    columns = np.column_stack([np.ones(len(true)), known, size])
    found = []
    for _ in range(DRAWS):
        learnt = rng.permutation(places)[:count]
        line, *_ = np.linalg.lstsq(columns[learnt], true[learnt], rcond=None)
        others = np.setdiff1d(places, learnt)
        found.append(spearman(columns[others] @ line, true[others]))
    return round(float(np.mean(found)), 3)


def examined(known: Values, real: dict[int, Values], seed: int, sizes: dict[str, float]) -> dict[str, Any]:
    others = [values for other, values in real.items() if other != seed]
    masks = sorted(set(known).intersection(real[seed], *others))
    true = np.mean([[values[mask] for mask in masks] for values in others], axis=0)
    retest, mine = (np.array([values[mask] for mask in masks]) for values in (real[seed], known))
    size = np.array([sizes[mask] for mask in masks])
    return {"masks": len(masks)} | {
        label: {
            "one-shot": interval(mine[:, place], true[:, place]),
            "one real training": interval(retest[:, place], true[:, place]),
            "size alone": interval(size, true[:, place]),
            "calibrated": {str(count): calibrated(mine[:, place], size, true[:, place], count) for count in LEARNT},
        }
        for place, label in enumerate(OBJECTIVES.values())
    }


def picture(found: dict[tuple[int, int], dict[str, Any]], real: dict[int, Values], sizes: dict[str, float]) -> None:
    figure, axes = plt.subplots(len(found), 2, figsize=(9, 3.6 * len(found)), squeeze=False, layout="constrained")
    for row, ((seed, adapt), own) in zip(axes, sorted(found.items()), strict=True):
        others = [values for other, values in real.items() if other != seed]
        masks = sorted(set(own["values"]).intersection(*others))
        true = np.mean([[values[mask] for mask in masks] for values in others], axis=0)
        mine = np.array([own["values"][mask] for mask in masks])
        for place, (axis, label) in enumerate(zip(row, OBJECTIVES.values(), strict=True)):
            shown = axis.scatter(mine[:, place], true[:, place], c=[sizes[m] for m in masks], s=12, cmap="viridis")
            axis.set(xlabel=f"{label}, shared tensors, {adapt} steps of its own", ylabel=f"{label}, trained")
            axis.set_title(f"seed {seed}, n = {len(masks)}", fontsize=9)
        figure.colorbar(shown, ax=row[-1], label="share of the parameters")
    figure.savefig(HERE / "one_shot.png", dpi=110)


def markdown(cells: list[Any]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    groups = json.loads((TABLE / "table.json").read_text())["groups"]
    numel = np.array([group["numel"] for group in groups])
    real, found = table(), one_shot()
    masks = {mask for values in real.values() for mask in values}
    sizes = {mask: float(numel[[bit == "1" for bit in mask]].sum() / numel.sum()) for mask in masks}
    titles = [
        "seed",
        "own steps",
        "masks",
        "objective",
        "one-shot",
        "calibrated on 10, 20",
        *COMPARED[1:],
        "CPU s a mask",
    ]
    print(markdown(titles), markdown(["---"] * len(titles)), sep="\n")
    results = []
    for (seed, adapt), own in sorted(found.items()):
        line = {"seed": seed, "adapt": adapt, "cpu_s": round(float(np.mean(own["cpu_s"])), 2)}
        line |= examined(own["values"], real, seed, sizes)
        results.append(line)
        for label in OBJECTIVES.values():
            first, *others = ("{:.2f} ({:.2f} to {:.2f})".format(*line[label][name]) for name in COMPARED)
            learnt = ", ".join(f"{number:.2f}" for number in line[label]["calibrated"].values())
            print(markdown([seed, adapt, line["masks"], label, first, learnt, *others, line["cpu_s"]]))
    (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    picture(found, real, sizes)


if __name__ == "__main__":
    main()
