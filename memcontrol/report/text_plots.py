"""Plots made of characters, for terminals: a line of blocks, and points between two axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.text import Text

from memcontrol.report.drawing import WIDE
from memcontrol.report.wording import number_text

Floats = NDArray[np.float64]
BLOCKS, ASCII_BLOCKS = "▁▂▃▄▅▆▇█", "_.-=+*#"
AXES, ASCII_AXES = ("│", "└", "─"), ("|", "+", "-")


def sparkline(values: Sequence[float], width: int, *, ascii_only: bool = False) -> str:
    """Values as blocks between their least and their greatest, the last of each column where there are more than fit.

    Args:
        width: columns at most.
        ascii_only: for a terminal that shows no other characters.
    """
    if not values or width < 1:
        return ""
    blocks, columns = ASCII_BLOCKS if ascii_only else BLOCKS, min(width, len(values))
    shown = np.array([values[(i + 1) * len(values) // columns - 1] for i in range(columns)], dtype=np.float64)
    span = float(np.ptp(shown))
    levels = (shown - shown.min()) / span * (len(blocks) - 1) if span > 0 else np.zeros(columns)
    return "".join(blocks[round(float(level))] for level in levels)


@dataclass(frozen=True)
class Layer:
    """Points of one kind; a later layer covers an earlier one.

    Attributes:
        points: `(N, 2)`.
        mark: one character.
        style: of rich.
    """

    name: str
    points: Floats
    mark: str
    style: str = ""


def scatter(
    layers: Sequence[Layer], names: tuple[str, str], *, width: int, height: int, ascii_only: bool = False
) -> Text:
    """Points between two axes, each named with the ends of what it shows, and a line that says what marks mean.

    Args:
        layers: with one finite point at least.
        names: of the axes, across and up.
        width, height: of the whole, in characters; `height` is 6 or more.
        ascii_only: for a terminal that shows no other characters; marks are the caller's.
    """
    upright, corner, level = ASCII_AXES if ascii_only else AXES
    points = np.concatenate([layer.points for layer in layers])
    low, high = points.min(axis=0), points.max(axis=0)
    ends = [number_text(float(one)) for one in (high[1], low[1])]
    margin = max(map(len, ends))
    columns, rows = max(2, width - margin - 2), max(2, height - 4)
    cells = _cells(layers, low, high, columns, rows)
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(f"{names[1]}\n", "dim")
    for row in range(rows):
        end = ends[0] if row == 0 else ends[1] if row == rows - 1 else ""
        text.append(f"{end:>{margin}} ").append(upright, "dim")
        for column in range(columns):
            layer = cells.get((row, column))
            text.append(layer.mark, layer.style) if layer else text.append(" ")
        text.append("\n")
    text.append(" " * (margin + 1)).append(corner + level * columns + "\n", "dim")
    first, last = number_text(float(low[0])), number_text(float(high[0]))
    between = columns - len(first) - len(last)
    name = names[0] if len(names[0]) + 2 <= between else ""
    text.append(" " * (margin + 2)).append(first).append(f"{name:^{max(1, between)}}", "dim").append(f"{last}\n")
    text.append(" " * (margin + 2))
    for layer in layers:
        text.append(layer.mark, layer.style).append(f" {layer.name}  ")
    return text


def _cells(layers: Sequence[Layer], low: Floats, high: Floats, columns: int, rows: int) -> dict[tuple[int, int], Layer]:
    """Row and column -> the last layer that has a point there; across in logarithms where the range is wide."""
    wide = low[0] > 0 and high[0] / low[0] > WIDE
    across, ends = (np.log, np.log([low[0], high[0]])) if wide else (np.asarray, np.array([low[0], high[0]]))
    found: dict[tuple[int, int], Layer] = {}
    for layer in layers:
        for x, y in layer.points:
            column = _place(float(across(x)), float(ends[0]), float(ends[1]), columns)
            found[rows - 1 - _place(float(y), float(low[1]), float(high[1]), rows), column] = layer
    return found


def _place(value: float, low: float, high: float, count: int) -> int:
    """Which of so many places between the ends a value is at."""
    return round((value - low) / (high - low) * (count - 1)) if high > low else count // 2
