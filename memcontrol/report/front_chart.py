"""The front as a page draws it: all trials, the front with its intervals, references, and confirmed scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from memcontrol.report.run_reading import RunReading, TrialReading, interval_words
from memcontrol.report.scatter import (
    Axis,
    Band,
    Line,
    Mark,
    Plot,
    shape,
    whiskers,
    with_labels,
    x_axis,
    y_axis,
)
from memcontrol.report.trajectory import trajectory, untuned
from memcontrol.report.wording import member_name, rate_text, signed_text

Content = Mapping[str, Any]
SHAPES = ("triangle", "square", "pentagon", "diamond", "dot")
"""Of full fine-tuning's trajectories, one for each rate."""
USUAL = (0.025, 0.975)
"""Trials between these quantiles are sure to be in sight, and so are all other points but the untuned model."""


@dataclass(frozen=True)
class Key:
    """A line of the legend: a mark of this kind, and what it is.

    Attributes:
        more: what the labels are; left out where a picture is too small for labels.
        line: whether lines join such marks.
    """

    kind: str
    path: str
    text: str
    more: str = ""
    line: bool = False


def front_plots(run: RunReading) -> list[Plot]:
    """The first objective against each other one; with one alone, the trials' numbers against it."""
    names = run.objectives
    if len(names) == 1:
        return [_alone(run, names[0])]
    return [_pair(run, names[0], other) for other in names[1:]]


def front_keys(run: RunReading) -> list[Key]:
    """The legend of what is there."""
    single = len(run.objectives) == 1
    keys = [Key("front", shape("dot", 17, 7, 5), "front, with its 95 % intervals", "; numbers are trials", line=True)]
    keys += [Key("trial", shape("dot", 17, 7, 4), "other trials")]
    for i, rate in enumerate(() if single else _rates(run.front)):
        text = f"full fine-tuning at rate {rate_text(rate)}"
        keys.append(Key(f"full full-{i % 3}", shape(SHAPES[i % 5], 17, 7, 5), text, ", by steps", line=True))
    if untuned(dict(run.front)) is not None and not single:
        keys.append(Key("untuned", shape("star", 17, 7, 5), "untuned model"))
    if not single:
        keys += _confirmed_keys(run.front)
    return keys


def _confirmed_keys(front: Content) -> list[Key]:
    texts = {
        "front": "confirmed: trained again on fresh seeds",
        "full": "full fine-tuning, trained again",
        "random": "random masks of equal size",
    }
    rows = (front.get("confirmation") or {}).get("rows", [])
    kinds = ["front"] * any(member.get("confirmed") for member in front["front"])
    kinds += [kind for kind in ("full", "random") if any(row["kind"] == kind for row in rows)]
    return [Key(f"again again-{kind}", shape("diamond", 17, 7, 5), texts[kind]) for kind in kinds]


def _rates(front: Content) -> list[float]:
    return sorted({point["learning_rate"] for point in trajectory(dict(front))})


def _pair(run: RunReading, first: str, other: str) -> Plot:
    full, frozen = trajectory(dict(run.front)), untuned(dict(run.front))
    x, y = _axes(run, first, other)
    within = [t for t in run.candidates if x.holds(t.value(first) or 0.0) and y.holds(t.value(other) or 0.0)]
    marks = [_trial(t, x, y, first, other, run) for t in within if t.member is None]
    lines = list[Line]()
    for i, rate in enumerate(_rates(run.front)):
        points = sorted((p for p in full if p["learning_rate"] == rate), key=lambda point: int(point["steps"]))
        own = [_full(point, i, x, y, first, other) for point in points]
        lines.append(Line(f"full full-{i % 3}", tuple((mark.x, mark.y) for mark in own)))
        marks += own
    again, links = _confirmed(run.front, x, y, first, other)
    members = [_member(trial, x, y, first, other, run) for trial in run.members]
    if len(run.objectives) == 2 and len(members) > 1:
        lines.append(Line("front", tuple((mark.x, mark.y) for mark in members)))
    notes = _outside(len(run.candidates) - len(within))
    if frozen is not None:
        mark, note = _untuned(frozen, x, y, first, other)
        marks.append(mark)
        notes += note
    marks = list(with_labels([*marks, *again, *members], lines))
    band = _band([*(m["scores"] for m in run.front["front"]), *(point["scores"] for point in full)], other, y)
    titles = [f"{name} ({run.better.get(name, 'lower')} is better)" for name in (first, other)]
    return Plot(x, y, titles[0], titles[1], tuple(marks), (*lines, *links), band, notes)


