"""A monitored training as a picture: each score over the steps, with its interval and its null band."""

from __future__ import annotations

import csv
import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from memcontrol.errors import RunError
from memcontrol.monitoring import TABLE, columns
from memcontrol.report.drawing import WIDE, Floats, write_figure
from memcontrol.report.plots import FRONT, FULL, NULL
from memcontrol.score import direction

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STOP = FULL[1]
WIDTH, HEIGHT = 8.0, 2.9
"""Inches: of the picture, and of each score in it."""
TITLE_WIDTH = 125


def monitor_picture(folder: Path) -> bool:
    """Draw `monitor.png` of the folder's `monitor.csv`; returns whether there was anything to draw.

    Raises:
        RunError: the table is not one of a monitor's.
    """
    from matplotlib.figure import Figure

    names, looks = read_looks(folder / TABLE)
    if not looks:
        return False
    figure = Figure(figsize=(WIDTH, HEIGHT * len(names) + 0.5), dpi=130, layout="constrained")
    panels: list[Axes] = list(figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0])
    for axes, name in zip(panels, names, strict=True):
        _draw(axes, name, looks)
    panels[-1].set_xlabel("optimizer steps")
    figure.align_ylabels(panels)
    reason = looks[-1]["stopped"]
    if reason:
        title = "\n".join(textwrap.wrap(f"stopped: {reason}", TITLE_WIDTH))
        panels[0].set_title(title, fontsize=8, loc="left", color=STOP)
    shown = {label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(list(shown.values()), list(shown), loc="outside lower center", ncols=4, frameon=False)
    write_figure(figure, folder / "monitor.png")
    return True


def read_looks(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Names of the scores, and a row for each look, of a table that a monitor wrote; none where there is none.

    Raises:
        RunError: other columns than a monitor's.
    """
    if not path.is_file():
        return [], []
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        found = list(reader.fieldnames or ())
        names = [name for name in found if f"{name} low" in found]
        if found != columns(names):
            raise RunError(f"{path} is not a table of looks: expected step, scores and stopped as columns, got {found}")
        return names, list(reader)


def _draw(axes: Axes, name: str, looks: Sequence[Mapping[str, str]]) -> None:
    steps = _values(looks, "step")
    low, value, high = (_values(looks, f"{name}{end}") for end in (" low", "", " high"))
    if f"{name} null low" in looks[0]:
        band = _values(looks, f"{name} null low"), _values(looks, f"{name} null high")
        axes.fill_between(
            steps, *band, color=NULL, alpha=0.14, lw=0, label="null band (95 %): as if nothing were copied"
        )
        axes.plot(steps, _values(looks, f"{name} null middle"), color=NULL, lw=0.8, ls="--")
    axes.fill_between(steps, low, high, color=FRONT, alpha=0.18, lw=0, label="95 % interval")
    axes.plot(steps, value, color=FRONT, marker="o", ms=4, lw=1.6, label="measured")
    if looks[-1]["stopped"]:
        axes.axvline(steps[-1], color=STOP, lw=1.2, ls=":", label="stopped")
    if low.min() > 0 and high.max() / low.min() > WIDE:
        axes.set_yscale("log")
    axes.set_ylabel(f"{name}\n({direction(name)} is better)", fontsize=9)
    axes.margins(x=0.02)


def _values(looks: Sequence[Mapping[str, str]], column: str) -> Floats:
    return np.array([float(look[column]) if look[column] else math.nan for look in looks], dtype=np.float64)
