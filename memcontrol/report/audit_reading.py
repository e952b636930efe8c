"""An audit document arranged for people: score rows with their controls, groups and facts, and never a verdict."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from memcontrol.auditing.document import AuditDocument, CaptionFact
from memcontrol.errors import MemControlError
from memcontrol.measures import COPYING_NAMES
from memcontrol.report.audit_words import CONTROL_NOTES, CONTROL_WORDS, Control, kind_of, meaning
from memcontrol.score.value import Score


@dataclass(frozen=True)
class Place:
    """Where a value and its interval lie between the held-out control (0) and planted copies (1), or outside."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Reading:
    """One score with its control.

    Attributes:
        name: `measure@source`.
        flagged: whether it calls the images copied; None where it does not say.
        floor, ceiling: the same measure of held-out images and of planted copies; None where not taken.
        control: how its control came out.
    """

    name: str
    score: Score
    flagged: bool | None
    floor: Score | None
    ceiling: Score | None
    control: Control

    @property
    def meaning(self) -> str:
        """What the measure is."""
        return meaning(self.name)

    @property
    def note(self) -> str:
        """What its control leaves open; empty where the control works."""
        return CONTROL_NOTES[self.control]

    @property
    def control_word(self) -> str:
        """Whether its control works, in a word."""
        return CONTROL_WORDS[self.control]

    @property
    def flag_word(self) -> str:
        """What it says of the images, in brackets where its control fails or is missing."""
        if self.flagged is None:
            return "–"
        word = "flagged" if self.flagged else "not flagged"
        return word if self.believable else f"({word})"

    @property
    def believable(self) -> bool:
        """Whether its control does not forbid to listen to it."""
        return self.control in ("works", "unplanted")

    @property
    def group(self) -> str:
        """The group of the summary it belongs to, a key of `audit_words.GROUP_TITLES`."""
        if self.flagged is None or not self.believable:
            return "untold"
        if self.flagged:
            return "flagged"
        return "unplanted" if self.control == "unplanted" else "quiet"

    @property
    def place(self) -> Place | None:
        """Where the score lies between its floor and its ceiling; None where these are missing or the same."""
        if self.floor is None or self.ceiling is None or self.floor.value == self.ceiling.value:
            return None
        floor, span = self.floor.value, self.ceiling.value - self.floor.value
        ends = sorted(((self.score.low - floor) / span, (self.score.high - floor) / span))
        return Place((self.score.value - floor) / span, ends[0], ends[1])


def readings(document: AuditDocument, kind: str) -> list[Reading]:
    """The scores of one kind (fidelity, memorization or other), in the document's order.

    A user's own measure counts as one of memorization where it flags copies or does not, else as other.


    Raises:
        MemControlError: content that is not a score, or a number that is NaN or infinite.
    """
    found = []
    for name, measured in document.scores.items():
        own = kind_of(name)
        if kind == ("memorization" if own == "other" and measured.flagged is not None else own):
            found.append(_reading(document, name))
    return found


def _reading(document: AuditDocument, name: str) -> Reading:
    measured, control = document.scores[name], document.controls.get(name)
    ceiling = None if control is None or control.ceiling is None else Score.from_json(control.ceiling)
    state: Control = "untested"
    if control is not None:
        state = "works" if control.works else "unplanted" if ceiling is None and not control.flagged_floor else "fails"
    if ceiling is None and state == "works":
        state = "unplanted"
    return Reading(
        name=name,
        score=Score.from_json(measured.score),
        flagged=measured.flagged,
        floor=None if control is None else Score.from_json(control.floor),
        ceiling=ceiling,
        control=state,
    )


def check_finite(document: AuditDocument) -> None:
    """Refuse a document with a number that is NaN or infinite, wherever it stands.

    Raises:
        MemControlError: where such a number is.
    """
    for path, value in _leaves(document.model_dump(by_alias=True), ""):
        if isinstance(value, float) and not math.isfinite(value):
            raise MemControlError(
                f"{path} of the audit is {value}, and a finite number is expected: leave the measure out of the scores "
                "and name it, with the reason, under not_measured"
            )


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, (list, tuple)):
        for i, inner in enumerate(value):
            yield from _leaves(inner, f"{path}[{i}]")
    else:
        yield path, value


def ranked_captions(document: AuditDocument) -> list[CaptionFact]:
    """Captions from the most to the least copied: by copy gap, then by the nearest distance."""
    return sorted(document.captions, key=lambda fact: (-fact.copy_gap, fact.nearest))


def generated_count(rows: Sequence[Reading]) -> int | None:
    """The most generated images that a copying measure among these compared; None where there is none."""
    return max((row.score.n for row in rows if row.name.partition("@")[0] in COPYING_NAMES), default=None)
