"""Rank correlations of short with long trainings, from the lines that `measure.py` wrote.

    python experiments/short_vs_long/summarise.py --sets 0

Writes results.json and a picture for each training set, and prints the tables of the README as Markdown. The last of
the lengths is the long one. Intervals are of 95 %, from drawing masks anew; they do not cover other training sets.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from measure import GAP, HERE, TRAININGS, lines
from numpy.typing import NDArray
from scipy.stats import rankdata

from memcontrol.study.front import front_positions, hypervolume

mpl.use("Agg")
import matplotlib.pyplot as plt

Floats = NDArray[np.float64]
FD = "fd@efficientnet-lite0"
RAW = f"{GAP}, before clipping"
SHOWN = (FD, GAP, RAW)
DECIDING = (FD, GAP)
MARGIN = 0.1
"""How much lower than the best short length's a correlation may be."""
RESAMPLES = 2000
Interval = tuple[float, float, float]


def value(line: dict[str, Any], name: str) -> float:
    return float(line["raw"][GAP] if name == RAW else line["scores"][name])


def tables(rows: list[dict[str, Any]], steps: list[int]) -> dict[str, Floats]:
    """Score -> `(masks, lengths, trainings)` over masks of which every training is there; `numel` likewise."""
    if len({line["images"] for line in rows}) > 1:
        raise SystemExit("lines of more than one --images: keep each number in a folder of its own, with --out")
    found: dict[str, dict[tuple[int, int], dict[str, Any]]] = {}
    for line in rows:
        found.setdefault(line["mask"], {})[line["steps"], line["seed"] - line["drawn"]] = line
    wanted = [(count, again) for count in steps for again in range(TRAININGS)]
    whole = [own for own in found.values() if all(key in own for key in wanted)]
    if len(whole) < 3:
        raise SystemExit(f"{len(whole)} of {len(found)} masks have all {len(wanted)} trainings: run measure.py first")
    shape = (len(whole), len(steps), TRAININGS)
    read = {name: np.array([[value(own[key], name) for key in wanted] for own in whole]) for name in SHOWN}
    cost = np.array([[own[key]["cpu_s"] for key in wanted] for own in whole])
    numel = np.array([[own[key]["numel"] for key in wanted] for own in whole], dtype=np.float64)
    return {name: values.reshape(shape) for name, values in (read | {"cpu_s": cost, "numel": numel}).items()}


def rank_correlations(columns: Floats) -> Floats:
    """`(C, C)` Spearman's correlations of `(masks, C)` columns; 0 where one has a single value."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.nan_to_num(np.corrcoef(rankdata(columns, axis=0), rowvar=False))


def beyond(direct: float, first: float, second: float) -> float:
    """The partial correlation, from that of both and those of each with what is taken out."""
    left = (1 - first**2) * (1 - second**2)
    return (direct - first * second) / left**0.5 if left > 1e-9 else 0.0


def correlations(values: Floats, numel: Floats) -> Floats:
    """`(lengths, 6)`: short with long of the other seed and of the same, retest of each, the ratio, and given size.

    The ratio is that across seeds over the square root of both retests: 1 is all that their noise allows.
    """
    lengths, found = values.shape[1], []
    ranks = rank_correlations(np.column_stack([values.reshape(len(values), -1), numel[:, 0, 0]]))
    long = TRAININGS * (lengths - 1)
    for short in range(0, TRAININGS * lengths, TRAININGS):
        pairs = [(short, long + 1), (short + 1, long)]
        across = float(np.mean([ranks[pair] for pair in pairs]))
        same = float(ranks[short, long] + ranks[short + 1, long + 1]) / 2
        retest, retest_long = float(ranks[short, short + 1]), float(ranks[long, long + 1])
        possible = (max(retest, 0.0) * max(retest_long, 0.0)) ** 0.5
        given = float(np.mean([beyond(ranks[a, b], ranks[a, -1], ranks[b, -1]) for a, b in pairs]))
        found.append([across, same, retest, retest_long, across / possible if possible else 0.0, given])
    return np.array(found)


def front_share(fd: Floats, gap: Floats, length: int) -> Floats:
    """`(2,)` share of the long trainings' hypervolume (log fd) that a short front's masks have in the other seed.

    The second is that of as many masks at random, the mean of 50 draws. Reference: the worst of either.
    """
    points, shares = np.stack([np.log(fd), gap], axis=-1), []
    reference, rng = points[:, -1].max(axis=(0, 1)), np.random.default_rng(603)
    for seed in range(TRAININGS):
        long = points[:, -1, 1 - seed]
        members = front_positions(points[:, length, seed])
        whole = hypervolume(long, reference)
        random = [rng.choice(len(long), len(members), replace=False) for _ in range(50)]
        drawn = np.mean([hypervolume(long[chosen], reference) for chosen in random])
        shares.append([hypervolume(long[members], reference) / whole, float(drawn) / whole])
    return np.mean(shares, axis=0)


NAMES = (
    "short with long, other seed",
    "same seed",
    "retest, short",
    "retest, long",
    "of what noise allows",
    "given size",
)


def examined(read: dict[str, Floats], steps: list[int]) -> dict[str, Any]:
    """Every correlation with its interval, and the length that is chosen."""
    rng = np.random.default_rng(0)
    count = len(read[FD])
    draws = [rng.integers(count, size=count) for _ in range(RESAMPLES)]
    found: dict[str, Any] = {"masks": count, "steps": steps, "scores": {}, "lost": {}}
    allowed = []
    for name in SHOWN:
        whole = correlations(read[name], read["numel"])
        drawn = np.array([correlations(read[name][chosen], read["numel"][chosen]) for chosen in draws])
        low, high = np.quantile(drawn, (0.025, 0.975), axis=0)
        ends = np.stack([whole, low, high], axis=-1).round(3)
        found["scores"][name] = {
            str(length): dict(zip(NAMES, row, strict=True)) for length, row in zip(steps, ends.tolist(), strict=True)
        }
        best = int(np.argmax(whole[:-1, 0]))
        lost = np.quantile(drawn[:, best, :1] - drawn[:, :-1, 0], 0.975, axis=0)
        found["lost"][name] = dict(zip(map(str, steps), lost.round(3).tolist(), strict=False))
        if name in DECIDING:
            allowed.append(lost <= MARGIN)
    enough = np.flatnonzero(np.all(allowed, axis=0))
    found["chosen"] = steps[int(enough[0])] if len(enough) else None
    found["front"] = {str(s): front_share(read[FD], read[GAP], i).round(3).tolist() for i, s in enumerate(steps)}
    found["cpu_s"] = {str(s): float(np.median(read["cpu_s"][:, i])) for i, s in enumerate(steps)}
    return found


def by_rate(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """How customary rates did: rate -> masks, median share of the largest mask's size, and median fd of each length."""
    largest = max(line["numel"] for line in rows)
    found = {}
    for rate in sorted({line["learning_rate"] for line in rows}):
        own = [line for line in rows if line["learning_rate"] == rate]
        medians = {
            str(s): round(float(np.median([line["scores"][FD] for line in own if line["steps"] == s])), 1)
            for s in sorted({line["steps"] for line in own})
        }
        share = float(np.median([line["numel"] for line in own])) / largest
        found[f"{rate:g}"] = {"masks": len({line["mask"] for line in own}), "share": round(share, 3), "fd": medians}
    return found


