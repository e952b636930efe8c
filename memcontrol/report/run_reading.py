"""A search's folder arranged for its page: every trial with its scores, its groups, its size and its picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from memcontrol.errors import RunError
from memcontrol.plain_files import read_yaml
from memcontrol.report import read_trials
from memcontrol.report.inspection import percent_text
from memcontrol.report.trajectory import Floats
from memcontrol.report.wording import mask_blocks, member_name, rate_text, short_names, signed_text
from memcontrol.run import RunFolder, read_object
from memcontrol.study.front import hypervolume

Content = Mapping[str, Any]
COMPLETE = "complete"


def interval_words(score: Content) -> str:
    """Both ends of a score's 95 % interval; empty where there is none, as of a single seed."""
    if score.get("low") is None or score.get("high") is None:
        return ""
    return f"{signed_text(score['low'])} to {signed_text(score['high'])}"


@dataclass(frozen=True)
class TrialReading:
    """One trial at its end, or at a checkpoint that is on the front.

    Attributes:
        row: its line of `trials.csv`.
        mask: the content of its mask file; None where there is none.
        member: its entry of the front; None where it is not on it.
        at: steps of the checkpoint; None for the end.
    """

    row: Mapping[str, str]
    mask: Content | None
    member: Content | None
    at: int | None = None

    @property
    def number(self) -> int:
        """The trial's number."""
        return int(self.row["number"])

    @property
    def key(self) -> str:
        """What tells it apart from all others on the page."""
        return str(self.number) if self.at is None else f"{self.number}-at-{self.at}"

    @property
    def name(self) -> str:
        """The trial's number, with its steps where it is a checkpoint."""
        return str(self.number) if self.member is None else member_name(self.member)

    @property
    def complete(self) -> bool:
        """Whether it was scored."""
        return self.row["state"] == COMPLETE

    @property
    def value_known(self) -> bool:
        """Whether it has scores of its own: it completed, or is a checkpoint."""
        return self.complete or self.at is not None

    @property
    def bits(self) -> str:
        """The levels of its groups as digits."""
        return self.row["mask"]

    @property
    def blocks(self) -> str:
        """The same as blocks."""
        return mask_blocks(self.bits)

    @property
    def rate(self) -> float | None:
        """Its learning rate; None where nothing trains."""
        return float(self.row["learning_rate"]) if self.row.get("learning_rate") else None

    @property
    def rate_words(self) -> str:
        """The same as text."""
        return rate_text(self.rate)

    def value(self, name: str) -> float | None:
        """A score's value; None where the trial has none."""
        if self.at is not None:
            return float(self.scores[name]["value"]) if name in self.scores else None
        return float(self.row[name]) if self.row.get(name) else None

    @property
    def scores(self) -> dict[str, Content]:
        """Its scores with intervals, from its mask file or the front; without intervals where both are missing."""
        if self.member is not None:
            return dict(self.member["scores"])
        return dict(self.mask["scores"]) if self.mask is not None and self.mask.get("scores") else {}

    @property
    def confirmed(self) -> Content | None:
        """Its scores over fresh seeds; None where it was not trained again."""
        return None if self.member is None else self.member.get("confirmed")

    @property
    def dominated(self) -> bool:
        """Whether something dominates it after confirmation."""
        return self.member is not None and bool(self.member.get("dominated_after_confirmation"))

    @property
    def groups(self) -> Sequence[Content]:
        """The groups of its mask, on and off; none where the mask file is missing."""
        return () if self.mask is None else self.mask.get("groups", ())

    @property
    def size_words(self) -> str:
        """How much of the U-Net it trains; empty where the mask file is missing."""
        if self.mask is None or "trainable" not in self.mask:
            return ""
        trainable = self.mask["trainable"]
        return f"{trainable['numel']:,} numbers ({percent_text(trainable['percent'])} %)"

    @property
    def percent(self) -> float | None:
        """Percentage of the U-Net that it trains; None where the mask file is missing."""
        return None if self.mask is None or "trainable" not in self.mask else float(self.mask["trainable"]["percent"])


