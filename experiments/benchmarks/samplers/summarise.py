"""Tables of what `replay.py` found: hypervolume by budget, paired gains over random search, and budgets that match it.

    python experiments/benchmarks/samplers/summarise.py

Writes results.json and a picture for each problem, and prints the tables of the README as Markdown. Intervals are of
95 %, from drawing repetitions anew.
"""

import json
from collections import defaultdict
from typing import Any

import matplotlib as mpl
import numpy as np
from problems import Floats
from replay import HERE, lines

mpl.use("Agg")
import matplotlib.pyplot as plt

BUDGETS = (15, 25, 50)
RANDOM = "random"
RESAMPLES = 2000
FEWEST = 5
"""Repetitions below which no interval is shown."""
Curves = dict[str, dict[int, Floats]]
"""Strategy -> repetition -> `(budget,)` shares."""


def read(kind: str) -> dict[str, Curves]:
    """Curves of each problem; of the table, those of the most masks."""
    found = [line for line in lines() if line["budget"] >= max(BUDGETS)]
    most = {line["problem"]: 0 for line in found}
    for line in found:
        most[line["problem"]] = max(most[line["problem"]], line["trained"])
    curves: dict[str, Curves] = defaultdict(lambda: defaultdict(dict))
    for line in found:
        if line["trained"] == most[line["problem"]] and line["missing_cost"] == 0:
            curves[line["problem"]][line["strategy"]][line["repetition"]] = np.array(line[kind])
    return curves


def interval(values: Floats) -> list[float]:
    """Mean and its bootstrap interval."""
    chosen = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.quantile(values[chosen].mean(axis=1), (0.025, 0.975))
    return [round(float(number), 4) for number in (values.mean(), low, high)]


def matching(own: Floats, random: Floats) -> list[float]:
    """Trainings after which the mean of `(R, B)` curves is at random search's last mean, with its interval.

    One more than the budget where it never is.
    """
    budget = own.shape[1]

    def first(rows: Floats, others: Floats) -> int:
        at = np.flatnonzero(rows.mean(axis=0) >= others[:, -1].mean() - 1e-9)
        return int(at[0]) + 1 if len(at) else budget + 1

    rng, count = np.random.default_rng(0), len(own)
    drawn = [first(own[chosen], random[chosen]) for chosen in rng.integers(count, size=(RESAMPLES, count))]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return [first(own, random), float(low), float(high)]


def examined(curves: Curves) -> dict[str, Any]:
    found = {}
    for strategy, own in curves.items():
        shared = sorted(own.keys() & curves.get(RANDOM, {}).keys())
        if len(shared) < FEWEST:
            continue
        mine, random = (np.array([rows[repetition] for repetition in shared]) for rows in (own, curves[RANDOM]))
        mine, random = mine[:, : max(BUDGETS)], random[:, : max(BUDGETS)]
        found[strategy] = {
            "repetitions": len(shared),
            "share": {str(n): interval(mine[:, n - 1]) for n in BUDGETS},
            "gain": {str(n): interval(mine[:, n - 1] - random[:, n - 1]) for n in BUDGETS},
            "matches random's 50 after": matching(mine, random),
        }
    return found


def pooled(curves: dict[str, Curves], problems: list[str]) -> Curves:
    """Means over problems of the repetitions that all of a strategy's problems have."""
    strategies = set.intersection(*(set(curves[name]) for name in problems)) if problems else set()
    merged: Curves = {}
    for strategy in sorted(strategies):
        shared = set.intersection(*(set(curves[name][strategy]) for name in problems))
        merged[strategy] = {r: np.mean([curves[name][strategy][r] for name in problems], axis=0) for r in shared}
    return merged


def cost() -> dict[str, float]:
    """Median CPU seconds of a strategy's proposals over one search."""
    seconds = defaultdict(list)
    for line in lines():
        seconds[line["strategy"]].append(line["seconds"])
    return {strategy: round(float(np.median(values)), 3) for strategy, values in seconds.items()}


def printed(name: str, found: dict[str, Any], seconds: dict[str, float]) -> None:
    print(f"\n### {name}\n")
    titles = [f"share, {n}" for n in BUDGETS] + [f"gain, {n}" for n in BUDGETS]
    print("| strategy | repetitions |", " | ".join(titles), "| matches random's 50 after | CPU s |")
    print("|" + "---|" * (4 + len(titles)))
    for strategy in sorted(found, key=lambda name: -found[name]["share"]["25"][0]):
        entry = found[strategy]
        shares = [f"{entry['share'][str(n)][0]:.3f}" for n in BUDGETS]
        gains = ["{:+.3f} ({:+.3f} to {:+.3f})".format(*entry["gain"][str(n)]) for n in BUDGETS]
        number, low, high = entry["matches random's 50 after"]
        cells = [strategy, str(entry["repetitions"]), *shares, *gains]
        print("|", " | ".join(cells), f"| {number:.0f} ({low:.0f} to {high:.0f}) | {seconds[strategy]:.2f} |")


def picture(name: str, curves: Curves) -> None:
    figure, axes = plt.subplots(figsize=(7, 4.6), layout="constrained")
    for strategy, own in sorted(curves.items()):
        if len(own) >= FEWEST:
            mean = np.mean([rows[: max(BUDGETS)] for rows in own.values()], axis=0)
            style = "--" if strategy.endswith("+baselines") else "-"
            color = f"C{sorted({s.split('+')[0] for s in curves}).index(strategy.split('+')[0])}"
            axes.plot(np.arange(1, len(mean) + 1), mean, style, color=color, label=f"{strategy} ({len(own)})", lw=1.4)
    axes.set(title=name, xlabel="trainings", ylabel="share of the best hypervolume, front as delivered", ylim=(0.4, 1))
    axes.legend(fontsize=7, ncols=2, loc="lower right")
    axes.grid(alpha=0.3)
    figure.savefig(HERE / f"curves-{name}.png", dpi=90)
    plt.close(figure)


def main() -> None:
    delivered, reached = read("delivered"), read("reached")
    seconds = cost()
    content: dict[str, Any] = {"cpu_s": seconds, "delivered": {}, "reached": {}}
    synthetic = [name for name in delivered if name != "brain"]
    for kind, curves in (("delivered", delivered), ("reached", reached)):
        whole = {name: dict(own) for name, own in curves.items()} | {"all-synthetic": pooled(curves, synthetic)}
        content[kind] = {name: examined(own) for name, own in whole.items()}
        if kind == "delivered":
            for name, own in whole.items():
                printed(name, content[kind][name], seconds)
                picture(name, own)
    (HERE / "results.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
