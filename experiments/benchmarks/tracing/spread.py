"""How much the front's hypervolume differs between searches of one seed whose scores differ by rounding alone.

    python experiments/benchmarks/tracing/spread.py

Reads searches.jsonl here, and the searches by 256 images of `../pruning`; prints hypervolumes (log `fd`, each search's
own references as reference point), their mean and standard deviation.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memcontrol.study.front import hypervolume

HERE = Path(__file__).parent
SEED, ALL = 5, "256"
Floats = NDArray[np.float64]


def logs(points: Any) -> Floats:
    """`(N, 2)`: log fd, and copy_gap as it is."""
    values = np.array(points, dtype=np.float64).reshape(-1, 2)
    return np.stack([np.log(values[:, 0]), values[:, 1]], axis=1)


def lines(name: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for file in sorted(HERE.parent.glob(name)) for line in file.read_text().splitlines()]
    return [line for line in found if line["seed"] == SEED and "ends" in line]


def main() -> None:
    unpruned = [line for line in lines("pruning/searches.jsonl") if line["arm"] == "unpruned"]
    searches = [(line["ends"], line["reference_point"]) for line in (*unpruned, *lines("tracing/searches.jsonl"))]
    for line in lines("pruning/fewer-images-*.jsonl"):
        if str(line["images"]) == ALL:
            searches.append(([end["scores"][ALL] for end in line["ends"]], line["reference_point"]))
    found = np.array([hypervolume(logs(ends), logs(reference)[0]) for ends, reference in searches])
    print(found.round(4), f"mean {found.mean():.4f}, standard deviation {found.std(ddof=1) / found.mean():.1%} of it")


if __name__ == "__main__":
    main()
