"""Rank correlations of measures over models, from the lines that `measure.py` wrote.

    python experiments/measures_agree/correlate.py --choose 0 1 --report 5 6 7 8

Writes results.json and correlations.png, and prints the table of the README as Markdown. Signs are turned so that a
positive correlation with extraction means that the measure calls models copied that give training images back.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from scipy.stats import rankdata, spearmanr

from memcontrol.measures import MEASURES, MEMORIZATION

mpl.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
RESAMPLES = 2000
EXTRACTION = "extraction@calibrated"
MEMBERSHIP = "membership_auc@loss"
FD = "fd@efficientnet-lite0"
SHORT = ("full-75", "full-150", "full-300", "attention-300")
"""Models as a search's inner loop makes them."""
SHOWN = (
    *(f"extraction@{rules}" for rules in ("calibrated", "carlini-2023", "memcontrol-2024")),
    *(f"membership_auc@{attack}" for attack in ("loss", "secmi", "pia", "noise")),
    *(f"{measure}@pixels" for measure in ("copied_share", "memorized_share", "nn_ratio_share", "authpct", "c_t")),
    *(f"{measure}@pixels" for measure in ("closer_share", "copy_gap", "copy_tail")),
    *(f"{measure}@efficientnet-lite0" for measure in ("amd", "copy_gap", "copied_share", "mifid_calibrated", "mifid")),
    "noise_magnitude@unet",
    *(f"{measure}@efficientnet-lite0" for measure in ("fd", "kid", "precision", "recall")),
)
"""Measures in the picture: those that ask the model, of images, of noise, and of fidelity."""
Rows = list[dict[str, Any]]


def read() -> Rows:
    return [json.loads(line) for file in sorted(HERE.glob("runs-*.jsonl")) for line in file.read_text().splitlines()]


def copied(name: str, value: float) -> float:
    """Larger is more copied; fidelity measures are turned so that larger is better quality."""
    measure = MEASURES[name.partition("@")[0]]
    fidelity = measure.family not in MEMORIZATION
    return -value if (measure.better == "lower") == fidelity else value


def column(rows: Rows, name: str, kind: str = "scores") -> np.ndarray:
    if name.startswith("extraction@"):
        return np.array([row["extraction"][name.partition("@")[2]]["share"] for row in rows])
    if name == "close_share@calibrated":
        return np.array([row["extraction"]["calibrated"]["close"] for row in rows])
    scores = [row[kind][name] for row in rows]
    return np.array([copied(name, s["value"] if s["raw"] is None else s["raw"]) for s in scores])


def correlation(
    first: np.ndarray, second: np.ndarray, seeds: np.ndarray, given: np.ndarray | None = None
) -> tuple[float, float, float]:
    """Spearman's rank correlation over all models, and its 95 % interval from drawing models anew within each seed.

    With `given`, the partial one: between what is left of both ranks once the rank of `given` has been taken out.
    """
    rng = np.random.default_rng(0)
    own = [np.flatnonzero(seeds == seed) for seed in np.unique(seeds)]
    drawn = []
    for _ in range(RESAMPLES):
        chosen = np.concatenate([rng.choice(rows, len(rows)) for rows in own])
        drawn.append(rank(first[chosen], second[chosen], None if given is None else given[chosen]))
    usable = np.array(drawn)[np.isfinite(drawn)]
    low, high = np.quantile(usable, (0.025, 0.975)) if len(usable) else (np.nan, np.nan)
    return rank(first, second, given), float(low), float(high)


def rank(first: np.ndarray, second: np.ndarray, given: np.ndarray | None = None) -> float:
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    direct = float(spearmanr(first, second).statistic)
    if given is None:
        return direct
    one, other = (float(spearmanr(values, given).statistic) for values in (first, second))
    left = (1 - one**2) * (1 - other**2)
    return float("nan") if left < 1e-9 else (direct - one * other) / float(np.sqrt(left))


def tied(rows: Rows, name: str) -> float:
    """Share of the models of at most 300 steps that have their most common value: 1 tells a search nothing."""
    short = [row for row in rows if row["model"] in SHORT]
    _, counts = np.unique(column(short, name), return_counts=True)
    return float(counts.max() / len(short))


def detected(rows: Rows, name: str) -> float | None:
    """Share of models with p <= .05, where the measure has a p."""
    found = [row["scores"][name]["p"] for row in rows if name in row["scores"]]
    return None if not found or found[0] is None else float(np.mean(np.array(found) <= 0.05))


def noise_rank(rows: Rows, noise: Rows, name: str) -> float | None:
    """Share of models that the measure calls more copied than pure noise, mean over seeds."""
    if not noise or name not in noise[0]["scores"]:
        return None
    shares = []
    for line in noise:
        own = [row for row in rows if row["seed"] == line["seed"]]
        shares.append(float(np.mean(column(own, name) > column([line], name)[0])))
    return float(np.mean(shares))


