"""Does the customary learning rate suit? fd of searched candidates by how far their rate was from the customary one.

    python experiments/short_vs_long/rates.py runs/brain-search/seed-05 runs/brain-search/seed-06

Reads finished run folders of `memcontrol search`, trains nothing, and prints geometric means of fd as Markdown.
"""

import argparse
import csv
import json
from collections import defaultdict
from pathlib import Path

import numpy as np

from memcontrol.config import load_config
from memcontrol.groups import ParameterGroup
from memcontrol.space import load_space
from memcontrol.study.candidate import CandidateSpace, RateGrid
from memcontrol.study.trial import rate_range

FD = "fd@efficientnet-lite0"
SHARES = (0.0, 0.1, 0.4, 0.75, 1.0)


def space_of(folder: Path) -> CandidateSpace:
    """What the run searched, from one of its masks."""
    config = load_config(folder / "config.yaml")
    mask = json.loads(next(iter(sorted((folder / "masks").glob("*.json")))).read_text())
    groups = tuple(
        ParameterGroup(entry["name"], entry["method"], tuple(entry["parameters"]), entry["numel"])
        for entry in mask["groups"]
    )
    rates = RateGrid.between(*(config.learning_rate or rate_range(load_space(config.space))))
    return CandidateSpace(groups=groups, always=(), rates=rates, steps=config.tuning.steps)


def offsets(folder: Path) -> list[tuple[int, int, float]]:
    """For each trained candidate: which band of `SHARES` it is in, its rate's offset on the grid, and its log fd."""
    space, found = space_of(folder), []
    whole = sum(group.numel for group in space.groups)
    for row in csv.DictReader((folder / "trials.csv").open()):
        if row["state"] != "complete" or not row["learning_rate"]:
            continue
        levels = [int(bit) for bit in row["mask"]]
        share = sum(group.numel for group in space.trained(levels)) / whole
        band = int(np.searchsorted(SHARES[1:-1], share))
        offset = space.rates.nearest(float(row["learning_rate"])) - space.customary_rate(levels)
        found.append((band, offset, float(np.log(float(row[FD])))))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+")
    cells: dict[tuple[int, int], list[float]] = defaultdict(list)
    for folder in parser.parse_args().runs:
        for band, offset, log in offsets(folder):
            cells[band, offset].append(log)
    columns = sorted({offset for _, offset in cells})
    print("| share of the parameters |", " | ".join(f"{offset:+d}" for offset in columns), "|")
    print("|" + "---|" * (1 + len(columns)))
    for band in range(len(SHARES) - 1):
        row = [cells.get((band, offset), []) for offset in columns]
        texts = [f"{np.exp(np.mean(logs)):.0f} ({len(logs)})" if logs else "" for logs in row]
        print(f"| {SHARES[band]:g} to {SHARES[band + 1]:g} |", " | ".join(texts), "|")


if __name__ == "__main__":
    main()
