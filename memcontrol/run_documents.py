"""The JSON documents that searches and confirmations write, as their readers may expect them.

Keys may be added to them without a new version of their schema: readers ignore what they do not know.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from memcontrol.measures import Better
from memcontrol.score import Score

LONGEST_PATH = 256


def _inside(path: str) -> str:
    whole = PurePosixPath(path)
    if not 0 < len(path) < LONGEST_PATH or "\0" in path or "\\" in path or whole.is_absolute() or ".." in whole.parts:
        raise ValueError("expected the path of a file inside the run folder")
    return path


def _counted(number: int) -> int:
    if not 0 <= number < 2**63:
        raise ValueError("expected a number from 0 on")
    return number


Count = Annotated[int, AfterValidator(_counted)]
InsidePath = Annotated[str, AfterValidator(_inside)]
"""Relative to the run folder, and not out of it."""


class Document(BaseModel):
    """Base of every part of these documents: keys that are not known are let through, NaN is not."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False, strict=True)


class Direction(Document):
    """A score, and which direction is better."""

    name: str
    better: Better


class ReferencePoint(Document):
    """One training that masks are compared with.

    Attributes:
        learning_rate: null where nothing was trained.
        steps: optimizer steps; 0 for the untuned model.
        loss: at the end of training; null where nothing was trained.
        scores: by their name, `measure@source`.
    """

    learning_rate: float | None
    steps: Count
    loss: float | None
    scores: dict[str, Score]


class SeedScore(Document):
    """A score over several seeds.

    Attributes:
        value: mean over the seeds.
        low, high: Student's 95 % interval of the mean; null with one seed.
        n: images (or what else it is measured on) of one seed.
        better: which direction is better.
        values: of each seed, in the order of `seeds`.
    """

    value: float
    low: float | None
    high: float | None
    n: int
    better: Better
    values: list[float]


class ConfirmedScores(Document):
    """Scores of the same mask, trained again with fresh seeds on the third held-out set.

    Attributes:
        seeds: with which it was trained again.
        scores: by their name, `measure@source`.
    """

    seeds: list[int]
    scores: dict[str, SeedScore]


class Member(Document):
    """One mask of the front.

    Attributes:
        mask: path of its file, relative to the run folder.
        trial: its number in `trials.csv`.
        bits: zeros and ones, or levels, one for each group that the space may switch.
        trains: names of the groups that are on.
        numel: how many numbers train.
        learning_rate: null where nothing trains.
        mitigations: under which it was trained.
        steps: optimizer steps.
        scores: of the search, by their name.
        confirmed: null until it was confirmed.
        dominated_after_confirmation: whether something that was confirmed beside it dominates it; null until confirmed.
        dominated_by: names of what does.
    """

    mask: InsidePath
    trial: Count
    bits: str
    trains: list[str]
    numel: Count
    learning_rate: float | None
    mitigations: list[str] = Field(default_factory=list)
    steps: Count
    scores: dict[str, Score]
    confirmed: ConfirmedScores | None = None
    dominated_after_confirmation: bool | None = None
    dominated_by: list[str] = Field(default_factory=list)


class FrontDocument(Document):
    """`front.json` of a search: the Pareto front, and what its masks are compared with.

    Attributes:
        objectives: in the order in which the search was given them.
        budget: total of candidates.
        sampler: that proposed them.
        seed: of the run.
        trials: how many there are in each state.
        references: `freeze` (the untuned model) and `full-RATE` (full fine-tuning at each number of steps) -> points.
        front: the masks that no other dominates.
        hypervolume: that the completed trials dominate below `reference_point`; null until there is a reference.
        reference_point: the worst value of each objective over all references, to be minimised.
        confirmation: what the front was confirmed with; null until it was.
    """

    schema_: Literal["memcontrol/front@1"] = Field(alias="schema")
    objectives: list[Direction] = Field(min_length=1)
    budget: int
    sampler: str
    seed: int
    trials: dict[str, int]
    references: dict[str, list[ReferencePoint]]
    front: list[Member]
    hypervolume: float | None
    reference_point: list[float] | None
    confirmation: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _all_objectives_are_scored(self) -> Self:
        wanted = [objective.name for objective in self.objectives]
        if len(set(wanted)) < len(wanted):
            raise ValueError(f"objectives {', '.join(wanted)}: expected each once")
        scored = [member.scores for member in self.front]
        scored += [point.scores for points in self.references.values() for point in points]
        for scores in scored:
            for name in wanted:
                if name not in scores:
                    raise ValueError(f"no score of the objective {name} in one of its masks or references")
        return self


class ConfirmedRow(Document):
    """What was trained again.

    Attributes:
        name: of the row.
        kind: a member of the front, full fine-tuning, or a random mask of a member's size.
        trial: of the member that it is, or that it has the size of; null for full fine-tuning.
        bits: null for full fine-tuning.
        mask: path of its file, relative to the run folder; null for full fine-tuning.
        numel: how many numbers trained; null until one seed is done.
        seeds: that are done.
        scores: by their name.
    """

    name: str
    kind: Literal["front", "full", "random"]
    trial: int | None
    bits: str | None
    mask: InsidePath | None
    learning_rate: float | None
    steps: Count
    mitigations: list[str]
    numel: int | None
    seeds: list[int]
    scores: dict[str, SeedScore]

    @model_validator(mode="after")
    def _each_seed_has_a_value(self) -> Self:
        for name, score in self.scores.items():
            if len(score.values) != len(self.seeds):
                raise ValueError(f"{len(score.values)} values of {name} for {len(self.seeds)} seeds")
        return self


class ConfirmationDocument(Document):
    """`confirmation/confirmation.json`: the trainings that confirm a front.

    Attributes:
        run: seed and data of the search.
        measures: that are scored besides the objectives.
        held_out: which held-out set was used, and how many images each of its parts has.
        images: generated for each training.
        confidence: of the intervals.
        scores: those that every row has once a seed is done.
        failed: name, seed and error of every training that failed.
        seeds: all that any row has.
        rows: everything that was trained again.
    """

    schema_: Literal["memcontrol/confirmation@1"] = Field(alias="schema")
    run: dict[str, Any]
    measures: list[str]
    held_out: dict[str, Any]
    images: int
    confidence: float
    scores: list[Direction]
    failed: list[dict[str, Any]]
    seeds: list[int]
    rows: list[ConfirmedRow]

    @model_validator(mode="after")
    def _rows_have_all_scores(self) -> Self:
        if "seed" not in self.run:
            raise ValueError("run: expected the search's seed")
        for row in self.rows:
            lacking = sorted({score.name for score in self.scores} - row.scores.keys()) if row.seeds else []
            if lacking:
                raise ValueError(f"row {row.name}: no {lacking[0]}")
        return self


class ReferenceFile(Document):
    """`references/NAME.json`: one reference that was scored, or why it was not.

    Attributes:
        name: as the file's.
        error: null where it was scored.
    """

    name: str
    points: list[ReferencePoint]
    error: str | None = None