def _axes(run: RunReading, first: str, other: str) -> tuple[Axis, Axis]:
    """Axes that hold all points that matter, and most trials."""
    front = run.front
    sure = [*front["front"], *trajectory(dict(front)), *_again(front)]
    axes = []
    for name, axis in ((first, x_axis), (other, y_axis)):
        usual = [value for trial in run.complete if (value := trial.value(name)) is not None]
        values = [float(end) for end in np.quantile(usual, USUAL)] if usual else []
        values += [float(point["scores"][name]["value"]) for point in sure if name in point["scores"]]
        members = [m["scores"][name] for m in front["front"]]
        values += [float(score[end]) for score in members for end in ("low", "high") if score.get(end) is not None]
        axes.append(axis(values, may_log=name == first))
    return axes[0], axes[1]


def _again(front: Content) -> list[Content]:
    """Everything with confirmed scores."""
    confirmed = [member["confirmed"] for member in front["front"] if member.get("confirmed")]
    rows: list[Content] = (front.get("confirmation") or {}).get("rows", [])
    return [*confirmed, *rows]


def _at(scored: Content, first: str, other: str) -> tuple[float, float]:
    return float(scored["scores"][first]["value"]), float(scored["scores"][other]["value"])


def values_words(scores: Content, names: Sequence[str], short: Mapping[str, str]) -> str:
    """Scores in a line, with their intervals where they have some."""
    texts = []
    for name in names:
        if name in scores:
            interval = interval_words(scores[name])
            texts.append(
                f"{short.get(name, name)} {signed_text(scores[name]['value'])}" + (f" ({interval})" if interval else "")
            )
    return ", ".join(texts)


def trial_words(trial: TrialReading, run: RunReading) -> str:
    """A trial in a line, for those who hear it read."""
    plain = {name: {"value": trial.value(name)} for name in run.objectives if trial.value(name) is not None}
    words = values_words(trial.scores or plain, run.objectives, run.short)
    return f"Trial {trial.name}, mask {trial.bits}, rate {trial.rate_words}: {words}"


def _trial(trial: TrialReading, x: Axis, y: Axis, first: str, other: str, run: RunReading) -> Mark:
    at = (x.at(trial.value(first) or 0.0), y.at(trial.value(other) or 0.0))
    return Mark("trial", *at, shape("dot", *at, 4), trial_words(trial, run), trial.key)


def _member(trial: TrialReading, x: Axis, y: Axis, first: str, other: str, run: RunReading) -> Mark:
    scores = trial.scores
    value = _at({"scores": scores}, first, other)
    at = (x.at(value[0]), y.at(value[1]))
    lines = whiskers(x, y, value, _ends(scores[first]), _ends(scores[other]))
    text = trial.name + ("*" if trial.dominated else "")
    return Mark("front", *at, shape("dot", *at, 6), trial_words(trial, run), trial.key, lines, text)


def _ends(score: Content) -> tuple[float, float] | None:
    if score.get("low") is None or score.get("high") is None:
        return None
    return float(score["low"]), float(score["high"])


def _full(point: Content, i: int, x: Axis, y: Axis, first: str, other: str) -> Mark:
    value = _at(point, first, other)
    at = (x.at(value[0]), y.at(value[1]))
    rate = rate_text(point["learning_rate"])
    words = values_words(point["scores"], (first, other), {})
    title = f"Full fine-tuning, {point['steps']:,} steps at rate {rate}: {words}"
    return Mark(f"full full-{i % 3}", *at, shape(SHAPES[i % 5], *at, 5), title, text=str(point["steps"]))


def _untuned(frozen: Content, x: Axis, y: Axis, first: str, other: str) -> tuple[Mark, tuple[str, ...]]:
    """A star where the untuned model lies, or at the edge towards it."""
    value = _at(frozen, first, other)
    within = (x.clipped(value[0]), y.clipped(value[1]))
    at = (x.at(within[0]), y.at(within[1]))
    note = (
        ()
        if within == value
        else (f"The untuned model lies outside: {values_words(frozen['scores'], (first, other), {})}.",)
    )
    title = f"Untuned model: {values_words(frozen['scores'], (first, other), {})}"
    return Mark("untuned", *at, shape("star", *at, 6), title, text="untuned" + (" (outside)" if note else "")), note


