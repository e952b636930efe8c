"""A comparison as a picture: fidelity against copying, a point for each row with the intervals over seeds."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from memcontrol.comparison.methods import FREEZE, METHODS
from memcontrol.exporting import fidelity_then_copying
from memcontrol.report.comparison_table import counts_text
from memcontrol.report.drawing import Floats, annotation, frame, separate, write_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D
    from matplotlib.text import Annotation

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#A6761D", "#56B4E9", "#7570B3")
"""Colours that colour-blind readers tell apart (Okabe and Ito), and some more; every point has its name too."""
FULL_COLOUR, FREEZE_COLOUR = "#000000", "#6e6e6e"
CAPTION_WIDTH = 120


def drawn_scores(document: Mapping[str, Any]) -> tuple[str, str] | None:
    """The scores of the two axes: the first of fidelity and the first of memorization; None where there are not two."""
    names = [name for name in document["columns"] if ":" not in name]
    ordered = fidelity_then_copying(names)
    return (ordered[0], ordered[1]) if len(ordered) > 1 else None


def comparison_picture(document: Mapping[str, Any], path: Path) -> bool:
    """Write a PNG; returns whether there was anything to draw.

    Args:
        document: the content of `comparison.json`.
    """
    from matplotlib.figure import Figure

    names, rows = drawn_scores(document), [row for row in document["cells"] if row["scores"]]
    if names is None or not rows:
        return False
    figure = Figure(figsize=(9.6, 7.2), dpi=130, layout="constrained")
    axes = figure.subplots()
    labels = _draw_rows(axes, rows, names, document["reference"])
    better = {score["name"]: score["better"] for score in document["scores"]}
    axes.set_xlabel(f"{names[0]} ({better[names[0]]} is better)")
    axes.set_ylabel(f"{names[1]} ({better[names[1]]} is better)")
    caption = f"{counts_text(document)}; bars: 95 % intervals over seeds (Student)"
    axes.set_title("\n".join(textwrap.wrap(caption, CAPTION_WIDTH)), fontsize=7, loc="left")
    figure.legend(handles=_legend(rows, document["reference"]), loc="outside lower center", ncols=4, frameon=False)
    separate(axes, labels)
    write_figure(figure, path)
    return True


def _draw_rows(
    axes: Axes, rows: Sequence[Mapping[str, Any]], names: tuple[str, str], reference: str
) -> list[Annotation]:
    colours = _colours(rows)
    ends = np.concatenate([_ends(row, names) for row in rows])
    labels = []
    for row in rows:
        colour, (low, at, high) = colours[row["method"]], _ends(row, names)
        axes.errorbar(
            at[0],
            at[1],
            xerr=[[at[0] - low[0]], [high[0] - at[0]]],
            yerr=[[at[1] - low[1]], [high[1] - at[1]]],
            color=colour,
            ecolor=f"{colour}66",
            elinewidth=0.9,
            zorder=3,
            **_marked(row, reference),
        )
        bold = row["name"] in (reference, FREEZE)
        labels.append(annotation(axes, row["name"], at, colour, size=8, weight="bold" if bold else "normal"))
    frame(axes, ends)
    return labels


def _marked(row: Mapping[str, Any], reference: str) -> dict[str, Any]:
    """Marker of a row: the untuned model and plain full fine-tuning stand out, and masks differ from methods."""
    if row["name"] == FREEZE:
        return {"fmt": "*", "ms": 13}
    if row["name"] == reference:
        return {"fmt": "D", "ms": 9}
    return {"fmt": "^" if row["is_mask"] else "o", "ms": 6, "mfc": None if row["mitigation"] == "none" else "white"}


def _legend(rows: Sequence[Mapping[str, Any]], reference: str) -> list[Line2D]:
    """What the markers that are there mean."""
    from matplotlib.lines import Line2D

    names = {row["name"] for row in rows}
    grey: dict[str, Any] = {"color": FREEZE_COLOUR, "ls": "none"}
    marks: dict[str, tuple[bool, dict[str, Any]]] = {
        "untuned model": (FREEZE in names, {"marker": "*", "ms": 13}),
        f"plain {reference} fine-tuning": (reference in names, {"marker": "D", "ms": 9, "color": FULL_COLOUR}),
        "mask": (any(row["is_mask"] for row in rows), {"marker": "^"}),
        "hollow: with mitigations": (any(row["mitigation"] != "none" for row in rows), {"marker": "o", "mfc": "white"}),
    }
    return [Line2D([], [], label=text, **(grey | mark)) for text, (there, mark) in marks.items() if there]


def _colours(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """A colour for each method and mask; of many, some share one."""
    own = {"full": FULL_COLOUR, FREEZE: FREEZE_COLOUR}
    others = [name for name in dict.fromkeys(row["method"] for row in rows) if name not in own]
    others.sort(key=lambda name: name not in METHODS)
    return own | {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(others)}


def _ends(row: Mapping[str, Any], names: tuple[str, str]) -> Floats:
    """`(3, 2)`: low, mean and high of both scores; the mean thrice where there is no interval."""
    scores = [row["scores"][name] for name in names]
    parts = [[score["mean"] if score[part] is None else score[part] for score in scores] for part in ("low", "high")]
    return np.array([parts[0], [score["mean"] for score in scores], parts[1]], dtype=np.float64)
