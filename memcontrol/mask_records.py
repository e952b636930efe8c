"""What a mask's JSON file is made of: model, space, groups, size and scores, as `memcontrol/mask@1` states them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

from memcontrol.groups import architecture_fingerprint, weights_fingerprint

if TYPE_CHECKING:
    from torch import nn

EDGE = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
Count = Annotated[int, Field(ge=0)]


@with_config(ConfigDict(extra="allow", strict=True, allow_inf_nan=False))
class ScoreDict(TypedDict):
    """One score as a plain dict: value, 95 % interval (null where there is none), number of images, direction."""

    value: float
    low: float | None
    high: float | None
    n: int
    better: Literal["lower", "higher"]


@dataclass(frozen=True)
class ModelIdentity:
    """Which model a mask was made for; `class_name` is `class` in JSON.

    `architecture` (names and shapes) decides whether a mask fits; `weights` whether tuned tensors and caches belong.
    """

    __pydantic_config__: ClassVar[ConfigDict] = EDGE
    id: str
    class_name: Annotated[str, Field(alias="class")]
    architecture: str
    weights: str

    @classmethod
    def of(cls, unet: nn.Module, model_id: str) -> ModelIdentity:
        """The identity of a loaded U-Net; it reads every weight once, so keep it.

        Raises:
            ModelError: the weights are not loaded.
        """
        return cls(model_id, type(unet).__name__, architecture_fingerprint(unet), weights_fingerprint(unet))


@dataclass(frozen=True)
class SpaceRecord:
    """The search space a mask comes from: `content` is what `SearchSpace.model_validate` reads."""

    __pydantic_config__: ClassVar[ConfigDict] = EDGE
    name: str
    sha256: str
    content: dict[str, Any]


@dataclass(frozen=True)
class MaskedGroup:
    """A parameter group and its bit; `numel` counts the numbers that its method trains, not tensors."""

    __pydantic_config__: ClassVar[ConfigDict] = EDGE
    name: str
    method: str
    on: bool
    parameters: Annotated[tuple[str, ...], Field(min_length=1)]
    numel: Count
    settings: Annotated[Mapping[str, int | float], Field(exclude_if=lambda settings: not settings)] = field(
        default_factory=dict, hash=False
    )


@dataclass(frozen=True)
class Trainable:
    """What a mask trains: how many numbers, and their percentage of the U-Net."""

    __pydantic_config__: ClassVar[ConfigDict] = EDGE
    numel: Count
    percent: Annotated[float, Field(ge=0, le=100)]


@dataclass(frozen=True)
class Confirmed:
    """Scores of the same mask re-trained with fresh seeds on the third held-out set."""

    __pydantic_config__: ClassVar[ConfigDict] = EDGE
    seeds: tuple[int, ...]
    scores: dict[str, ScoreDict]
