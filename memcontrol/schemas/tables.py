"""The JSON documents of comparisons and transfers: rows, each with a mean over seeds of every score."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from memcontrol.run_documents import Direction, Document


class SeedMean(Document):
    """A mean over seeds.

    Attributes:
        low, high: Student's 95 % interval; null with one seed.
        n: seeds.
    """

    mean: float
    low: float | None
    high: float | None
    n: int


class TableRow(Document):
    """A method or a mask, under mitigations or none.

    Attributes:
        name: of the row.
        method: a method's name, or a mask's.
        is_mask: whether it is a mask.
        mitigation: `none`, or mitigations joined by `+`.
        learning_rate: null where nothing trains.
        numel: how many numbers train; null until a seed is done.
        percent: of the U-Net's numbers.
        seeds: that are done.
        failed: seed and error of each training that failed.
        found_on: seeds whose training set is the one that the mask was found on, where its scores flatter it.
        scores: score -> mean over seeds.
        against_full: score -> mean of the paired differences to plain full fine-tuning.
    """

    name: str
    method: str
    is_mask: bool
    mitigation: str
    learning_rate: float | None
    numel: int | None
    percent: float | None
    seeds: list[int]
    failed: list[dict[str, Any]]
    found_on: list[int]
    scores: dict[str, SeedMean]
    against_full: dict[str, SeedMean]


class Table(Document):
    """What comparisons and transfers share.

    Attributes:
        data: name, number of training images, and whether every seed drew another training set.
        model: that was tuned.
        steps: optimizer steps of rows that have no number of their own.
        images: generated for each training.
        seeds: that were asked for.
        confidence: of the intervals.
        scores: all that were measured.
        columns: those that tables show.
        reference: the row that `against_full` compares with.
    """

    data: dict[str, Any]
    model: str
    steps: int
    images: int
    seeds: list[int]
    confidence: float
    scores: list[Direction]
    columns: list[str]
    reference: str


class ComparisonDocument(Table):
    """`comparison.json`: methods and masks under mitigations, on the same training sets.

    Attributes:
        cells: the rows.
    """

    schema_: Literal["memcontrol/comparison@1"] = Field(alias="schema")
    cells: list[TableRow]


class TransferRow(TableRow):
    """A row of a transfer.

    Attributes:
        role: what it is there for: `mask`, `random`, `full`, `freeze`, `all` or `target`.
        of: the mask that a random mask, or all groups, stand beside; null for other rows.
        steps: optimizer steps; 0 for the untuned model.
        bits: null for rows that are no masks.
    """

    role: str
    of: str | None
    steps: int
    bits: str | None


class CarriedMask(Document):
    """A mask beside everything that it is compared with.

    Attributes:
        how: it was carried to the target's U-Net.
        sources: group of the target -> group of the mask that gave it its bit.
        unused: groups of the mask that no group of the target took.
        found: data, run and steps that the mask was found with.
        rows: what it is compared with -> name of the row.
        minus: the same -> score -> mean of the paired differences.
        random: score -> rank, p and difference among random masks of its size; null without any.
        ahead_in_all: how many random masks are at least as good in all objectives at once; null without any.
        equal_fidelity: second objective -> full fine-tuning at the mask's first objective; null where there is none.
    """

    name: str
    how: str
    sources: dict[str, Any]
    unused: list[str]
    found: dict[str, Any]
    rows: dict[str, str]
    minus: dict[str, dict[str, SeedMean]]
    random: dict[str, Any]
    ahead_in_all: int | None
    equal_fidelity: dict[str, Any]


class TransferDocument(Table):
    """`transfer.json`: masks on other data or another model.

    Attributes:
        objectives: fidelity first.
        random: random masks of each mask's size that were asked for.
        map: how masks were carried.
        cells: the rows.
        masks: each mask beside everything that it is compared with.
    """

    schema_: Literal["memcontrol/transfer@1"] = Field(alias="schema")
    objectives: list[str]
    random: int
    map: Literal["name", "position"]
    cells: list[TransferRow]
    masks: list[CarriedMask]
