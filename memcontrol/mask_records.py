"""What a mask's JSON file is made of, as `memcontrol/mask@1` states it: model, space, groups, bits, size and scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

from memcontrol.errors import MaskError, nearest_names
from memcontrol.groups import architecture_fingerprint, weights_fingerprint
from memcontrol.space import METHODS

if TYPE_CHECKING:
    from torch import nn

EDGE = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
Count = Annotated[int, Field(ge=0)]
Bits = str | Sequence[bool] | Sequence[int]


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


def mask_key(bits: Sequence[bool] | Sequence[int]) -> str:
    """Bits in fours, such as "1011-0110"; above 64 bits as a hexadecimal number, to stay short."""
    text = "".join("1" if bit else "0" for bit in bits)
    text = text if len(text) <= 64 else f"{int(text, 2):0{(len(text) + 3) // 4}x}"
    return "-".join(text[start : start + 4] for start in range(0, len(text), 4))


def as_bools(bits: Bits, expected: int) -> list[bool]:
    """Bits, as booleans, 0 and 1, or a string such as "1011-0110", as booleans.

    Raises:
        MaskError: other values, or another number than expected.
    """
    given = list(bits.replace("-", "")) if isinstance(bits, str) else list(bits)
    if any(bit not in ("0", "1", 0, 1) for bit in given):
        raise MaskError(f"bits {bits!r}: expected 0 and 1 only, one for each of {expected} groups")
    if len(given) != expected:
        raise MaskError(f"{len(given)} bits for {expected} groups: give one bit for each group")
    return [bool(int(bit)) for bit in given]


def check_groups(groups: Sequence[MaskedGroup]) -> None:
    """Refuse groups that contradict each other, and methods and settings that there are not.

    Raises:
        MaskError: naming the group or the parameter.
    """
    names = [group.name for group in groups]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise MaskError(f"two groups are named {twice}: each group needs a name of its own")
    owners: dict[str, str] = {}
    for group in groups:
        for parameter in group.parameters:
            if parameter in owners:
                raise MaskError(f"{parameter} is in two groups, {owners[parameter]} and {group.name}: expected one")
            owners[parameter] = group.name
    for group in groups:
        _check_method(group)


def _check_method(group: MaskedGroup) -> None:
    if group.method not in METHODS:
        raise MaskError(f"group {group.name}: unknown method {group.method}: {nearest_names(group.method, METHODS)}")
    expected = {"rank", "alpha"} if group.method == "lora" else set()
    whole = group.settings.get("rank", 1) % 1 == 0
    if group.settings.keys() != expected or any(value <= 0 for value in group.settings.values()) or not whole:
        wanted = " and ".join(sorted(expected)) + ", both above 0 and rank whole" if expected else "none"
        raise MaskError(f"group {group.name}: settings {dict(group.settings)} of {group.method}: expected {wanted}")
