"""Tables and a picture of what `measure.py` found: what a trial costs, and the sampler's and storage's share of it.

    python experiments/benchmarks/growth/summarise.py

Writes results.json and growth.png, and prints the README's tables as Markdown.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
from measure import HERE, SAMPLERS, STORAGE, Lines

from memcontrol.config import RunConfig
from memcontrol.study.proposals import chosen_sampler

mpl.use("Agg")
import matplotlib.pyplot as plt

AXES = {"training": "training images", "images": "sampled images", "groups": "groups"}
PHASES = ("tune_s", "sample_s", "score_s")
LARGEST_SHARE = 0.1
Line = dict[str, Any]


def table(columns: list[str], rows: list[list[object]]) -> None:
    print("\n| " + " | ".join(columns) + " |")
    print("|---" * len(columns) + "|")
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |")


def trial_seconds(lines: list[Line]) -> float | None:
    """CPU seconds of the default trial, where it was measured."""
    default = RunConfig().sampling.images
    return next((line["trial_s"] for line in lines if line["part"] == "images" and line["at"] == default), None)


def shares(lines: list[Line], trial: float) -> list[Line]:
    """For each length and width of a study what its own sampler and the storage take of a trial."""
    found = {(line["groups"], line["at"], line["what"]): line["cpu_s"] for line in lines if line["part"] == "study"}
    rows = []
    for groups, at in sorted({key[:2] for key in found}):
        chosen = chosen_sampler("auto", budget=at, groups=groups, objectives=2)
        row: Line = {"groups": groups, "trials": at, "auto": chosen}
        row |= {what: found.get((groups, at, what)) for what in (*SAMPLERS, *STORAGE)}
        taken = [row.get(chosen), row["storage"]]
        row["share"] = None if None in taken else sum(taken) / (trial + sum(taken))
        rows.append(row)
    return rows


def picture(lines: list[Line], study: list[Line], file: Path) -> None:
    figure, axes = plt.subplots(1, 4, figsize=(15, 3.6))
    for axis, (part, label) in zip(axes, AXES.items(), strict=False):
        found = sorted((line for line in lines if line["part"] == part), key=lambda line: line["at"])
        for phase in PHASES:
            axis.plot(
                [line["at"] for line in found], [line[phase] for line in found], "o-", label=phase.removesuffix("_s")
            )
        axis.set(xlabel=label, ylabel="CPU s", xscale="log", ylim=(0, None))
    axes[0].legend()
    for groups in sorted({row["groups"] for row in study}):
        found = [row for row in study if row["groups"] == groups and row["share"] is not None]
        axes[3].plot([row["trials"] for row in found], [row["share"] for row in found], "o-", label=f"{groups} groups")
    axes[3].axhline(LARGEST_SHARE, color="0.5", linestyle=":")
    axes[3].set(xlabel="trials", ylabel="sampler and storage, share of a trial", xscale="log", ylim=(0, None))
    axes[3].legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(file, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=HERE / "runs.jsonl")
    parser.add_argument("--trial", type=float, help="CPU seconds of a trial, where none of the default was measured")
    options = parser.parse_args()
    lines = Lines(options.runs, {}).known
    for part, label in AXES.items():
        found = sorted((line for line in lines if line["part"] == part), key=lambda line: line["at"])
        names = ["trial_s", *PHASES, "once_s"]
        table([label, *names], [[line["at"], *(f"{line[name]:.2f}" for name in names)] for line in found])
    trial = options.trial or trial_seconds(lines)
    if trial is None:
        raise SystemExit("no trial of the default settings was measured: run measure.py --parts trial, or give --trial")
    study = shares(lines, trial)
    cells = [[row[name] if row[name] is not None else "" for name in ("groups", "trials")] for row in study]
    for cell, row in zip(cells, study, strict=True):
        cell += ["" if row[what] is None else f"{row[what]:.2f}" for what in (*SAMPLERS, *STORAGE)]
        cell += [row["auto"], "" if row["share"] is None else f"{row['share']:.1%}"]
    seconds = [f"{name}, s" for name in (*SAMPLERS, *STORAGE)]
    table(["groups", "trials", *seconds, "auto", "its share"], cells)
    above = [row for row in study if row["share"] is not None and row["share"] >= LARGEST_SHARE]
    print(f"\n{len(above)} of {len(study)} at or above {LARGEST_SHARE:.0%} of a trial of {trial:.1f} s")
    results = {"trial_s": trial, "lines": lines, "study": study}
    (options.runs.parent / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    picture(lines, study, options.runs.parent / "growth.png")


if __name__ == "__main__":
    main()
