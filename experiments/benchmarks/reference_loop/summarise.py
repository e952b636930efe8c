"""Tables of what `measure.py` found: seconds per trial both ways, factor by factor, and how well scores agree in rank.

    python experiments/benchmarks/reference_loop/summarise.py

Writes results.json and prints the tables of the README as Markdown. Intervals are of 95 %: of ratios by Student's t on
their logarithms over repetitions, of rank correlations by drawing masks anew.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from measure import HERE, OURS, REFERENCE, VARIANTS, lines
from numpy.typing import NDArray
from scipy.stats import spearmanr, t

Seconds = dict[tuple[str, str], dict[str, dict[int, float]]]
"""(space, mask) -> variant -> repetition -> seconds."""
RESAMPLES = 2000
SCORES = ("fd", "raw_gap")


def seconds(found: list[dict[str, Any]], clock: str) -> Seconds:
    taken: Seconds = defaultdict(lambda: defaultdict(dict))
    for line in found:
        taken[line["space"], line["mask"]][line["variant"]][line["repetition"]] = line[clock]
    return taken


def ratio(numerator: dict[int, float], denominator: dict[int, float]) -> list[float]:
    """Geometric mean of the repetitions' ratios and its interval; the mean alone of a single repetition."""
    logs = np.array([np.log(numerator[r] / denominator[r]) for r in sorted(set(numerator) & set(denominator))])
    middle = float(logs.mean())
    if len(logs) < 2:
        return [round(float(np.exp(middle)), 3)]
    half = float(t.ppf(0.975, len(logs) - 1) * logs.std(ddof=1) / np.sqrt(len(logs)))
    return [round(float(np.exp(value)), 3) for value in (middle, middle - half, middle + half)]


def shown(values: list[float]) -> str:
    return f"{values[0]:.2f}" + (f" ({values[1]:.2f} to {values[2]:.2f})" if len(values) == 3 else "")


def timing(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each mask and variant."""
    cpu, wall, rows = seconds(found, "cpu_s"), seconds(found, "wall_s"), []
    for (space, mask), variants in cpu.items():
        for variant in (name for name in VARIANTS if name in variants):
            taken = variants[variant]
            row: dict[str, Any] = {"space": space, "mask": mask, "variant": variant, "repetitions": len(taken)}
            row |= {"cpu_s": round(float(np.mean(list(taken.values()))), 2)}
            row |= {"wall_s": round(float(np.mean(list(wall[space, mask][variant].values()))), 2)}
            if OURS in variants:
                row["times_ours"] = ratio(taken, variants[OURS])
            if REFERENCE in variants:
                row["of_reference"] = ratio(taken, variants[REFERENCE])
            rows.append(row)
    return rows


def spearman(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    return float(np.mean([spearmanr(a, b).statistic for a, b in zip(first, second, strict=True)]))


def correlations(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Over masks: the reference with itself under the other seed, ours with it, and ours with itself."""
    rows, rng = [], np.random.default_rng(0)
    for score in SCORES:
        table = {(line["variant"], line["mask"], line["seed"]): line[score] for line in found}
        masks = sorted({mask for _, mask, _ in table})
        whole = [m for m in masks if all((v, m, s) in table for v in (REFERENCE, OURS) for s in (0, 1))]
        if len(whole) < 3:
            continue
        values = {v: np.array([[table[v, m, s] for m in whole] for s in (0, 1)]) for v in (REFERENCE, OURS)}
        pairs = {
            "reference, retest": (values[REFERENCE][:1], values[REFERENCE][1:]),
            "ours with reference, other seed": (values[OURS], values[REFERENCE][::-1]),
            "ours with reference, same seed": (values[OURS], values[REFERENCE]),
            "ours, retest": (values[OURS][:1], values[OURS][1:]),
        }
        drawn = rng.integers(len(whole), size=(RESAMPLES, len(whole)))
        for name, (first, second) in pairs.items():
            resampled = [spearman(first[:, chosen], second[:, chosen]) for chosen in drawn]
            low, high = np.nanquantile(resampled, (0.025, 0.975))
            interval = [round(float(value), 3) for value in (spearman(first, second), low, high)]
            rows.append({"score": score, "pair": name, "masks": len(whole), "spearman": interval})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE)
    options = parser.parse_args()
    times, ranks = timing(lines(options.out / "times.jsonl")), correlations(lines(options.out / "ranks.jsonl"))
    (options.out / "results.json").write_text(json.dumps({"times": times, "ranks": ranks}, indent=1) + "\n")
    print("| space | mask | variant | repetitions | CPU s | wall s | times ours | of the reference |")
    print("|---|---|---|---|---|---|---|---|")
    for row in times:
        cells = [row[name] for name in ("space", "mask", "variant", "repetitions", "cpu_s", "wall_s")]
        cells += [shown(row[name]) if name in row else "" for name in ("times_ours", "of_reference")]
        print("| " + " | ".join(map(str, cells)) + " |")
    print("\n| score | pair | masks | Spearman |\n|---|---|---|---|")
    for row in ranks:
        print(f"| {row['score']} | {row['pair']} | {row['masks']} | {shown(row['spearman'])} |")


if __name__ == "__main__":
    main()