def _confirmed(front: Content, x: Axis, y: Axis, first: str, other: str) -> tuple[list[Mark], list[Line]]:
    """Diamonds at confirmed means, and a line to each member's from what the search gave."""
    marks, lines = list[Mark](), list[Line]()
    for member in front["front"]:
        if member.get("confirmed"):
            mark = _diamond(member["confirmed"], "front", f"Trial {member_name(member)} confirmed", x, y, first, other)
            start = _at(member, first, other)
            lines.append(Line("link", ((x.at(start[0]), y.at(start[1])), (mark.x, mark.y))))
            marks.append(mark)
    for row in (front.get("confirmation") or {}).get("rows", []) if marks else []:
        name = "Full fine-tuning" if row["kind"] == "full" else f"Random mask of trial {row['trial']}'s size"
        marks.append(_diamond(row, row["kind"], f"{name}, trained again", x, y, first, other))
    return marks, lines


def _diamond(scored: Content, kind: str, name: str, x: Axis, y: Axis, first: str, other: str) -> Mark:
    value = _at(scored, first, other)
    at = (x.at(value[0]), y.at(value[1]))
    seeds = len(scored["seeds"])
    title = f"{name} (n = {seeds} seed{'s' if seeds > 1 else ''}): {values_words(scored['scores'], (first, other), {})}"
    lines = whiskers(x, y, value, _ends(scored["scores"][first]), _ends(scored["scores"][other]))
    return Mark(f"again again-{kind}", *at, shape("diamond", *at, 5), title, whiskers=lines)


def _band(scored: Sequence[Content], name: str, y: Axis) -> Band | None:
    """The middle of all points' null bands, where the score has one."""
    bands = [scores[name]["null"] for scores in scored if scores.get(name, {}).get("null")]
    if not bands:
        return None
    low, middle, high = (float(one) for one in np.median(np.array(bands, dtype=np.float64), axis=0))
    top, bottom = y.at(y.clipped(high)), y.at(y.clipped(low))
    return Band(min(top, bottom), max(top, bottom), y.at(y.clipped(middle))) if top != bottom else None


def _outside(count: int) -> tuple[str, ...]:
    return () if not count else (f"{count} trial{' lies' if count == 1 else 's lie'} outside the picture.",)


def _alone(run: RunReading, name: str) -> Plot:
    """The one objective against the trials' numbers, with full fine-tuning's best and the untuned model as lines."""
    done = [(trial, value) for trial in run.candidates if (value := trial.value(name)) is not None]
    references = [float(point["scores"][name]["value"]) for point in trajectory(dict(run.front))]
    best = (min if run.better[name] == "lower" else max)(references, default=None)
    frozen = untuned(dict(run.front))
    levels = {"full": best, "untuned": None if frozen is None else float(frozen["scores"][name]["value"])}
    known = {kind: value for kind, value in levels.items() if value is not None}
    x = x_axis([trial.number for trial, _ in done])
    y = y_axis([value for _, value in done] + list(known.values()), may_log=True)
    marks = []
    for trial, value in done:
        kind, at = ("trial" if trial.member is None else "front"), (x.at(trial.number), y.at(value))
        text = "" if trial.member is None else str(trial.number)
        lines = "" if trial.member is None else whiskers(x, y, (trial.number, value), None, _ends(trial.scores[name]))
        marks.append(Mark(kind, *at, shape("dot", *at, 5), trial_words(trial, run), trial.key, lines, text))
    lines_at = [Line(f"level {kind}", ((x.start, y.at(value)), (x.end, y.at(value)))) for kind, value in known.items()]
    words = {"full": "full fine-tuning's best", "untuned": "the untuned model"}
    notes = tuple(f"Line: {words[kind]}, {signed_text(value)}." for kind, value in known.items())
    return Plot(
        x,
        y,
        "trial",
        f"{name} ({run.better[name]} is better)",
        with_labels(marks, lines_at),
        tuple(lines_at),
        None,
        notes,
    )
