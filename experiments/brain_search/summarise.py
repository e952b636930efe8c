"""All reported seeds in one table: results.json, and the Markdown that the README shows.

    python experiments/brain_search/summarise.py

- Full fine-tuning copies: at the point of best `fd` among its three rates, `copy_gap` lies above the 97.5 %
  quantile of its null band. The share of all its points is given too.
- Front against full fine-tuning at matched `fd`: a member's `copy_gap`, trained again with a fresh seed, minus that of
  full fine-tuning's lower envelope interpolated at the member's `fd` (also of the fresh training). Members that train
  to an `fd` which full fine-tuning's envelope does not span are counted, not compared.
- Front against random masks of equal size: paired differences of both scores, both trained with the same fresh seed;
  and, since a pair's `fd` differ, the difference of their distances from full fine-tuning's envelope, each at its own
  `fd`, for the pairs of which the envelope spans both.

Means over a seed's pairs come first, then mean and 95 % t interval over seeds.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from memcontrol.comparison.intervals import mean_over_seeds
from memcontrol.report.trajectory import at_equal_fidelity

HERE = Path(__file__).parent
FD, GAP = "fd@efficientnet-lite0", "copy_gap@pixels"


def value(scored: dict[str, Any], name: str) -> float:
    return float(scored["scores"][name]["value"])


def full_points(seed: dict[str, Any]) -> list[dict[str, Any]]:
    references = seed["search"]["references"]
    return [point for name, points in references.items() if name.startswith("full") for point in points]


def copies(point: dict[str, Any]) -> bool:
    score = point["scores"][GAP]
    return bool(score["raw"] > score["null"][2])


def of_seed(seed: dict[str, Any]) -> dict[str, Any]:
    full = full_points(seed)
    best = min(full, key=lambda point: value(point, FD))
    trajectory = np.array([[value(point, FD), value(point, GAP)] for point in full])
    front = [row for row in seed["again"] if row["kind"] == "front"]
    random = {row["trial"]: row for row in seed["again"] if row["kind"] == "random"}
    pairs = [(row, random[row["trial"]]) for row in front]

    def above_full(row: dict[str, Any]) -> float | None:
        at_full = at_equal_fidelity(trajectory, value(row, FD))
        return None if at_full is None else value(row, GAP) - at_full

    matched = [above for row in front if (above := above_full(row)) is not None]
    both = [(above_full(a), above_full(b)) for a, b in pairs]
    adjusted = [a - b for a, b in both if a is not None and b is not None]
    return {
        "seed": seed["seed"],
        "front members": len(seed["search"]["front"]),
        "full: best fd": value(best, FD),
        "full: copy_gap there": value(best, GAP),
        "full copies there": copies(best),
        "full: share of points that copy": float(np.mean([copies(point) for point in full])),
        "front: best fd again": min(value(row, FD) for row in front),
        "members compared": f"{len(matched)} of {len(front)}",
        "copy_gap, front minus full": float(np.mean(matched)) if matched else None,
        "copy_gap, front minus random": float(np.mean([value(a, GAP) - value(b, GAP) for a, b in pairs])),
        "copy_gap, front minus random, each against full at its fd": float(np.mean(adjusted)) if adjusted else None,
        "fd, front minus random": float(np.mean([value(a, FD) - value(b, FD) for a, b in pairs])),
        "search minutes": seed["search_seconds"] / 60,
    }


def interval(values: list[float]) -> dict[str, Any]:
    mean = mean_over_seeds(values)
    ends = {} if mean.half is None else {"low": mean.low, "high": mean.high}
    return {"mean": mean.value, "n": mean.n, **ends, "below zero": sum(value < 0 for value in values)}


def text(cell: Any) -> str:
    return f"{cell:.3f}" if isinstance(cell, float) else "" if cell is None else str(cell)


def main() -> None:
    rows = [of_seed(json.loads(file.read_text())) for file in sorted((HERE / "seeds").glob("*.json"))]
    differences = [key for key in rows[0] if " minus " in key]
    over = {key: interval([row[key] for row in rows if row[key] is not None]) for key in differences}
    copying = sum(row["full copies there"] for row in rows)
    result = {"full copies at its best fd": f"{copying} of {len(rows)} seeds", "differences": over, "seeds": rows}
    (HERE / "results.json").write_text(json.dumps(result, indent=1) + "\n")
    print("|", " | ".join(rows[0]), "|\n|" + "---|" * len(rows[0]))
    for row in rows:
        print("|", " | ".join(text(cell) for cell in row.values()), "|")
    for key, found in over.items():
        print(key, {name: round(number, 4) for name, number in found.items()})


if __name__ == "__main__":
    main()
