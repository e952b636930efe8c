"""Geometry of a page's scatter plots: axes, marks with whiskers, lines, and labels that keep clear of each other."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

WIDTH, HEIGHT = 640, 430
LEFT, RIGHT, TOP, BOTTOM = 58, 18, 38, 50
WIDE = 8.0
"""A positive axis whose largest value is more than so many times its least is drawn in logarithms."""
LINE, LETTER, SMALL = 15, 9.2, 6.6
"""Height of a label, and the width of a letter of it, and of one in small print; all on the generous side."""
OFFSETS = tuple(
    (x * distance, y * distance)
    for distance in (12, 17, 24, 34, 46, 60, 78)
    for x, y in ((-1, -1), (1, 1), (-1, 1), (1, -1), (0, -1.2), (0, 1.2), (1.3, 0), (-1.3, 0))
)
"""Where a label may stand beside its mark; the first place that is free is taken."""
HIDDEN = 1000
"""What lying on another label counts, where lying on a mark or on a piece of a line counts 1."""
FAR = 16
"""A label that stands farther from its mark has a line to it."""
Box = tuple[float, float, float, float]
Point = tuple[float, float]


@dataclass(frozen=True)
class Tick:
    """A place on an axis, and what stands there."""

    at: float
    text: str


def round_numbers(low: float, high: float, most: int) -> list[float]:
    """At most `most` multiples of 1, 2 or 5 times a power of ten between two numbers, ends included."""
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    for step in (power, 2 * power, 5 * power, 10 * power, 20 * power):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first < most:
            return [float(f"{i * step:.12g}") for i in range(first, last + 1)]
    return []


@dataclass(frozen=True)
class Axis:
    """A range of values, and where its two ends lie in the picture."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    @classmethod
    def holding(cls, values: Sequence[float], start: float, end: float, *, may_log: bool = False) -> Axis:
        """An axis with some room around values; without values from 0 to 1."""
        low, high = (min(values), max(values)) if values else (0.0, 1.0)
        if may_log and low > 0 and high / low > WIDE:
            room = (high / low) ** 0.06
            return cls(low / room, high * room, start, end, log=True)
        room = 0.06 * (high - low) or abs(high) * 0.1 or 1.0
        return cls(low - room, high + room, start, end)

    def at(self, value: float) -> float:
        """Where a value lies, to a tenth; a value outside lies outside."""
        low, high, value = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return round(self.start + (self.end - self.start) * (value - low) / (high - low), 1)

    def clipped(self, value: float) -> float:
        """The nearest value within."""
        return min(self.high, max(self.low, value))

    def holds(self, value: float) -> bool:
        """Whether a value lies within."""
        return self.low <= value <= self.high

    def ticks(self, most: int) -> tuple[Tick, ...]:
        """Round numbers, in logarithms 1, 2 and 5 times powers of ten."""
        if not self.log:
            return tuple(Tick(self.at(v), f"{v:g}".replace("-", "−")) for v in round_numbers(self.low, self.high, most))
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        marks = [step * 10.0**power for power in powers for step in (1, 2, 5) if step == 1 or len(powers) < 5]
        return tuple(Tick(self.at(value), f"{value:g}") for value in marks if self.holds(value))


@dataclass(frozen=True)
class Label:
    """Words, and the middle of where they stand; `leader` is SVG path data of a line to a mark that lies away."""

    x: float
    y: float
    text: str
    leader: str = ""


@dataclass(frozen=True)
class Mark:
    """One point of a plot.

    Attributes:
        kind: its class in the style, such as `front` or `trial`.
        path: SVG path data of its shape.
        title: what it is, in words.
        trial: what tells its trial apart, where the page tells more of it.
        whiskers: SVG path data of its intervals; empty without.
        text: its label's words; empty without.
        label: where they stand.
    """

    kind: str
    x: float
    y: float
    path: str
    title: str
    trial: str | None = None
    whiskers: str = ""
    text: str = ""
    label: Label | None = None


@dataclass(frozen=True)
class Line:
    """A line through points of the picture."""

    kind: str
    points: tuple[Point, ...]

    @property
    def path(self) -> str:
        """SVG path data."""
        return "M" + "L".join(f"{x} {y}" for x, y in self.points)


@dataclass(frozen=True)
class Band:
    """A range of the y axis that is shaded, with a line in its middle; places in the picture."""

    top: float
    bottom: float
    middle: float


@dataclass(frozen=True)
class Plot:
    """A whole plot; `notes` say what lies outside of it."""

    x: Axis
    y: Axis
    x_title: str
    y_title: str
    marks: tuple[Mark, ...]
    lines: tuple[Line, ...] = ()
    band: Band | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def x_ticks(self) -> tuple[Tick, ...]:
        """Of the axis below."""
        return self.x.ticks(7)

    @property
    def y_ticks(self) -> tuple[Tick, ...]:
        """Of the axis at the left."""
        return self.y.ticks(6)


