"""The five pictures of this folder, drawn from what `summarise.py` read and counted."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from summarise import DEFAULT, HONEST, LONGER, STEPS, THRESHOLD, Images, skip_rates, value

from memcontrol.metrics.copies import RATIO_THRESHOLDS

COLOURS = {
    "default": "#000000",
    "default, 3/4 of the steps": "#333333",
    "default, 1/2 of the steps": "#777777",
    "default, 1/4 of the steps": "#b0b0b0",
    "shards alone": "#E69F00",
    "IET-AGC": "#56B4E9",
    "IET-AGC, wide": "#0072B2",
    "IET-AGC+, wide": "#D55E00",
    "control alone, wide": "#009E73",
}
MARKERS = dict(zip(COLOURS, "ohs^DvPX*", strict=True))
CONTROLLED = ("control alone, wide", "IET-AGC", "IET-AGC, wide", "IET-AGC+, wide")
TRAIN_TIMESTEPS = 1000
Lines = Mapping[str, Mapping[str, Mapping[int, Any]]]


def panels(lines: Lines, rows: int = 1) -> tuple[Figure, Any]:
    """A figure with a column for each data set."""
    figure = Figure(figsize=(5.0 * len(lines), 0.9 + 3.3 * rows), dpi=110, layout="constrained")
    axes = figure.subplots(rows, len(lines), squeeze=False)
    for column in axes.T:
        for one in column:
            one.spines[["top", "right"]].set_visible(False)
    return figure, axes


def finished(figure: Figure, axes: Axes, path: Path, columns: int = 3) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=8)
    write(figure, path)


def write(figure: Figure, path: Path) -> None:
    """As PNG of at most 256 colours, a third of the size."""
    content = io.BytesIO()
    figure.savefig(content, format="png")
    Image.open(content).convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
        path, optimize=True
    )


def curves(lines: Lines, content: Mapping[str, Any], path: Path) -> None:
    """Memorized quantity at every threshold, mean over seeds."""
    figure, axes = panels(lines)
    for one, data in zip(axes[0], lines, strict=True):
        arms = content[data]["arms"]
        for arm, colour in COLOURS.items():
            style = ":" if arm in STEPS[1:] else "-"
            one.plot(RATIO_THRESHOLDS, arms[arm]["curve"], style, color=colour, marker=MARKERS[arm], ms=3.5, label=arm)
        one.plot(RATIO_THRESHOLDS, arms[HONEST]["curve"], "--", color="#CC79A7", lw=2, label=HONEST)
        one.set(title=data, xlabel="threshold on the ratio of squared distances", ylim=(0, 1.02))
    axes[0][0].set_ylabel("share of generated images below it")
    finished(figure, axes[0][0], path)


def plane(lines: Lines, content: Mapping[str, Any], path: Path) -> None:
    """Copying against fd: plain training as a line over its number of steps, the others as points.

    Large: means over seeds. Small: seeds. Hollow: each shard trained for as many steps as the default.
    """
    figure, axes = panels(lines, rows=2)
    for row, name in zip(axes, ("memorized", "copy_gap"), strict=True):
        for one, data in zip(row, lines, strict=True):
            arms = content[data]["arms"]
            line = [[arms[arm][key]["mean"] for arm in STEPS] for key in ("fd", name)]
            one.plot(*line, "-", color="#999999", lw=1, zorder=1)
            if name == "memorized":
                one.axhline(arms[HONEST][name]["mean"], ls="--", color="#CC79A7", lw=1.5, label=HONEST)
            for arm in arms:
                if arm != HONEST:
                    points(one, arm, [(value(found, "fd"), value(found, name)) for found in lines[data][arm].values()])
            one.set(xlabel="fd to held-out images", ylim=(0, None))
            one.set_title(data if name == "memorized" else "")
    axes[0][0].set_ylabel(f"share below a ratio of {THRESHOLD}")
    axes[1][0].set_ylabel("copy_gap on pixels")
    finished(figure, axes[0][0], path)


def points(axes: Axes, arm: str, seeds: Sequence[tuple[float, float]]) -> None:
    base, longer = arm.partition(LONGER)[0], LONGER in arm
    style: dict[str, Any] = {"marker": MARKERS[base], "facecolor": "none" if longer else COLOURS[base]}
    style["edgecolor"] = COLOURS[base]
    x, y = np.array(seeds).T
    if len(seeds) > 1:
        axes.scatter(x, y, s=14, alpha=0.5, lw=0, **style)
    axes.scatter(x.mean(), y.mean(), s=55, zorder=3, label=None if longer else arm, **style)


def banks(lines: Lines, path: Path) -> None:
    """What the loss banks hold after training, of the first seed."""
    figure, axes = panels(lines)
    for one, data in zip(axes[0], lines, strict=True):
        for arm in ("IET-AGC", *(arm for arm in CONTROLLED if arm != "IET-AGC")):
            row = next(iter(lines[data][arm].values()))
            for shard, bank in enumerate(row["banks"]):
                width = TRAIN_TIMESTEPS / len(bank)
                places = (np.arange(len(bank)) + 0.5) * width
                label = None if shard else arm + (" (one shard, a mean for each timestep)" if width == 1 else "")
                style = {"ls": "", "marker": ".", "ms": 2, "alpha": 0.6} if width == 1 else {"lw": 1.1, "alpha": 0.85}
                one.plot(places, bank, color=COLOURS[arm], label=label, **style)
        one.set(title=data, xlabel="timestep", ylim=(0, None))
    axes[0][0].set_ylabel("running mean loss")
    finished(figure, axes[0][0], path, columns=2)


def skips(lines: Lines, path: Path) -> None:
    """Above: how often each training image was skipped, most skipped first. Below: the share skipped in each round."""
    figure, axes = panels(lines, rows=2)
    for (upper, lower), data in zip(axes.T, lines, strict=True):
        for arm in CONTROLLED:
            rows = list(lines[data][arm].values())
            style = {"color": COLOURS[arm], "marker": MARKERS[arm], "ms": 3.5, "label": arm}
            ordered = np.mean([np.sort(skip_rates(row))[::-1] for row in rows], axis=0)
            upper.plot(np.arange(1, len(ordered) + 1), 100 * ordered, **style)
            rounds = np.mean([row["skipped_by_round"] for row in rows], axis=0)
            lower.plot(np.arange(1, len(rounds) + 1), 100 * rounds, **style)
        upper.set(title=data, xlabel="training images, most often skipped first", ylim=(0, None))
        lower.set(xlabel="round", ylim=(0, None))
    axes[0][0].set_ylabel("skipped, % of its showings")
    axes[1][0].set_ylabel("skipped, % of the samples seen")
    finished(figure, axes[0][0], path, columns=4)


def skipped_images(lines: Lines, images: Mapping[str, Images], path: Path, count: int = 8) -> None:
    """Training images of the first seed: those most often skipped by control alone, and those least often."""
    figure = Figure(figsize=(10, 1.4 * 2 * len(lines)), dpi=90, layout="constrained")
    for axes, (data, arms) in zip(figure.subplots(2 * len(lines), 1).reshape(-1, 2), lines.items(), strict=True):
        seed = next(iter(arms[DEFAULT]))
        order = np.argsort(-skip_rates(arms["control alone, wide"][seed]), kind="stable")
        for one, places, words in zip(axes, (order[:count], order[-count:]), ("most", "least"), strict=True):
            one.imshow(np.concatenate(images[data][seed][places], axis=1))
            one.set_title(f"{data}: {words} often skipped", fontsize=9, loc="left")
            one.set_axis_off()
    write(figure, path)


def drawn(lines: Lines, content: Mapping[str, Any], images: Mapping[str, Images], folder: Path) -> None:
    curves(lines, content, folder / "memorized.png")
    plane(lines, content, folder / "plane.png")
    banks(lines, folder / "banks.png")
    skips(lines, folder / "skips.png")
    skipped_images(lines, images, folder / "skipped_images.png")