def text(interval: list[float]) -> str:
    return f"{interval[0]:.2f} ({interval[1]:.2f} to {interval[2]:.2f})"


def printed(found: dict[str, Any]) -> None:
    print("| score | steps |", " | ".join(NAMES), "|\n|" + "---|" * (2 + len(NAMES)))
    for name, entries in found["scores"].items():
        for steps, row in entries.items():
            print(f"| {name} | {steps} |", " | ".join(text(row[column]) for column in NAMES), "|")
    titles = ["steps", "CPU s", "front of the short ones, in the long ones", "as many at random"]
    titles += [f"{name}: most that may be lost" for name in found["lost"]]
    print("\n|", " | ".join(titles), "|\n|" + "---|" * len(titles))
    for steps, (share, random) in found["front"].items():
        lost = [str(found["lost"][name].get(steps, "")) for name in found["lost"]]
        print(f"| {steps} | {found['cpu_s'][steps]:.1f} | {share:.3f} | {random:.3f} |", " | ".join(lost), "|")
    print(f"\nchosen: {found['chosen']} steps")


def picture(read: dict[str, Floats], found: dict[str, Any], path: Path) -> None:
    steps, names = found["steps"], DECIDING
    figure, panels = plt.subplots(
        len(names),
        len(steps) - 1,
        figsize=(4 * (len(steps) - 1), 3.6 * len(names)),
        squeeze=False,
        layout="constrained",
    )
    for row, name in zip(panels, names, strict=True):
        for length, axes in enumerate(row):
            short, long = read[name][:, length].mean(axis=1), read[name][:, -1].mean(axis=1)
            shade = np.log10(read["numel"][:, 0, 0])
            points = axes.scatter(short, long, c=shade, s=22, cmap="viridis")
            across = found["scores"][name][str(steps[length])][NAMES[0]]
            axes.set_title(f"{steps[length]} steps: {text(across)}", fontsize=9)
            axes.set_xlabel(f"{name}, {steps[length]} steps", fontsize=8)
            axes.set_ylabel(f"{steps[-1]} steps", fontsize=8)
            if name == FD:
                axes.set(xscale="log", yscale="log")
    figure.colorbar(points, ax=panels, label="log10 of the numbers trained", shrink=0.6)
    figure.suptitle(
        "Means of two trainings; Spearman's correlation of a short training with a long one of another seed", fontsize=9
    )
    figure.savefig(path, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--sets", type=int, nargs="+", default=[0], help="one table each: choose on the first, report others"
    )
    parser.add_argument("--out", type=Path, default=HERE)
    options = parser.parse_args()
    rows = lines(options.out)
    content = {}
    for drawn in options.sets:
        own = [line for line in rows if line["drawn"] == drawn]
        steps = sorted({line["steps"] for line in own})
        print(f"\ntraining set {drawn}\n")
        read = tables(own, steps)
        content[str(drawn)] = examined(read, steps) | {"customary rates": by_rate(own)}
        printed(content[str(drawn)])
        picture(read, content[str(drawn)], options.out / f"ranks-{drawn}.png")
    (options.out / "results.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
