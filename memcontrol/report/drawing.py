"""What pictures share: labels beside their points that cover nothing, and axes that hold all points."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from memcontrol.run import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation

Floats = NDArray[np.float64]
WIDE = 8.0
"""A positive axis whose largest value is more than so many times its least is drawn in logarithms."""
OFFSETS = tuple(
    (x * distance, y * distance)
    for distance in (8, 12, 18, 26, 36, 50, 70)
    for x, y in ((-1, -1), (1, 1), (-1, 1), (1, -1), (0, -1.3), (0, 1.3), (1.3, 0), (-1.3, 0))
)
"""Where a label may stand, in points from what it names; the first that is free is taken."""


def write_figure(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG."""
    content = io.BytesIO()
    figure.savefig(content, format="png")
    write_atomically(path, content.getvalue())


def annotation(axes: Axes, text: str, at: Floats, color: str, *, size: int, weight: str = "normal") -> Annotation:
    """A label in points `size`, beside what it names; `separate` finds it a place."""
    return axes.annotate(
        text,
        (float(at[0]), float(at[1])),
        xytext=OFFSETS[0],
        textcoords="offset points",
        ha="center",
        va="center",
        fontsize=size,
        fontweight=weight,
        color=color,
        zorder=5,
    )


def frame(axes: Axes, points: Floats) -> None:
    """Limits that hold `(N, 2)` points, with logarithms where a first objective's range is wide."""
    if not len(points):
        return
    low, high = points[:, 0].min(), points[:, 0].max()
    if low > 0 and high / low > WIDE:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else "")
        axes.set_xlim(low / (high / low) ** 0.06, high * (high / low) ** 0.06)
    else:
        pad = 0.06 * (high - low) or 1.0
        axes.set_xlim(low - pad, high + pad)
    low, high = points[:, 1].min(), points[:, 1].max()
    pad = 0.08 * (high - low) or 1.0
    axes.set_ylim(low - pad, high + pad)


def separate(axes: Axes, labels: Sequence[Annotation]) -> None:
    """Move each label to the first of `OFFSETS` where it covers no other label, no labelled point and no line."""
    figure = axes.get_figure(root=True)
    if figure is None or not labels:
        return
    figure.draw_without_rendering()
    marked = axes.transData.transform([label.xy for label in labels])
    lines = [line.get_transform().transform_path(line.get_path()).interpolated(40).vertices for line in axes.lines]
    points, taken = np.concatenate([marked, *lines]), list[Any]()
    for label in reversed(labels):
        taken.append(_placed(label, axes, points, taken))


def _placed(label: Annotation, axes: Axes, points: Floats, taken: list[Any]) -> Any:
    """Put a label where it covers least of `points` and `taken`; returns its box."""
    within = axes.get_window_extent()
    tried: list[tuple[int, int, Any]] = []
    for offset in OFFSETS:
        label.set_position(offset)
        box = label.get_window_extent()
        outside = sum(not within.contains(*corner) for corner in box.corners())
        covered = 100 * (box.count_overlaps(taken) + outside) + box.count_contains(points)
        tried.append((covered, len(tried), box))
        if covered == 0:
            return box
    _, position, box = min(tried, key=lambda one: one[:2])
    label.set_position(OFFSETS[position])
    return box
