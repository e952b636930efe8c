"""One look at a model in training: its scores, what they say about copying, and its line in a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from memcontrol.measures import COPYING_NAMES
from memcontrol.monitoring.config import MonitorConfig
from memcontrol.score import Score

NULL = ("null low", "null middle", "null high", "p")
"""Endings of the columns of a copying score's null band, and of its p-value."""


@dataclass(frozen=True)
class Look:
    """What one look found.

    Attributes:
        step: optimizer steps done.
        scores: in the order of the monitor's measures.
        clear: whether no rule for stopping applies here; True where none was asked for.
        stop: whether training should end, since a rule has applied at as many looks in a row as patience asks.
        reason: why, in a sentence; None where `stop` is False.
    """

    step: int
    scores: dict[str, Score]
    clear: bool = True
    stop: bool = False
    reason: str | None = None

    def row(self) -> dict[str, object]:
        """This look by the names of `columns`."""
        row: dict[str, object] = {"step": self.step, "stopped": self.reason or ""}
        for name, score in self.scores.items():
            row |= {name: score.value, f"{name} low": score.low, f"{name} high": score.high}
            if score.null is not None:
                row |= {f"{name} {end}": value for end, value in zip(NULL, (*score.null, score.p), strict=True)}
        return row

    def to_json(self) -> dict[str, Any]:
        """JSON-ready content that `from_json` reads back."""
        scores = {name: score.to_json() for name, score in self.scores.items()}
        return {"step": self.step, "scores": scores, "clear": self.clear, "stop": self.stop, "reason": self.reason}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Look:
        """A look from what `to_json` gave."""
        return cls(**{**content, "scores": {name: Score.from_json(one) for name, one in content["scores"].items()}})


def columns(names: Sequence[str]) -> list[str]:
    """Columns of the table of looks with these scores; copying scores have their null band too."""
    listed = ["step"]
    for name in names:
        copying = name.partition("@")[0] in COPYING_NAMES
        listed += [name, *(f"{name} {end}" for end in ("low", "high", *(NULL if copying else ())))]
    return [*listed, "stopped"]


def judged(step: int, scores: dict[str, Score], before: Sequence[Look], config: MonitorConfig) -> Look:
    """The look with these scores, after those `before` it, under the rules of `config`."""
    said = _applying(scores, config)
    if said is None:
        return Look(step, scores)
    raised = [step]
    for look in reversed(before):
        if look.clear:
            break
        raised.insert(0, look.step)
    if len(raised) < config.patience:
        return Look(step, scores, clear=False)
    row = f", at {len(raised)} looks in a row (steps {raised[0]} to {step})" if len(raised) > 1 else f" (step {step})"
    return Look(step, scores, clear=False, stop=True, reason=said + row)


def _applying(scores: Mapping[str, Score], config: MonitorConfig) -> str | None:
    """What a rule for stopping that applies says; None where none does."""
    if not config.stops or config.copy_gap is None:
        return None
    score = scores[config.copy_gap]
    found = f"{config.copy_gap} is {score.value:.3g} ({score.low:.3g} to {score.high:.3g})"
    if config.stop_copy_gap is not None and score.low > config.stop_copy_gap:
        return f"{found}, all of it above {config.stop_copy_gap:g}"
    if config.stop_above_null and score.null is not None and score.raw is not None and score.raw > score.null[2]:
        return f"{found}, above its null band ({score.null[0]:.3g} to {score.null[2]:.3g})"
    return None