def examined(rows: Rows, noise: Rows) -> dict[str, Any]:
    """Every measure over one set of seeds."""
    seeds = np.array([row["seed"] for row in rows])
    extraction, membership, quality = column(rows, EXTRACTION), column(rows, MEMBERSHIP), column(rows, FD)
    found = {}
    for name in rows[0]["scores"]:
        values = column(rows, name)
        entry: dict[str, Any] = {
            "extraction": correlation(values, extraction, seeds),
            "given_fd": None if name == FD else correlation(values, extraction, seeds, quality),
            "membership": correlation(values, membership, seeds),
            "tied": tied(rows, name),
            "flagged": detected(rows, name),
            "above_noise": noise_rank(rows, noise, name),
        }
        for kind in ("blurred", "noised"):
            if name in rows[0][kind]:
                entry[kind] = correlation(column(rows, name, kind), extraction, seeds)
        found[name] = entry
    return found


def matrix(rows: Rows, names: list[str]) -> np.ndarray:
    columns = [column(rows, name) for name in names]
    return np.array([[rank(a, b) for b in columns] for a in columns])


def intervals(rows: Rows, names: list[str]) -> dict[str, Any]:
    """Every measure with every other: the correlation, and the ends of its interval as in `correlation`."""
    rng, seeds = np.random.default_rng(0), np.array([row["seed"] for row in rows])
    values = np.array([column(rows, name) for name in names])
    own = [np.flatnonzero(seeds == seed) for seed in np.unique(seeds)]

    def ranked(chosen: np.ndarray) -> np.ndarray:
        ranks = rankdata(values[:, chosen], axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.corrcoef(ranks)

    drawn = [ranked(np.concatenate([rng.choice(rows, len(rows)) for rows in own])) for _ in range(RESAMPLES)]
    low, high = np.nanquantile(drawn, (0.025, 0.975), axis=0)
    parts = {"value": ranked(np.arange(len(rows))), "low": low, "high": high}
    return {"names": names} | {name: np.round(part, 3).tolist() for name, part in parts.items()}


def picture(rows: Rows, names: list[str], path: Path) -> None:
    values = matrix(rows, names)
    figure, axes = plt.subplots(figsize=(10.5, 9), layout="constrained")
    image = axes.imshow(values, vmin=-1, vmax=1, cmap="RdBu_r")
    axes.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    for i, j in np.ndindex(values.shape):
        shade = "white" if abs(values[i, j]) > 0.6 else "black"
        axes.text(j, i, f"{values[i, j]:.2f}", ha="center", va="center", fontsize=6.5, color=shade)
    figure.colorbar(image, ax=axes, label="Spearman's rank correlation over models", shrink=0.8)
    figure.savefig(path, dpi=90, bbox_inches="tight")


def text(interval: tuple[float, float, float] | None) -> str:
    if interval is None or np.isnan(interval[0]):
        return ""
    return f"{interval[0]:.2f} ({interval[1]:.2f} to {interval[2]:.2f})"


def share(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def printed(found: dict[str, Any], chosen: dict[str, Any]) -> None:
    titles = ("measure", "choosing", "reporting", "given fd", "blurred", "noised", "with membership")
    print("|", " | ".join((*titles, "flagged", "above noise", "tied")), "|\n|" + "---|" * 10)
    order = sorted(found, key=lambda name: -np.nan_to_num(found[name]["extraction"][0], nan=-2))
    for name in order:
        entry, before = found[name], chosen.get(name, {}).get("extraction")
        cells = [text(before), text(entry["extraction"]), text(entry["given_fd"])]
        cells += [text(entry.get("blurred")), text(entry.get("noised")), text(entry["membership"])]
        cells += [share(entry["flagged"]), share(entry["above_noise"]), share(entry["tied"])]
        print(f"| {name} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--choose", type=int, nargs="+", required=True)
    parser.add_argument("--report", type=int, nargs="+", required=True)
    options = parser.parse_args()
    lines = read()
    models = [row for row in lines if row["model"] != "noise-only"]
    noise = [row for row in lines if row["model"] == "noise-only"]
    parts = {}
    for name, seeds in (("choose", options.choose), ("report", options.report)):
        own = [row for row in models if row["seed"] in seeds]
        parts[name] = examined(own, [row for row in noise if row["seed"] in seeds])
        print(f"{name}: {len(own)} models of seeds {seeds}\n")
    reported = [row for row in models if row["seed"] in options.report]
    picture(reported, list(SHOWN), HERE / "correlations.png")
    every = [*(f"extraction@{rules}" for rules in reported[0]["extraction"]), *reported[0]["scores"]]
    usable = [name for name in every if np.ptp(column(reported, name))]
    printed(parts["report"], parts["choose"])
    content = {
        "models": list(dict.fromkeys(row["model"] for row in reported)),
        "seeds": {"choose": options.choose, "report": options.report},
        "count": {"choose": len(models) - len(reported), "report": len(reported)},
        "extraction": {
            rules: [[row["seed"], row["model"], row["extraction"][rules]["share"]] for row in models]
            for rules in reported[0]["extraction"]
        },
        "correlations": parts,
        "between_measures": intervals(reported, usable),
    }
    (HERE / "results.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