def x_axis(values: Sequence[float], *, may_log: bool = False) -> Axis:
    """The axis below."""
    return Axis.holding(values, LEFT, WIDTH - RIGHT, may_log=may_log)


def y_axis(values: Sequence[float], *, may_log: bool = False) -> Axis:
    """The axis at the left."""
    return Axis.holding(values, HEIGHT - BOTTOM, TOP, may_log=may_log)


def shape(name: str, x: float, y: float, size: float) -> str:
    """SVG path data of a dot, diamond, square, triangle, pentagon or star around a point."""
    if name == "dot":
        return f"M{x - size:.1f} {y}a{size} {size} 0 1 0 {2 * size} 0a{size} {size} 0 1 0 {-2 * size} 0Z"
    turns = {"diamond": (4, -90), "square": (4, -45), "triangle": (3, -90), "pentagon": (5, -90), "star": (10, -90)}
    corners, first = turns[name]
    parts = []
    for i in range(corners):
        angle = math.radians(first + 360 * i / corners)
        radius = size * (1.25 if name != "star" else (1.5, 0.62)[i % 2])
        parts.append(f"{x + radius * math.cos(angle):.1f} {y + radius * math.sin(angle):.1f}")
    return f"M{'L'.join(parts)}Z"


def whiskers(x: Axis, y: Axis, at: Point, width: Point | None, height: Point | None) -> str:
    """SVG path data of intervals through a point, cut at the plot's edges.

    Args:
        at: x and y of the point.
        width, height: low and high of x and of y; None without interval.
    """
    parts = []
    if width is not None:
        parts.append(f"M{x.at(x.clipped(width[0]))} {y.at(at[1])}H{x.at(x.clipped(width[1]))}")
    if height is not None:
        parts.append(f"M{x.at(at[0])} {y.at(y.clipped(height[0]))}V{y.at(y.clipped(height[1]))}")
    return "".join(parts)


def with_labels(marks: Iterable[Mark], lines: Iterable[Line]) -> tuple[Mark, ...]:
    """The marks with their texts placed, the last ones first, clear of marks and lines where possible.

    A text that would lie on another one, or outside, is left out: the page names every mark elsewhere too.
    """
    marks = list(marks)
    points = [(mark.x, mark.y) for mark in marks] + [point for line in lines for point in _along(line.points)]
    taken: list[Box] = []
    for place in reversed(range(len(marks))):
        if marks[place].text:
            label = _placed(marks[place], points, taken)
            marks[place] = replace(marks[place], label=label)
    return tuple(marks)


def _along(points: Sequence[Point], every: float = 8.0) -> list[Point]:
    """Points on a line, a little apart."""
    found = []
    for (x, y), (u, v) in pairwise(points):
        count = max(1, int(math.hypot(u - x, v - y) / every))
        found += [(x + (u - x) * i / count, y + (v - y) * i / count) for i in range(count)]
    return found


def _placed(mark: Mark, points: Sequence[Point], taken: list[Box]) -> Label | None:
    half, best = _width(mark) / 2, (math.inf, 0, OFFSETS[0])
    for order, (dx, dy) in enumerate(OFFSETS):
        x = mark.x + dx + (math.copysign(max(0.0, half - 6), dx) if dx else 0)
        box = (x - half, mark.y + dy - LINE / 2, x + half, mark.y + dy + LINE / 2)
        best = min(best, (_covered(box, points, taken), order, (x - mark.x, dy)))
        if best[0] == 0:
            break
    if best[0] >= HIDDEN:
        return None
    x, y = mark.x + best[2][0], mark.y + best[2][1]
    taken.append((x - half, y - LINE / 2, x + half, y + LINE / 2))
    leader = f"M{mark.x} {mark.y}L{x:.1f} {y:.1f}" if math.hypot(best[2][0], best[2][1]) - half > FAR else ""
    return Label(round(x, 1), round(y + 4, 1), mark.text, leader)


def _width(mark: Mark) -> float:
    """A label's width; those of full fine-tuning and of methods are in small print."""
    return (SMALL if mark.kind.startswith("full") else LETTER) * len(mark.text)


def _covered(box: Box, points: Sequence[Point], taken: Sequence[Box]) -> int:
    left, top, right, bottom = box
    outside = left < LEFT or right > WIDTH - RIGHT or top < TOP or bottom > HEIGHT - BOTTOM
    others = sum(left < b[2] and right > b[0] and top < b[3] and bottom > b[1] for b in taken)
    return HIDDEN * (others + outside) + sum(left - 2 < x < right + 2 and top - 2 < y < bottom + 2 for x, y in points)
