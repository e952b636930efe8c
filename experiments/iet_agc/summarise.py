"""Tables and pictures of what `measure.py` measured, over the seeds that have every way to train at equal steps.

    python experiments/iet_agc/summarise.py

Writes results.json and five pictures beside it, and prints the tables of the README as Markdown.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from memcontrol.comparison.intervals import Mean, mean_over_seeds, paired_difference
from memcontrol.metrics.copies import RATIO_THRESHOLDS

HERE = Path(__file__).parent
HONEST, DEFAULT = "held-out images", "default"
STEPS = (DEFAULT, *(f"default, {part} of the steps" for part in ("3/4", "1/2", "1/4")))
"""Plain training, stopped after fewer and fewer steps: what costs nothing."""
LONGER = ", each shard"
"""In the names of the longer trainings, which may have fewer seeds."""
SIDE = 64
"""Of the model's images, in pixels."""
THRESHOLD = 0.3
"""The threshold on ratios of the tables and of the equal-fd comparison; all sixteen are pictured."""
FD = "fd@efficientnet-lite0"
SHOWN = ("fd", "memorized", "copied_share", "copy_gap")
Row = Mapping[str, Any]
BySeed = dict[int, float]
Lines = dict[str, dict[int, Row]]
"""Arm -> seed -> what was measured."""
Images = Mapping[int, NDArray[np.uint8]]


def read(path: Path) -> dict[str, Lines]:
    """Data -> arm -> seed -> row, of the seeds that have all arms of these data but for the longer ones."""
    found: dict[str, Lines] = {}
    for row in map(json.loads, path.read_text().splitlines()):
        found.setdefault(row["data"], {}).setdefault(row["arm"], {})[row["seed"]] = row
    for data, arms in found.items():
        whole = sorted(set.intersection(*(set(rows) for arm, rows in arms.items() if LONGER not in arm)))
        kept = {arm: {seed: arms[arm][seed] for seed in whole if seed in arms[arm]} for arm in ordered(arms)}
        found[data] = {arm: rows for arm, rows in kept.items() if rows}
    return {data: found[data] for data in sorted(found)}


def ordered(arms: Iterable[str]) -> list[str]:
    """Held-out images, plain training, what it is compared with, and the longer trainings last."""
    first = {arm: place for place, arm in enumerate((HONEST, *STEPS))}
    return sorted(arms, key=lambda arm: (LONGER in arm, first.get(arm, len(first))))


def value(row: Row, name: str) -> float:
    if name == "memorized":
        return float(row["memorized"][RATIO_THRESHOLDS.index(THRESHOLD)])
    if name in row:
        return float(row[name])
    return float(row["scores"][FD if name == "fd" else f"{name}@pixels"])


def by_seed(rows: Mapping[int, Row], name: str) -> BySeed:
    return {seed: value(row, name) for seed, row in rows.items()}


def at_equal_fd(fd: float, points: Sequence[tuple[float, float]]) -> float | None:
    """What plain training has at this fd, on the line through its `(fd, value)` points; None outside of them."""
    by_fd = sorted(points)
    if not by_fd[0][0] <= fd <= by_fd[-1][0]:
        return None
    return float(np.interp(fd, [place for place, _ in by_fd], [number for _, number in by_fd]))


def beyond_fewer_steps(arms: Lines, arm: str, name: str) -> Mean | None:
    """Mean difference between an arm and plain training of as many steps as give the arm's fd, seed by seed."""
    differences = []
    for seed, row in arms[arm].items():
        points = [(value(arms[steps][seed], "fd"), value(arms[steps][seed], name)) for steps in STEPS]
        plain = at_equal_fd(value(row, "fd"), points)
        if plain is not None:
            differences.append(value(row, name) - plain)
    return mean_over_seeds(differences) if differences else None


def skip_rates(row: Row) -> NDArray[np.float64]:
    """Share of its own showings on which each training image was skipped, `(N,)`."""
    skips, seen = np.array(row["skips"], dtype=np.float64), np.array(row["seen"], dtype=np.float64)
    return skips / np.maximum(seen, 1)


def dispersion(row: Row) -> float:
    """Variance of the images' skips over what it would be if all images were skipped at one rate; 1: no favourites."""
    skips, seen = np.array(row["skips"], dtype=float), np.array(row["seen"], dtype=float)
    rate = skips.sum() / seen.sum()
    if rate in (0.0, 1.0):
        return float("nan")
    return float(((skips - rate * seen) ** 2).sum() / (rate * (1 - rate) * seen.sum()))


def favoured(row: Row, numbers: Sequence[float]) -> float:
    """Spearman's correlation, over training images, of skip rates with a number of each image."""
    rates = skip_rates(row)
    if not np.ptp(rates) or not np.ptp(numbers):
        return float("nan")
    return float(spearmanr(rates, numbers).statistic)


def finite_mean(values: Sequence[float]) -> dict[str, Any] | None:
    finite = [number for number in values if np.isfinite(number)]
    return told(mean_over_seeds(finite)) if finite else None


def told(mean: Mean | None) -> dict[str, Any] | None:
    if mean is None:
        return None
    return {"mean": mean.value, "low": mean.low, "high": mean.high, "seeds": mean.n}