@dataclass(frozen=True)
class RunReading:
    """A search.

    Attributes:
        front: the content of `front.json`.
        trials: in order of their numbers, whatever became of them.
        members: the front's, in its order.
        settings: the content of `config.yaml`; empty where it is missing.
    """

    folder: RunFolder
    front: Content
    trials: Sequence[TrialReading]
    members: Sequence[TrialReading]
    settings: Content

    @property
    def objectives(self) -> list[str]:
        """Names of the objectives."""
        return [objective["name"] for objective in self.front["objectives"]]

    @cached_property
    def better(self) -> dict[str, str]:
        """Score -> `lower` or `higher`, of all that have intervals."""
        known = {objective["name"]: objective["better"] for objective in self.front["objectives"]}
        scored = [*(point["scores"] for points in self.front["references"].values() for point in points)]
        scored += [trial.scores for trial in self.trials]
        return known | {name: score["better"] for scores in scored for name, score in scores.items()}

    @property
    def score_names(self) -> list[str]:
        """All scores of `trials.csv`: the objectives, then those that were only reported."""
        first = dict(self.trials[0].row) if self.trials else {}
        return [name for name in first if "@" in name or ":" in name] or self.objectives

    @property
    def short(self) -> dict[str, str]:
        """Score -> a short name, where no other score has it."""
        return short_names(self.score_names)

    @property
    def complete(self) -> list[TrialReading]:
        """The trials that were scored."""
        return [trial for trial in self.trials if trial.complete]

    def checkpoints(self, number: int) -> list[TrialReading]:
        """The checkpoints of a trial that are on the front."""
        return [member for member in self.members if member.number == number and member.at is not None]

    @property
    def candidates(self) -> list[TrialReading]:
        """The trials that were scored, and the checkpoints on the front, in order of their numbers."""
        return [one for trial in self.trials for one in (*self.checkpoints(trial.number), trial) if one.value_known]

    def first_mask(self) -> Content | None:
        """Some trial's mask, for what all share: model, data, groups, versions."""
        return next((trial.mask for trial in self.trials if trial.mask is not None and trial.groups), None)

    def points(self, trials: Sequence[TrialReading]) -> Floats:
        """`(N, M)` objectives of completed trials, all to be minimised."""
        signs = [1.0 if objective["better"] == "lower" else -1.0 for objective in self.front["objectives"]]
        values = [[trial.value(name) or 0.0 for name in self.objectives] for trial in trials]
        return np.array(values, dtype=np.float64).reshape(-1, len(self.objectives)) * signs

    def hypervolumes(self) -> list[tuple[int, float]]:
        """Trial number and the hypervolume that it and all trials before it dominate; none without references."""
        worst = self.front.get("reference_point")
        if worst is None:
            return []
        points, reference = self.points(self.candidates), np.array(worst, dtype=np.float64)
        return [(trial.number, hypervolume(points[: i + 1], reference)) for i, trial in enumerate(self.candidates)]


def read_run(folder: RunFolder) -> RunReading:
    """What a search's folder holds; a mask file that is gone leaves its trial without groups.

    Raises:
        RunError: the folder holds no `front.json`, or one that is not this program's.
    """
    front = folder.read_front()
    # A front that was written before there was confirmation lacks its keys.
    lacking: dict[str, Any] = {"confirmed": None, "dominated_after_confirmation": None, "dominated_by": []}
    front = {"confirmation": None} | front | {"front": [lacking | member for member in front["front"]]}
    ends = {member["trial"]: member for member in front["front"] if "of" not in member}
    rows = sorted(read_trials(folder), key=lambda row: int(row["number"]))
    numbers = [int(row["number"]) for row in rows]
    trials = {n: TrialReading(row, _mask(folder, n), ends.get(n)) for n, row in zip(numbers, rows, strict=True)}
    members = [_on_front(folder, trials[one["trial"]], one) for one in front["front"] if one["trial"] in trials]
    settings = _settings(folder)
    return RunReading(folder, front, list(trials.values()), members, settings if isinstance(settings, dict) else {})


def _settings(folder: RunFolder) -> Any:
    try:
        return read_yaml(folder.config) if folder.config.is_file() else None
    except ValueError as error:
        raise RunError(f"{folder.config} is not YAML: {error}") from error


def _on_front(folder: RunFolder, trial: TrialReading, member: Content) -> TrialReading:
    if "of" not in member:
        return trial
    return TrialReading(trial.row, _mask(folder, trial.number, member["steps"]), member, member["steps"])


def _mask(folder: RunFolder, number: int, at: int | None = None) -> Content | None:
    path = folder.mask(number, at)
    if not path.is_file():
        return None
    return read_object(path)
