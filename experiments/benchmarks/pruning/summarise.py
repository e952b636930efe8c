"""Pruned searches against unpruned ones, paired over seeds: hypervolume, seconds, and what checkpoints add.

    python experiments/benchmarks/pruning/summarise.py

Reads searches.jsonl, writes results.json and prints the README's tables.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from replay import markdown, scaled
from scipy.stats import t

from memcontrol.study.front import hypervolume

HERE = Path(__file__).parent
Floats = NDArray[np.float64]
Line = dict[str, Any]


def volumes(line: Line, reference: Floats) -> dict[str, float]:
    """Of the candidates' ends, and of the whole front, checkpoints included."""
    names = [one["name"] for one in line["objectives"]]
    ends = np.array(line["ends"], dtype=np.float64)
    front = np.array([[member["scores"][name]["value"] for name in names] for member in line["front"]])
    return {
        "hypervolume": hypervolume(scaled(ends), reference),
        "with checkpoints": hypervolume(scaled(np.vstack([ends, front])), reference),
    }


def cut_off(line: Line, seconds: float, reference: Floats) -> float:
    """The hypervolume of an unpruned search's first trials, as many as take so many seconds."""
    some = max(1, int(np.searchsorted(np.cumsum(line["seconds"]), seconds, side="right")))
    return hypervolume(scaled(np.array(line["ends"][:some], dtype=np.float64)), reference)


def interval(values: Floats) -> list[float]:
    """Mean and Student's 95 % interval over seeds."""
    mean = float(values.mean())
    if len(values) < 2:
        return [round(mean, 4)] * 3
    half = float(t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return [round(number, 4) for number in (mean, mean - half, mean + half)]


def named(line: Line) -> str:
    """What tells an arm from others of the same seed."""
    rungs = "".join(f", {key} {line[key]}" for key in ("rungs", "eta", "margin") if line.get(key))
    return f"{line['arm']}{rungs}"


def paired(lines: list[Line], arm: str) -> tuple[list[Line], dict[str, Any]]:
    """Each seed's figures as shares of the unpruned search's, and their means."""
    plain = {line["seed"]: line for line in lines if line["arm"] == "unpruned"}
    rows = []
    for line in sorted((one for one in lines if named(one) == arm), key=lambda one: one["seed"]):
        other = plain.get(line["seed"])
        if other is None:
            continue
        reference = scaled(np.array([other["reference_point"]]))[0]  # the same references, so the same point
        own, whole = volumes(line, reference), volumes(other, reference)["hypervolume"]
        seconds = {name: round(line[name] / other[name], 4) for name in ("trials_s", "cpu_s", "wall_s")}
        own["unpruned for as long"] = cut_off(other, line["trials_s"], reference)
        shares = {name: round(value / whole, 4) for name, value in own.items()}
        rows.append({"seed": line["seed"], "pruned": line["trials"].get("pruned", 0), **shares, **seconds})
    names = [name for name in rows[0] if name != "seed"] if rows else []
    return rows, {name: interval(np.array([row[name] for row in rows], dtype=np.float64)) for name in names}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE)
    options = parser.parse_args()
    lines = [json.loads(line) for line in (options.out / "searches.jsonl").read_text().splitlines()]
    result = {}
    for arm in dict.fromkeys(named(line) for line in lines if line["arm"] != "unpruned"):
        rows, means = paired(lines, arm)
        if rows:
            result[arm] = {"seeds": rows, "means": means}
            print(f"\n{arm}, as shares of the unpruned search\n\n{markdown(rows)}\n")
            print(markdown([{"figure": name, "mean": m, "low": a, "high": b} for name, (m, a, b) in means.items()]))
    (options.out / "results.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
