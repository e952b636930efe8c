"""What the table of masks says: whether seeds agree, and which masks are on the true front.

    python experiments/benchmarks/mask_table/summarise.py

Reads masks-I.csv, trains nothing, and prints what the README says.
"""

from itertools import combinations

import numpy as np
from measure import FD, HERE, SEEDS, rows
from scipy.stats import spearmanr

from memcontrol.study.front import front_places

NAMES = (FD, "raw_gap")


def main() -> None:
    found = {(row["mask"], int(row["seed"])): [float(row[name]) for name in NAMES] for row in rows(HERE)}
    masks = sorted({mask for mask, _ in found if all((mask, seed) in found for seed in SEEDS)})
    values = np.array([[found[mask, seed] for seed in SEEDS] for mask in masks])
    cpu_s = [float(row["cpu_s"]) for row in rows(HERE)]
    print(f"{len(masks)} masks under {len(SEEDS)} seeds, {len(found)} trainings, {sum(cpu_s) / 60:.0f} core minutes")
    print(f"CPU seconds of one: {min(cpu_s):.1f} to {max(cpu_s):.1f}, median {np.median(cpu_s):.1f}")
    for place, name in enumerate(NAMES):
        pairs = combinations(values[:, :, place].T, 2)
        ranks = [f"{spearmanr(*pair).statistic:.3f}" for pair in pairs]
        print(f"{name}, Spearman between seeds: {', '.join(ranks)}")
    means = values.mean(axis=1)
    places = sorted(front_places(means), key=lambda place: means[place, 0])
    print(f"\n{len(places)} masks on the front of the means over seeds:\n\n| mask | {FD} | {NAMES[1]} |\n|---|---|---|")
    for place in places:
        print(f"| `{masks[place]}` | {means[place, 0]:.1f} | {means[place, 1]:.4f} |")


if __name__ == "__main__":
    main()