def skipping(rows: Mapping[int, Row], defaults: Mapping[int, Row], images: Images) -> dict[str, Any]:
    """How much a control skipped, and which images: those that plain training copies, or those that are bright."""
    light = {seed: images[seed].mean(axis=(1, 2, 3)) for seed in rows if seed in images}
    return {
        "skipped_share": finite_mean([sum(row["skips"]) / sum(row["seen"]) for row in rows.values()]),
        "last_round": finite_mean([row["skipped_by_round"][-1] for row in rows.values()]),
        "empty_bank": finite_mean([row["empty"] for row in rows.values()]),
        "dispersion": finite_mean([dispersion(row) for row in rows.values()]),
        "with_copies": finite_mean([favoured(row, defaults[seed]["copies"]) for seed, row in rows.items()]),
        "with_brightness": finite_mean([favoured(rows[seed], numbers) for seed, numbers in light.items()]),
        "extra_steps": finite_mean([row["extra_steps"] for row in rows.values()]),
    }


def summarised(arms: Lines, images: Images) -> dict[str, Any]:
    """Every arm of one data set: values, paired differences to the default, and those at the default's equal fd.

    Args:
        images: the training images of each seed.
    """
    content: dict[str, Any] = {}
    for arm, rows in arms.items():
        names = [name for name in SHOWN if arm != HONEST or name == "memorized"]
        entry: dict[str, Any] = {name: told(mean_over_seeds(list(by_seed(rows, name).values()))) for name in names}
        curves = np.array([row["memorized"] for row in rows.values()])
        entry["curve"] = curves.mean(axis=0).round(5).tolist()
        if arm != HONEST:
            entry["core_seconds"] = float(np.median([row["core_seconds"] for row in rows.values()]))
            entry["against_default"] = {
                name: told(paired_difference(by_seed(rows, name), by_seed(arms[DEFAULT], name))) for name in names
            }
        if arm not in (HONEST, *STEPS):
            entry["at_equal_fd"] = {name: told(beyond_fewer_steps(arms, arm, name)) for name in names if name != "fd"}
        if any(sum(row.get("seen", ())) for row in rows.values()):
            entry["skipping"] = skipping(rows, arms[DEFAULT], images)
        content[arm] = entry
    return {"seeds": list(arms[DEFAULT]), "arms": content}


def interval(mean: Mapping[str, Any] | None, *, signed: bool = False) -> str:
    """Mean and Student's 95 % interval; with fewer seeds than asked for, how many."""
    if mean is None:
        return ""
    sign = "+" if signed else ""
    digits = 1 if abs(mean["mean"]) >= 1 else 3
    if mean["low"] is None or mean["low"] == mean["high"]:
        return f"{mean['mean']:{sign}.{digits}f}"
    return f"{mean['mean']:{sign}.{digits}f} ({mean['low']:.{digits}f} to {mean['high']:.{digits}f})"


def named(arm: str, entry: Mapping[str, Any], seeds: Sequence[int]) -> str:
    """An arm's name, and how many seeds it has where it has fewer than the others."""
    count = entry["memorized"]["seeds"]
    return arm if count == len(seeds) else f"{arm} (seeds: {count})"


def printed(data: str, content: Mapping[str, Any]) -> None:
    arms, seeds = content["arms"], content["seeds"]
    print(f"\n{data}, seeds {seeds}\n\n| arm | {' | '.join(SHOWN)} | core s |\n|{'---|' * (len(SHOWN) + 2)}")
    for arm, entry in arms.items():
        cells = [interval(entry.get(name)) for name in SHOWN]
        print(f"| {named(arm, entry, seeds)} | {' | '.join(cells)} | {round(entry.get('core_seconds', 0)) or ''} |")
    print(f"\n| arm | {' | '.join(SHOWN)} |\n|{'---|' * (len(SHOWN) + 1)}")
    for arm, entry in arms.items():
        if arm not in (HONEST, DEFAULT):
            cells = [interval(entry["against_default"][name], signed=True) for name in SHOWN]
            print(f"| {arm} | {' | '.join(cells)} |")
    names = SHOWN[1:]
    print(f"\n| arm, at equal fd | {' | '.join(names)} | seeds |\n|{'---|' * (len(names) + 2)}")
    for arm, entry in arms.items():
        if "at_equal_fd" in entry:
            found = entry["at_equal_fd"]
            cells = [interval(found[name], signed=True) for name in names]
            count = found[names[0]]["seeds"] if found[names[0]] else 0
            print(f"| {arm} | {' | '.join(cells)} | {count} of {entry['memorized']['seeds']} |")
    rows = {arm: entry["skipping"] for arm, entry in arms.items() if "skipping" in entry}
    titles = list(next(iter(rows.values())))
    print(f"\n| arm | {' | '.join(titles)} |\n|{'---|' * (len(titles) + 1)}")
    for arm, found in rows.items():
        print(f"| {arm} | {' | '.join(interval(found[title]) for title in titles)} |")


def main() -> None:
    from measure import configuration
    from pictures import drawn

    from memcontrol.data import load_dataset

    lines = read(HERE / "runs.jsonl")
    images: dict[str, Images] = {}
    for data, arms in lines.items():
        configs = {seed: configuration(data, seed).data for seed in arms[DEFAULT]}
        drawn_sets = {seed: load_dataset(config, resolution=SIDE, seed=seed) for seed, config in configs.items()}
        images[data] = {seed: dataset.training.pixels() for seed, dataset in drawn_sets.items()}
    content = {data: summarised(arms, images[data]) for data, arms in lines.items()}
    for data, found in content.items():
        printed(data, found)
    settings = {"thresholds": RATIO_THRESHOLDS, "threshold": THRESHOLD}
    (HERE / "results.json").write_text(json.dumps(settings | content, indent=1) + "\n")
    drawn(lines, content, images, HERE)


if __name__ == "__main__":
    main()
