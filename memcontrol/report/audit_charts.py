"""Geometry of an audit page's pictures: histograms of distances, and values between floor and ceiling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from memcontrol.auditing.document import Histogram
from memcontrol.errors import MemControlError
from memcontrol.report.audit_reading import Place
from memcontrol.report.audit_words import SET_NAMES, SHORT_NAMES
from memcontrol.report.scatter import Tick, round_numbers

WIDTH, HEIGHT = 560, 280
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 12, 46
HEADROOM = 1.25
LINE, LETTER = 17, 7.4
"""Height of a line of the chart's labels, and the width of a letter, both on the generous side."""

Box = tuple[float, float, float, float]
"""Left, top, right and bottom of a label."""

BAR = 132
"""Width of the bar that shows a value between floor and ceiling."""
MARGIN, OUTSIDE = 8, 0.25
"""Its margin, and how far the scale goes on beyond floor and ceiling, in units of their difference."""


@dataclass(frozen=True)
class Bar:
    """Where the parts of a bar lie, from left to right in units of the picture.

    Attributes:
        clipped: -1 or 1 where the value lies beyond the left or the right end, else 0.
        text: the same in words.
    """

    floor: float
    ceiling: float
    value: float
    low: float
    high: float
    clipped: int
    text: str
    width: int = BAR


def bar(place: Place) -> Bar:
    """A bar with held-out images at the left and planted copies at the right, whichever direction is better."""

    def x(position: float) -> float:
        within = min(1 + OUTSIDE, max(-OUTSIDE, position))
        return round(MARGIN + (BAR - 2 * MARGIN) * (within + OUTSIDE) / (1 + 2 * OUTSIDE), 1)

    percent = round(100 * place.value)
    clipped = (place.value > 1 + OUTSIDE) - (place.value < -OUTSIDE)
    text = f"{'−' if percent < 0 else ''}{abs(percent)} % of the way from held-out images to planted copies"
    return Bar(x(0), x(1), x(place.value), x(place.low), x(place.high), clipped, text)


@dataclass(frozen=True)
class Label:
    """A direct label: where it is anchored, how (`start`, `middle` or `end`), and its words."""

    x: float
    y: float
    anchor: str
    text: str


@dataclass(frozen=True)
class Curve:
    """One set's shares as a line of steps.

    Attributes:
        key: of `audit_words.SET_NAMES`.
        path: SVG path data of the steps, open at both ends of the axis.
        area: the same closed along the axis.
        label: None where the curves coincide, or there is no room.
    """

    key: str
    name: str
    path: str
    area: str
    label: Label | None


@dataclass(frozen=True)
class Chart:
    """A histogram's curves and axes in units of a `WIDTH` by `HEIGHT` picture."""

    curves: tuple[Curve, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]


def chart(histogram: Histogram) -> Chart:
    """The three curves of a histogram, over the bins that hold anything and one more at either side.

    Raises:
        MemControlError: shares that do not fit the edges, edges that do not ascend, or no share above zero.
    """
    sets = _checked(histogram)
    occupied = [i for i in range(len(histogram.edges) - 1) if any(shares[i] > 0 for shares in sets.values())]
    first, last = max(0, occupied[0] - 1), min(len(histogram.edges) - 2, occupied[-1] + 1)
    edges = histogram.edges[first : last + 2]
    cut = {key: shares[first : last + 1] for key, shares in sets.items()}
    most = HEADROOM * max(max(shares) for shares in cut.values())

    def x(distance: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * (distance - edges[0]) / (edges[-1] - edges[0]), 1)

    def y(share: float) -> float:
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share / most, 1)

    x_edges = [x(edge) for edge in edges]
    heights = {key: [y(share) for share in shares] for key, shares in cut.items()}
    return Chart(
        curves=_curves(x_edges, heights),
        x_ticks=tuple(Tick(x(at), f"{at:g}") for at in round_numbers(edges[0], edges[-1], 6)),
        y_ticks=tuple(Tick(y(at), f"{100 * at:g} %") for at in round_numbers(0.0, most, 4)),
    )


def _checked(histogram: Histogram) -> dict[str, list[float]]:
    sets = {key: list(getattr(histogram, key)) for key in SET_NAMES}
    bins = len(histogram.edges) - 1
    counts = {key: len(shares) for key, shares in sets.items()}
    told = f"the histogram of distances under {histogram.encoder}"
    if bins < 1 or any(count != bins for count in counts.values()):
        raise MemControlError(f"{told} has {bins + 1} edges and shares {counts}; expected one share fewer than edges")
    if any(high <= low for low, high in zip(histogram.edges, histogram.edges[1:], strict=False)):
        raise MemControlError(f"{told} has edges that do not ascend: sort the edges, and leave none out or in twice")
    if not any(share > 0 for shares in sets.values() for share in shares):
        raise MemControlError(f"{told} holds nothing: leave it out, and name it under not_measured")
    return sets


def _curves(edges: Sequence[float], heights: dict[str, list[float]]) -> tuple[Curve, ...]:
    """Curves with direct labels, in the order of `SET_NAMES`."""
    base, taken, curves = HEIGHT - BOTTOM, list[Box](), []
    for key, own in heights.items():
        steps = "".join(f"V{height}H{right}" for height, right in zip(own, edges[1:], strict=True))
        path = f"M{edges[0]} {base}{steps}V{base}"
        label = _label(SHORT_NAMES[key], key, edges, heights, taken)
        curves.append(Curve(key, SET_NAMES[key], path, f"{path}Z", label))
    return tuple(curves)


def _label(
    text: str, key: str, edges: Sequence[float], heights: dict[str, list[float]], taken: list[Box]
) -> Label | None:
    """A label above a bin where the curve stands out, clear of all curves and of the labels in `taken`, or none."""
    own, width = heights[key], LETTER * len(text)
    others = [shares for other, shares in heights.items() if other != key]
    ahead = [min(other[i] for other in others) - own[i] for i in range(len(own))]
    for i in sorted(range(len(own)), key=lambda i: -ahead[i]):
        if ahead[i] < LINE / 2:
            break
        at, line = (edges[i] + edges[i + 1]) / 2, own[i] - 6
        for anchor, left in (("middle", at - width / 2), ("start", at - 6), ("end", at + 6 - width)):
            box = (left, line - LINE, left + width, line)
            if _clear(box, edges, heights, taken):
                taken.append(box)
                return Label(round({"middle": at, "start": at - 6, "end": at + 6}[anchor], 1), line, anchor, text)
    return None


def _clear(box: Box, edges: Sequence[float], heights: dict[str, list[float]], taken: Sequence[Box]) -> bool:
    """Whether a box lies within the plot, above every curve and beside every other label."""
    left, top, right, bottom = box
    if left < LEFT or right > WIDTH - RIGHT or top < 0:
        return False
    under = [i for i in range(len(edges) - 1) if edges[i + 1] > left and edges[i] < right]
    if any(shares[i] < bottom for shares in heights.values() for i in under):
        return False
    return all(right < one[0] or left > one[2] or bottom < one[1] or top > one[3] for one in taken)
