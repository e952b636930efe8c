"""Confirmed scores in a table beside the search's, and in words how they differ and who dominates whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from memcontrol.comparison.intervals import Mean, paired_difference
from memcontrol.measures import FIDELITY, MEASURES
from memcontrol.report.wording import member_name, number_text, short_names
from memcontrol.study.confirmed import FULL

Content = Mapping[str, Any]
UNCONFIRMED = (
    "The front is unconfirmed: the best of many noisy scores are better than what training again gives; "
    "memcontrol confirm RUN trains it again."
)


def confirmed_members(front: Content) -> list[Content]:
    """The members of the front that have confirmed scores."""
    return [member for member in front["front"] if member["confirmed"]]


def confirmed_table(front: Content, *, ascii_only: bool = False) -> Table:
    """Confirmed members, full fine-tuning and random masks: the search's value, the confirmed mean, its interval.

    Args:
        front: the content of `front.json`, with at least one confirmed member.
        ascii_only: whether the terminal shows nothing else.
    """
    confirmation, arrow = front["confirmation"], "->" if ascii_only else "→"
    table = Table(title="Confirmed", caption=_caption(front, arrow), box=SIMPLE_HEAD)
    table.add_column("what", overflow="fold")
    for score in confirmation["scores"]:
        table.add_column(score["name"].replace("@", "@\n"), justify="right", overflow="fold")
    for member in confirmed_members(front):
        mark = "*" if member["dominated_after_confirmation"] else ""
        cells = [_cell(member["confirmed"], score["name"], arrow, member) for score in confirmation["scores"]]
        table.add_row(f"trial {member_name(member)}{mark}", *cells)
    table.add_section()
    for row in confirmation["rows"]:
        searched = _full_point(front, row) if row["kind"] == FULL else None
        cells = [_cell(row, score["name"], arrow, searched) for score in confirmation["scores"]]
        table.add_row("full" if row["kind"] == FULL else f"random,\nas trial {row['trial']}", *cells)
    return table


def _full_point(front: Content, row: Content) -> Content | None:
    points = (point for points in front["references"].values() for point in points)
    same = ("learning_rate", "steps")
    return next((point for point in points if all(point[key] == row[key] for key in same)), None)


def _cell(confirmed: Content, name: str, arrow: str, searched: Content | None) -> str:
    score = confirmed["scores"][name]
    before = searched["scores"].get(name) if searched is not None else None
    value = number_text(score["value"])
    first = value if before is None else f"{number_text(before['value'])} {arrow} {value}"
    interval = "" if score["low"] is None else f"\n{number_text(score['low'])} to {number_text(score['high'])}"
    return first + interval


def _caption(front: Content, arrow: str) -> str:
    confirmation = front["confirmation"]
    parts = [
        f"search {arrow} mean over n = {_seeds(front)}, on {_held_out(confirmation)}",
        "second lines: 95 % intervals (Student)",
    ]
    if any(member["dominated_after_confirmation"] for member in front["front"]):
        parts.append("*: dominated here")
    return "; ".join(parts)


def _seeds(front: Content) -> str:
    counts = sorted({len(member["confirmed"]["seeds"]) for member in confirmed_members(front)})
    number = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"{number} fresh seed{'' if counts == [1] else 's'}"


def _held_out(confirmation: Content) -> str:
    if confirmation["held_out"]["set"] == "search":
        return "the search's own held-out images, as the third set has too few"
    return "held-out images that the search did not use"


def confirmed_sentences(front: Content) -> list[str]:
    """How confirmed scores differ from the search's, what dominates a mask, and what random masks of its size give."""
    members = confirmed_members(front)
    if not members:
        return [UNCONFIRMED] if any(member["learning_rate"] for member in front["front"]) else []
    sentences = [_shift(front, members), *_dominated(front, members), *_against_random(front)]
    left = sum(member["learning_rate"] is not None for member in front["front"]) - len(members)
    if left:
        sentences.append(f"{left} {'masks' if left > 1 else 'mask'} on the front {_are(left)} unconfirmed.")
    return sentences


def _are(count: int) -> str:
    return "are" if count > 1 else "is"


def _shift(front: Content, members: Sequence[Content]) -> str:
    names = [objective["name"] for objective in front["objectives"]]
    short = short_names(names)
    parts = [f"{short[name]} {_change(members, name)}" for name in names]
    count = f"{len(members)} mask{'s' if len(members) > 1 else ''}"
    return (
        f"Trained again with {_seeds(front)} and scored on {_held_out(front['confirmation'])}, {count} "
        f"{'have' if len(members) > 1 else 'has'} {' and '.join(parts)}, on average, than in the search."
    )


def _change(members: Sequence[Content], name: str) -> str:
    """How much higher or lower confirmed values are: in percent for fidelity, which has a zero that means something."""
    search = float(np.mean([member["scores"][name]["value"] for member in members]))
    again = float(np.mean([member["confirmed"]["scores"][name]["value"] for member in members]))
    word = "higher" if again >= search else "lower"
    measure = MEASURES.get(name.partition("@")[0])
    if measure is not None and measure.family in FIDELITY and search > 0:
        return f"{100 * abs(again / search - 1):.0f} % {word}"
    return f"{number_text(abs(again - search))} {word}"


def _dominated(front: Content, members: Sequence[Content]) -> list[str]:
    names = {_row_name(member): f"trial {member_name(member)}" for member in members}
    found = []
    for member in members:
        own = {row["name"]: _spoken(row, member["trial"]) for row in front["confirmation"]["rows"]} | names
        if member["dominated_after_confirmation"]:
            by = [own[name] for name in member["dominated_by"]]
            text = by[0] if len(by) == 1 else f"{', '.join(by[:-1])} and {by[-1]}"
            found.append(f"Trial {member_name(member)} is dominated by {text} after confirmation; it stays listed.")
    return found


def _row_name(member: Content) -> str:
    """The name of the row in which a member was trained again."""
    at = f"-at-{member['steps']}" if "of" in member else ""
    return f"trial-{member['trial']:03d}{at}"


def _spoken(row: Content, trial: int) -> str:
    if row["kind"] == FULL:
        return "full fine-tuning"
    whose = "its" if row["trial"] == trial else f"trial {row['trial']}'s"
    return f"a random mask of {whose} size"


def _against_random(front: Content) -> list[str]:
    members = {_row_name(member): member for member in confirmed_members(front)}
    names = [objective["name"] for objective in front["objectives"]]
    short, found = short_names(names), []
    for row in front["confirmation"]["rows"]:
        member = members.get(row["name"].removesuffix("-random"))
        if row["kind"] == FULL or member is None:
            continue
        confirmed = member["confirmed"]
        differences = {name: paired_difference(_by_seed(confirmed, name), _by_seed(row, name)) for name in names}
        parts = [f"{short[name]} {_difference(mean)}" for name, mean in differences.items() if mean is not None]
        if parts:
            found.append(f"Against a random mask of its size, trial {member_name(member)} has {', '.join(parts)}.")
    return found


def _by_seed(confirmed: Content, name: str) -> dict[int, float]:
    return dict(zip(confirmed["seeds"], confirmed["scores"][name]["values"], strict=True))


def _difference(mean: Mean) -> str:
    amount = f"{number_text(abs(mean.value))} {'higher' if mean.value > 0 else 'lower'}"
    if mean.low is None or mean.high is None:
        return f"{amount} (one seed)"
    noise = ", within noise" if mean.low <= 0 <= mean.high else ""
    return f"{amount} ({number_text(mean.low)} to {number_text(mean.high)}{noise})"
