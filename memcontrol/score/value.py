"""One measured number with its direction, the number of images and an interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from memcontrol.errors import MemControlError
from memcontrol.measures import Better
from memcontrol.space import validation_message

Number = Annotated[float, Field(strict=True)]
"""No text that reads as one."""


@dataclass(frozen=True)
class Score:
    """One measured number.

    Attributes:
        value: the measured value.
        low, high: 95 % interval; what it covers is said by the measure's own function.
        n: what it was measured on: generated images; training and held-out images together for membership, training
            images for noise magnitude.
        better: which direction is better.
        p: for copying measures, share of shuffled memberships that look at least as copied.
        null: 2.5, 50 and 97.5 % quantiles over shuffled memberships.
        raw: the value before `copy_gap` is clipped at its null median.
        note: what the number does not show, where that is not plain.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    value: Number
    low: Number
    high: Number
    n: Annotated[int, Field(strict=True)]
    better: Better
    p: Number | None = None
    null: tuple[Number, Number, Number] | None = None
    raw: Number | None = None
    note: str | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON-ready content that `from_json` reads back; what is None is left out."""
        content = {key: value for key, value in asdict(self).items() if value is not None}
        return content | ({} if self.null is None else {"null": list(self.null)})

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Score:
        """A score from what `to_json` gave.

        Raises:
            MemControlError: a key that is missing or unknown, a direction that is neither lower nor higher, or a value
                of another type.
        """
        known, needed = {field.name for field in fields(cls)}, {"value", "low", "high", "n", "better"}
        if not needed <= set(content) <= known or content["better"] not in ("lower", "higher"):
            raise MemControlError(
                f"not a score: {dict(content)}; expected the keys {', '.join(sorted(needed))} "
                f"(and at most {', '.join(sorted(known - needed))}), better being lower or higher"
            )
        try:
            return _FILE.validate_python(dict(content))
        except ValidationError as error:
            raise MemControlError(f"not a score: {validation_message(error)}") from error


_FILE = TypeAdapter(Score)


def minimised(score: Score) -> float:
    """The score's value, negated where higher is better."""
    return score.value if score.better == "lower" else -score.value
