"""A search as one HTML page that holds its own pictures, styles and script, and fetches nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from memcontrol.report.audit_words import meaning
from memcontrol.report.closing import closing_sentences, member_sentence
from memcontrol.report.confirmed import confirmed_members, confirmed_sentences
from memcontrol.report.facts import facts
from memcontrol.report.front_chart import front_keys, front_plots
from memcontrol.report.importance import FEWEST, MOST_GROUPS, Importance, importances
from memcontrol.report.page import page_environment, rendered
from memcontrol.report.pictures import trial_address
from memcontrol.report.run_reading import RunReading, TrialReading, interval_words, read_run
from memcontrol.report.run_words import (
    LIMITS,
    commands,
    facts_of,
    hypervolume_words,
    kind_words,
    not_measured,
    pinned_first,
)
from memcontrol.report.scatter import HEIGHT, WIDTH, Axis, Line, Plot, x_axis, y_axis
from memcontrol.report.unet_drawing import Drawing, unet_drawing
from memcontrol.report.wording import member_name, signed_text
from memcontrol.run import RunFolder

MOST_CARDS = 120
"""Trials that the page draws and shows pictures of; of more, the front's and then the first ones."""
BAR = 132


@dataclass(frozen=True)
class Bar:
    """A score between the ends of its null band, in units of a `BAR` wide picture."""

    band: tuple[float, float]
    low: float
    high: float
    value: float
    text: str


@dataclass(frozen=True)
class ScoreRow:
    """One score of a trial: in the search, beside its null band, and confirmed."""

    name: str
    short: str
    better: str
    value: str
    interval: str
    n: int
    p: str
    bar: Bar | None
    confirmed: str
    objective: bool


@dataclass(frozen=True)
class Card:
    """All that the page tells of one mask."""

    trial: TrialReading
    drawing: Drawing | None
    rows: tuple[ScoreRow, ...]
    picture: str
    sentence: str

    @property
    def n(self) -> int:
        """What all of its scores were measured on; 0 where that differs."""
        counts = {row.n for row in self.rows}
        return counts.pop() if len(counts) == 1 else 0


def run_page(folder: RunFolder, *, images: bool = True) -> str:
    """The whole page: front, masks side by side, what groups matter, every trial, and the commands.

    Names and captions are shown as text whatever they hold, and the page's own policy lets it load nothing from
    elsewhere.

    Args:
        images: whether pictures of generated and training images are put in.
    Raises:
        RunError: the folder holds no `front.json`.
        MemControlError: a picture that cannot be read.
    """
    run = read_run(folder)
    environment = page_environment()
    environment.globals |= {"plot_size": (WIDTH, HEIGHT), "bar_width": BAR}
    cards = [_card(trial, run, images=images) for trial in _shown(run)]
    return rendered(
        environment,
        "report.html",
        _content(run) | {"cards": cards, "images": any(card.picture for card in cards)},
        styles=["report.css"],
        scripts=["sorting.js", "report.js"],
    )


def _content(run: RunReading) -> dict[str, Any]:
    """Everything on the page but the masks' cards, as the template names it."""
    names = run.score_names
    about = facts_of(run)
    return {
        "run": run,
        "name": run.folder.path.resolve().name,
        "data": about["data"] or "unknown data",
        "model": about["model"] or "unknown model",
        "facts": facts({key: value for key, value in about.items() if value is not None}),
        "closing": closing_sentences(dict(run.front), run.folder),
        "confirmed": confirmed_sentences(run.front),
        "confirmed_rows": _confirmed_rows(run),
        "plots": front_plots(run),
        "keys": front_keys(run),
        "pinned": pinned_first([trial.key for trial in run.members]),
        "importance": _importance(run),
        "fewest": FEWEST,
        "most_groups": MOST_GROUPS,
        "volume": _volume(run),
        "volume_words": hypervolume_words(run),
        "names": names,
        "explained": {name: (kind_words(name), meaning(name)) for name in names},
        "not_measured": not_measured(run),
        "limits": LIMITS,
        "commands": commands(run),
        "config": run.folder.config.read_text(encoding="utf-8") if run.folder.config.is_file() else "",
    }


def _shown(run: RunReading) -> list[TrialReading]:
    """The trials that have a card: the front's, then others by their number."""
    others = [trial for trial in run.complete if trial.member is None]
    return [*run.members, *others][: max(MOST_CARDS, len(run.members))]


def _card(trial: TrialReading, run: RunReading, *, images: bool) -> Card:
    path = run.folder.samples(trial.number, trial.at)
    return Card(
        trial,
        unet_drawing(trial.groups) if trial.groups else None,
        tuple(_score_row(trial, name, run) for name in run.score_names if _known(trial, name)),
        trial_address(path) if images and path.is_file() else "",
        "" if trial.member is None else member_sentence(dict(run.front), dict(trial.member), run.folder),
    )


