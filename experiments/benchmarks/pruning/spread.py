"""How much searches of one seed by 256 images differ in their front's hypervolume, where only rounding differs.

    python experiments/benchmarks/pruning/spread.py

Reads the unpruned searches here and those of `../tracing`, at several commits and on two machines, and that of
`fewer_images.py`, which had one worker instead of two; prints their hypervolumes (log `fd`, each search's own
references as reference point), with mean and standard deviation.
"""

from pathlib import Path
from typing import Any

import numpy as np
from fewer_images import ALL, HERE, points, written
from replay import scaled

from memcontrol.study.front import hypervolume

SEED = 5
SEARCHES = (HERE / "searches.jsonl", HERE.parent / "tracing" / "searches.jsonl", *sorted(HERE.glob("fewer-images-*")))


def lines(file: Path) -> list[dict[str, Any]]:
    """Unpruned searches by all images that kept their candidates' scores."""
    searches = [line for line in written(file) if line["seed"] == SEED and "ends" in line]
    return [line for line in searches if line.get("arm", "unpruned") == "unpruned" and line.get("images", ALL) == ALL]


def main() -> None:
    found = []
    for line in (line for file in SEARCHES for line in lines(file)):
        ends = points(line, ALL) if "images" in line else scaled(np.array(line["ends"]))
        found.append(hypervolume(ends, scaled(np.array([line["reference_point"]]))[0]))
    mean, deviation = np.mean(found), np.std(found, ddof=1)
    print(np.round(found, 4), f"mean {mean:.4f}, standard deviation {deviation / mean:.1%} of it")


if __name__ == "__main__":
    main()
