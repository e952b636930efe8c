"""A mask drawn on its U-Net: down on the left, mid below, up on the right, and a lit cell wherever a group trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from memcontrol.groups import ENDS, stage

BOX, GAP, ARM = 158, 14, 54
"""Width of a stage, the distance between rows, and between the sides of the U, in units of the picture."""
TITLE, ROW, SQUARE = 20, 22, 16
"""Heights of a stage's title, of a cell with a name, and of one without."""
PAD = 7
MOST_NAMED = 6
"""More groups than these in one stage are drawn as squares without names."""
LETTER = 6.9
"""The width of a letter, on the generous side."""
INPUT, OUTPUT, EMBEDDINGS, MID = "input", "output", "embeddings", "mid"


@dataclass(frozen=True)
class Cell:
    """One group in one stage.

    Attributes:
        text: its name without what the stage says already; empty for a square.
        title: its full name, how it is tuned, and its size.
    """

    group: str
    on: bool
    text: str
    title: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Stage:
    """One box of the U; `cells` is empty where the space has no group in it."""

    name: str
    title: str
    x: float
    y: float
    width: float
    height: float
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Drawing:
    """All boxes, and the lines between them: SVG path data of the way of the data, and of the skip connections."""

    width: float
    height: float
    stages: tuple[Stage, ...]
    flow: tuple[str, ...]
    skips: tuple[str, ...]
    text: str


def place_of(parameter: str) -> str:
    """The box that a parameter is drawn in: a stage, `input`, `output` or `embeddings`."""
    found = stage(parameter)
    if found != ENDS:
        return found
    first = parameter.partition(".")[0]
    return {"conv_in": INPUT, "conv_out": OUTPUT, "conv_norm_out": OUTPUT}.get(first, EMBEDDINGS)


def unet_drawing(groups: Sequence[Mapping[str, Any]]) -> Drawing:
    """The picture of a mask.

    The levels are those that any group, on or off, has a parameter in: what a space leaves out is not known here.

    Args:
        groups: of a mask's JSON, each with `name`, `method`, `on`, `parameters` and `numel`.
    """
    held: dict[str, list[Mapping[str, Any]]] = {}
    for group in groups:
        for place in dict.fromkeys(map(place_of, group["parameters"])):
            held.setdefault(place, []).append(group)
    sides = [place.split(".") for place in held if "." in place]
    levels = 1 + max((int(index) for _, index in sides), default=0)
    rows: list[tuple[str | None, str | None, str | None]] = [(INPUT, EMBEDDINGS, OUTPUT)]
    rows += [(f"down.{i}", None, f"up.{levels - 1 - i}") for i in range(levels)] + [(None, MID, None)]
    stages = _stages(rows, held)
    boxes = {one.name: one for one in stages}
    down, up = ([boxes[f"{side}.{i}"] for i in range(levels)] for side in ("down", "up"))
    chain = [boxes[INPUT], *down]
    lit = [group for group in groups if group["on"]]
    return Drawing(
        width=3 * BOX + 2 * ARM + 2,
        height=max(box.y + box.height for box in stages) + 1,
        stages=stages,
        flow=(*_falling(chain), *_turns(down[-1], boxes[MID], up[0]), *_falling([*up, boxes[OUTPUT]])),
        skips=tuple(_skip(left, right) for left, right in zip(down, reversed(up), strict=True)),
        text=f"U-Net: {len(lit)} of {len(groups)} groups train" + (f": {_listed(lit)}" if lit else ""),
    )


def _listed(groups: Sequence[Mapping[str, Any]], most: int = 24) -> str:
    names = ", ".join(str(group["name"]) for group in groups[:most])
    return names + (f" and {len(groups) - most} more" if len(groups) > most else "")


def _stages(
    rows: Sequence[tuple[str | None, str | None, str | None]], held: Mapping[str, Sequence[Mapping[str, Any]]]
) -> tuple[Stage, ...]:
    """The boxes of each row from left to right, all of a row equally high."""
    found, top = list[Stage](), 1.0
    for row in rows:
        height = max(_height(len(held.get(name, ()))) for name in row if name)
        for column, name in enumerate(row):
            if name:
                x = 1 + column * (BOX + ARM)
                found.append(
                    Stage(name, name.replace(".", " "), x, top, BOX, height, _cells(name, held.get(name, ()), x, top))
                )
        top += height + GAP
    return tuple(found)


def _columns() -> int:
    return int((BOX - 2 * PAD + 3) // (SQUARE + 3))


def _height(count: int) -> float:
    if count > MOST_NAMED:
        return TITLE + PAD + -(-count // _columns()) * (SQUARE + 3)
    return TITLE + PAD + max(1, count) * (ROW + 3)


def _cells(place: str, groups: Sequence[Mapping[str, Any]], x: float, y: float) -> tuple[Cell, ...]:
    named, columns = len(groups) <= MOST_NAMED, _columns()
    cells = []
    for i, group in enumerate(groups):
        if named:
            at = (x + PAD, y + TITLE + i * (ROW + 3), BOX - 2 * PAD, ROW)
        else:
            at = (x + PAD + i % columns * (SQUARE + 3), y + TITLE + i // columns * (SQUARE + 3), SQUARE, SQUARE)
        text = _shortened(_own_name(str(group["name"]), place)) if named else ""
        state = "trains" if group["on"] else "frozen"
        title = f"{group['name']}: {state}, {group['method']}, {group['numel']:,} numbers"
        cells.append(Cell(str(group["name"]), bool(group["on"]), text, title, *at))
    return tuple(cells)


def _own_name(name: str, place: str) -> str:
    """A group's name without the stage that its box names."""
    dotted = place.replace("down.", "down_blocks.").replace("up.", "up_blocks.").replace(MID, "mid_block")
    for prefix in (f"{place}.", f"{dotted}.", f"{place.partition('.')[0]}."):
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return "whole stage" if name in (place, dotted) else name


def _shortened(text: str) -> str:
    most = int((BOX - 2 * PAD - 12) / LETTER)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _falling(boxes: Sequence[Stage]) -> list[str]:
    """Arrows from each box to the next, which lies above or below it."""
    lines = []
    for one, other in pairwise(boxes):
        middle = one.x + one.width / 2
        start, end = (one.y + one.height, other.y) if other.y > one.y else (one.y, other.y + other.height)
        lines.append(f"M{middle} {start}V{end}")
    return lines


def _turns(left: Stage, mid: Stage, right: Stage) -> list[str]:
    """Arrows from the last stage down into the middle, and from there into the first stage up."""
    y = mid.y + mid.height / 2
    return [
        f"M{left.x + left.width / 2} {left.y + left.height}V{y}H{mid.x}",
        f"M{mid.x + mid.width} {y}H{right.x + right.width / 2}V{right.y + right.height}",
    ]


def _skip(left: Stage, right: Stage) -> str:
    y = left.y + left.height / 2
    return f"M{left.x + left.width} {y}H{right.x}"