def _known(trial: TrialReading, name: str) -> bool:
    return name in trial.scores or trial.value(name) is not None


def _score_row(trial: TrialReading, name: str, run: RunReading) -> ScoreRow:
    score = trial.scores.get(name)
    again = (trial.confirmed or {}).get("scores", {}).get(name)
    return ScoreRow(
        name=name,
        short=run.short.get(name, name),
        better=run.better.get(name, "lower"),
        value=signed_text(score["value"] if score else trial.value(name) or 0.0),
        interval=interval_words(score) if score else "",
        n=score["n"] if score else 0,
        p=f"{score['p']:.2g}" if score and score.get("p") is not None else "",
        bar=_bar(score) if score and score.get("null") else None,
        confirmed=confirmed_words(again, trial.confirmed) if again else "",
        objective=name in run.objectives,
    )


def confirmed_words(score: Mapping[str, Any], confirmed: Mapping[str, Any] | None) -> str:
    """A confirmed mean with its interval and number of seeds."""
    interval, seeds = interval_words(score), len((confirmed or {}).get("seeds", ()))
    count = f"n = {seeds} seed{'s' if seeds > 1 else ''}"
    return f"{signed_text(score['value'])} ({f'{interval}; ' if interval else ''}{count})"


def _bar(score: Mapping[str, Any]) -> Bar | None:
    """Where a score and its interval lie beside its null band; None where all of that is one number."""
    band = score["null"]
    ends = [float(end) for end in (*band, score["low"], score["high"], score["value"])]
    if max(ends) == min(ends):
        return None
    axis = Axis.holding(ends, 2, BAR - 2)
    x = [axis.at(one) for one in (band[0], band[2], score["low"], score["high"], score["value"])]
    outside = "within" if band[0] <= score["value"] <= band[2] else "outside"
    text = f"{outside} the null band, {signed_text(band[0])} to {signed_text(band[2])}"
    return Bar((x[0], x[1]), x[2], x[3], x[4], text)


def _confirmed_rows(run: RunReading) -> list[dict[str, Any]]:
    """Members, full fine-tuning and random masks that were trained again, with the cells of their table."""
    if not run.front["confirmation"] or not confirmed_members(run.front):
        return []
    names = [score["name"] for score in run.front["confirmation"]["scores"]]
    rows = []
    for member in confirmed_members(run.front):
        rows.append(
            {
                "trial": f"{member['trial']}-at-{member['steps']}" if "of" in member else str(member["trial"]),
                "name": f"trial {member_name(member)}",
                "dominated": member["dominated_after_confirmation"],
                "by": ", ".join(member["dominated_by"]),
                "before": [_before(member, name) for name in names],
                "cells": [confirmed_words(member["confirmed"]["scores"][name], member["confirmed"]) for name in names],
            }
        )
    for row in run.front["confirmation"]["rows"]:
        name = "full fine-tuning" if row["kind"] == "full" else f"random mask, as large as trial {row['trial']}"
        rows.append(
            {
                "trial": None,
                "name": name,
                "dominated": None,
                "by": "",
                "before": [""] * len(names),
                "cells": [confirmed_words(row["scores"][name], row) for name in names],
            }
        )
    return rows


def _before(member: Mapping[str, Any], name: str) -> str:
    return signed_text(member["scores"][name]["value"]) if name in member["scores"] else ""


def _importance(run: RunReading) -> list[tuple[str, list[Importance]]]:
    """Objective -> what each group has to do with it."""
    mask = run.first_mask()
    trials = [trial for trial in run.complete if trial.rate is not None]
    if mask is None or not trials:
        return []
    width = len(trials[0].bits)
    names = [str(group["name"]) for group in mask["groups"]][:width]
    trials = [trial for trial in trials if len(trial.bits) == width]
    if len(names) < width:
        return []
    bits, rates = [trial.bits for trial in trials], [trial.rate or 0.0 for trial in trials]
    found = [
        (
            name,
            importances(
                names,
                bits,
                rates,
                np.array([trial.value(name) or 0.0 for trial in trials], dtype=np.float64),
                better=run.better[name],
                seed=int(run.front["seed"]),
            ),
        )
        for name in run.objectives
    ]
    return [(name, rows) for name, rows in found if rows]


def _volume(run: RunReading) -> Plot | None:
    """Hypervolume over trials, as steps."""
    volumes = run.hypervolumes()
    if len(volumes) < 2 or volumes[-1][1] <= 0:
        return None
    x, y = x_axis([number for number, _ in volumes]), y_axis([0.0, *(volume for _, volume in volumes)])
    points, last = list[tuple[float, float]](), y.at(0.0)
    for number, volume in volumes:
        points += [(x.at(number), last), (x.at(number), y.at(volume))]
        last = y.at(volume)
    return Plot(x, y, "trial", "hypervolume (higher is better)", (), (Line("volume", tuple(points)),))
