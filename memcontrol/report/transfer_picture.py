"""A transfer as a picture: each mask among its random twins, beside full fine-tuning's lengths and the references."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from memcontrol.report.comparison_picture import COLOURS, FREEZE_COLOUR, FULL_COLOUR
from memcontrol.report.comparison_table import counts_text
from memcontrol.report.drawing import Floats, annotation, frame, separate, write_figure
from memcontrol.report.transfer_words import directions

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

COLUMNS = 3
CAPTION_WIDTH = 80
"""Letters of the caption for each panel that stands beside another."""
TARGET_COLOUR, WHOLE_COLOUR = "#D55E00", "#009E73"


def transfer_picture(document: Mapping[str, Any], path: Path) -> bool:
    """Write a PNG, a panel for each mask; returns whether there was anything to draw.

    Args:
        document: the content of `transfer.json`.
    """
    from matplotlib.figure import Figure

    names, scored = document["objectives"][:2], {row["name"]: row for row in document["cells"] if row["scores"]}
    masks = [mask for mask in document["masks"] if mask["name"] in scored]
    if len(names) < 2 or not masks:
        return False
    columns = min(COLUMNS, len(masks))
    lines = -(-len(masks) // columns)
    figure = Figure(figsize=(0.8 + 5.6 * columns, 1.0 + 4.8 * lines), dpi=130, layout="constrained")
    panels = np.atleast_1d(figure.subplots(lines, columns, sharex=True, sharey=True)).ravel()
    better, labels = directions(document), []
    for axes, mask in zip(panels, masks, strict=False):
        labels.append(_panel(axes, mask, list(scored.values()), names))
        axes.set_title(mask["name"], fontsize=10, fontweight="bold", color=COLOURS[0])
        axes.set_xlabel(f"{names[0]} ({better[names[0]]} is better)")
        axes.set_ylabel(f"{names[1]} ({better[names[1]]} is better)")
    for axes in panels[len(masks) :]:
        axes.set_visible(False)
    frame(panels[0], np.array([_mean(row, names) for row in scored.values() if row["role"] != "freeze"]))
    said = f"{counts_text(document)}; bars: 95 % intervals over seeds (Student)"
    figure.legend(
        handles=_legend(document), loc="outside lower center", ncols=min(6, 3 * columns), frameon=False, fontsize=8
    )
    figure.suptitle("\n".join(textwrap.wrap(said, CAPTION_WIDTH * columns)), fontsize=7, x=0.01, ha="left")
    for axes, own in zip(panels, labels, strict=False):
        separate(axes, own)
    write_figure(figure, path)
    return True


def _panel(axes: Axes, mask: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[Any]:
    """Draw one mask's panel; returns its labels."""
    full = sorted((row for row in rows if row["role"] == "full"), key=lambda row: row["steps"])
    for rate in dict.fromkeys(row["learning_rate"] for row in full):
        points = np.array([_mean(row, names) for row in full if row["learning_rate"] == rate])
        axes.plot(*points.T, "D-", color=FULL_COLOUR, ms=5, lw=1, zorder=3)
    twins = [_mean(row, names) for row in rows if row["of"] == mask["name"]]
    if twins:
        axes.plot(*np.array(twins).T, "o", color=COLOURS[0], alpha=0.45, ms=4, mew=0, zorder=2)
    marked = {mask["name"]: ("^", COLOURS[0], 11)}
    marked |= {row["name"]: ("s", TARGET_COLOUR, 8) for row in rows if row["role"] == "target"}
    marked |= {row["name"]: ("P", WHOLE_COLOUR, 8) for row in rows if row["name"] == mask["rows"].get("all groups")}
    marked |= {row["name"]: ("*", FREEZE_COLOUR, 12) for row in rows if row["role"] == "freeze"}
    known = {row["name"]: row for row in rows}
    for name, (marker, colour, size) in marked.items():
        _point(axes, known[name], names, marker=marker, colour=colour, size=size)
    labels = [annotation(axes, _steps_text(row, full), _mean(row, names), FULL_COLOUR, size=7) for row in full]
    return labels + [
        annotation(axes, name, _mean(known[name], names), colour, size=8, weight="bold")
        for name, (_, colour, _) in marked.items()
        if known[name]["role"] in ("mask", "target")
    ]


def _steps_text(row: Mapping[str, Any], full: Sequence[Mapping[str, Any]]) -> str:
    """A row of full fine-tuning by its steps; the longest of its rate, at the end of its line, by the rate too."""
    longest = max(other["steps"] for other in full if other["learning_rate"] == row["learning_rate"])
    return f"{row['steps']} steps, rate {row['learning_rate']:g}" if row["steps"] == longest else str(row["steps"])


def _point(axes: Axes, row: Mapping[str, Any], names: Sequence[str], *, marker: str, colour: str, size: int) -> None:
    """A row's mean with both its intervals, where there are any."""
    at = _mean(row, names)
    bars = [
        None if score["high"] is None else [[score["high"] - score["mean"]]] * 2
        for score in (row["scores"][name] for name in names)
    ]
    axes.errorbar(
        at[0], at[1], xerr=bars[0], yerr=bars[1], fmt=marker, color=colour, ms=size, ecolor=f"{colour}88", zorder=4
    )


def _legend(document: Mapping[str, Any]) -> list[Line2D]:
    """What the markers that are there mean."""
    from matplotlib.lines import Line2D

    marks: dict[str, tuple[str, dict[str, Any]]] = {
        "mask": ("mask", {"marker": "^", "color": COLOURS[0], "ms": 9}),
        "random": ("random masks of its size", {"marker": "o", "color": COLOURS[0], "alpha": 0.45, "ms": 4}),
        "full": ("full fine-tuning", {"marker": "D", "color": FULL_COLOUR, "ms": 5}),
        "all groups": ("all groups at its rate", {"marker": "P", "color": WHOLE_COLOUR}),
        "target": ("found on the target", {"marker": "s", "color": TARGET_COLOUR}),
        "freeze": ("untuned model, where in view", {"marker": "*", "color": FREEZE_COLOUR, "ms": 11}),
    }
    there = {row["role"] for row in document["cells"] if row["scores"]}
    return [Line2D([], [], ls="none", label=text, **mark) for role, (text, mark) in marks.items() if role in there]


def _mean(row: Mapping[str, Any], names: Sequence[str]) -> Floats:
    """`(2,)` means over seeds."""
    return np.array([row["scores"][name]["mean"] for name in names], dtype=np.float64)
