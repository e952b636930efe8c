"""Masks: which parameter groups of a model train, what came of it, and the JSON file that says so."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from memcontrol.cache import whole_file
from memcontrol.errors import MaskError, reason
from memcontrol.groups import ParameterGroup, architecture_fingerprint, parameter_groups
from memcontrol.mask_fit import check_sizes, differences
from memcontrol.mask_records import (
    EDGE,
    Bits,
    Confirmed,
    MaskedGroup,
    ModelIdentity,
    ScoreDict,
    SpaceRecord,
    Trainable,
    as_bools,
    check_groups,
    mask_key,
)
from memcontrol.space import SearchSpace, validation_message

if TYPE_CHECKING:
    from torch import nn

    from memcontrol.methods import Resources, Tuning

SCHEMA: Literal["memcontrol/mask@1"] = "memcontrol/mask@1"
FILE_NAME = "mask.json"


@dataclass(frozen=True, kw_only=True)
class Mask:
    """Which groups of a model train, at what learning rate, and the scores that came of it.

    Attributes:
        learning_rate: None when nothing trains.
        scores: named `measure@encoder`.
        confirmed: None until the mask is confirmed.
        provenance: data, run, trial, seed, steps and versions.
    """

    __pydantic_config__: ClassVar[ConfigDict] = EDGE
    schema: Literal["memcontrol/mask@1"]
    name: str
    model: ModelIdentity
    space: SpaceRecord
    groups: Annotated[tuple[MaskedGroup, ...], Field(min_length=1)]
    learning_rate: Annotated[float, Field(gt=0)] | None
    trainable: Trainable
    scores: dict[str, ScoreDict] = field(default_factory=dict)
    confirmed: Confirmed | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_groups(self.groups)
        numel = sum(group.numel for group in self.groups if group.on)
        if numel != self.trainable.numel:
            raise MaskError(
                f"trainable.numel is {self.trainable.numel:,} but the groups that are on hold {numel:,}: "
                "a mask's bits belong to its scores; build a new mask for other bits"
            )
        if (self.learning_rate is None) == any(group.on for group in self.groups):
            expected = "null, since no group is on" if self.learning_rate is not None else "a number above 0"
            raise MaskError(f"learning_rate is {self.learning_rate}: expected {expected}")

    @classmethod
    def build(
        cls,
        space: SearchSpace,
        groups: Sequence[ParameterGroup],
        bits: Bits,
        *,
        model: ModelIdentity,
        unet_numel: int,
        learning_rate: float | None,
        name: str | None = None,
        scores: Mapping[str, ScoreDict] | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> Mask:
        """The mask of one candidate.

        Args:
            bits: one per group, as booleans, 0 and 1, or a string such as "1011-0110"; an `always` group is on anyhow.
            unet_numel: numbers in the whole U-Net, for the percentage.
            learning_rate: dropped when nothing trains.
            name: the space's name and the mask's key unless given.

        Raises:
            MaskError: as many bits as groups were expected, or a learning rate.
        """
        masked = tuple(
            MaskedGroup(group.name, group.method, on or group.always, group.parameters, group.numel, group.settings)
            for group, on in zip(groups, as_bools(bits, len(groups)), strict=True)
        )
        numel = sum(group.numel for group in masked if group.on)
        return cls(
            schema=SCHEMA,
            name=name or f"{space.name}-{mask_key([group.on for group in masked])}",
            model=model,
            space=SpaceRecord(space.name, space.sha256, space.content()),
            groups=masked,
            learning_rate=learning_rate if numel else None,
            trainable=Trainable(numel, 100 * numel / unet_numel),
            scores=dict(scores or {}),
            provenance=dict(provenance or {}),
        )

    @classmethod
    def of(
        cls,
        unet: nn.Module,
        space: SearchSpace,
        bits: Bits,
        *,
        model: str,
        learning_rate: float,
        name: str | None = None,
    ) -> Mask:
        """A mask of one's own choice for a loaded U-Net.

        Args:
            bits: one per group, as for `build`.
            model: what `load_pipeline` loaded the U-Net by.

        Raises:
            SpaceError: the space does not fit the U-Net.
            MaskError: as many bits as groups were expected.
        """
        return cls.build(
            space,
            parameter_groups(space, unet),
            bits,
            model=ModelIdentity.of(unet, model),
            unet_numel=sum(parameter.numel() for parameter in unet.parameters()),
            learning_rate=learning_rate,
            name=name,
        )

    @property
    def bits(self) -> tuple[bool, ...]:
        """One bit per group, in the space's order."""
        return tuple(group.on for group in self.groups)

    @property
    def key(self) -> str:
        """The bits as text, such as "1011-0110"."""
        return mask_key(self.bits)

    @property
    def trained(self) -> tuple[MaskedGroup, ...]:
        """The groups that are on."""
        return tuple(group for group in self.groups if group.on)

    def trainable_names(self, method: str | None = None) -> tuple[str, ...]:
        """Dotted names of the parameters that train, of one method or of all."""
        chosen = (group for group in self.trained if method in (None, group.method))
        return tuple(name for group in chosen for name in group.parameters)

    def check(self, unet: nn.Module) -> None:
        """Refuse a U-Net of another architecture, and groups whose methods do not train what they say.

        Raises:
            MaskError: with the first differences in names and sizes.
        """
        if architecture_fingerprint(unet) != self.model.architecture:
            found = "; ".join(differences(self.groups, self.space.content, unet))
            raise MaskError(
                f"mask {self.name} was made for {self.model.class_name} {self.model.id}, and this "
                f"{type(unet).__name__} differs: {found}; load that model, or carry the mask over with transfer"
            )
        try:
            check_sizes(self.trained, unet)
        except MaskError as error:
            raise MaskError(f"mask {self.name}, {error}") from error

    def apply(self, unet: nn.Module, *, seed: int = 0) -> list[nn.Parameter]:
        """Freeze a U-Net but for what this mask trains, and give that, in the U-Net's order, for an optimizer.

        For a training loop of one's own. The methods stay attached, and the U-Net can be trained, sampled from, moved
        to another device and wrapped by accelerate, until `memcontrol.fold(unet)` leaves plain layers with tuned
        weights; save it after that. Modes (`train`, `eval`) stay as they are. What `svdiff`, `difffit` and `lora` add
        is float32 even where the U-Net is in half precision; `full` trains its tensors in the type that they have, so
        load the U-Net in float32 for it, and use autocast.

        Args:
            seed: of LoRA's random start.

        Raises:
            MaskError: the U-Net has another architecture.
            ModelError: a mask is applied to this U-Net already.
        """
        from memcontrol.methods.applying import apply, refuse_applied

        refuse_applied(unet)
        self.check(unet)
        return apply(unet, self.trained, _resources(seed))

    @contextmanager
    def tuned(self, unet: nn.Module, *, seed: int = 0) -> Iterator[Tuning]:
        """Inside, what this mask trains is attached to a U-Net; on exit it is restored bit for bit, and frozen.

        To try a mask: `Tuning.parameters` is what to optimise, and inside `Tuning.folded()` the U-Net is a plain one.

        Args:
            seed: of LoRA's random start.

        Raises:
            MaskError: the U-Net has another architecture.
        """
        from memcontrol.methods import tuned

        self.check(unet)
        with tuned(unet, self.trained, _resources(seed)) as tuning:
            yield tuning

    def to_json(self) -> str:
        """This mask as `memcontrol/mask@1` text.

        Raises:
            MaskError: a score or setting that JSON cannot hold (NaN, infinite), or that could not be read back.
        """
        content = _FILE.dump_python(self, by_alias=True, warnings=False)
        try:
            text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        except (TypeError, ValueError) as error:
            raise MaskError(f"mask {self.name} holds a value that JSON cannot hold: {error}") from error
        Mask.from_json(text, source=f"mask {self.name}")
        return text

    @classmethod
    def from_json(cls, text: str | bytes, *, source: str = "mask") -> Mask:
        """The mask in `memcontrol/mask@1` text.

        Args:
            source: what messages call the text, such as its path.

        Raises:
            MaskError: not JSON, another schema, an unknown or missing key, or groups that contradict each other.
        """
        try:
            return _FILE.validate_json(text)
        except ValidationError as error:
            raise MaskError(f"{source}: {validation_message(error)}") from error
        except MaskError as error:
            raise MaskError(f"{source}: {error}") from error

    @classmethod
    def from_pretrained(cls, path: str | Path) -> Mask:
        """The mask in a JSON file, or in the `mask.json` of a folder.

        Raises:
            MaskError: no such file, or not a mask.
        """
        file = Path(path)
        try:
            file = _file(path)
            content = file.read_bytes()
        except (OSError, ValueError) as error:  # a path that no file can have is a ValueError
            raise MaskError(f"no mask file {file} ({reason(error)}): give a mask's JSON file or its folder") from error
        return cls.from_json(content, source=str(file))

    def save(self, path: str | Path) -> Path:
        """Write this mask to a JSON file, or as `mask.json` into an existing folder, whole or not at all.

        Raises:
            MaskError: the place cannot be written.
        """
        file, text = _file(path), self.to_json()
        try:
            with whole_file(file) as part:
                part.write_text(text, encoding="utf-8")
        except OSError as error:
            raise MaskError(f"cannot write mask {file} ({reason(error)}): choose a writable folder") from error
        return file


_FILE = TypeAdapter(Mask)


def _resources(seed: int) -> Resources:
    """With the user's cache, since decompositions of a large model take minutes."""
    from memcontrol.cache import Cache, default_cache_folder
    from memcontrol.methods import Resources

    return Resources(Cache(default_cache_folder()), seed)


def _file(path: str | Path) -> Path:
    return Path(path) / FILE_NAME if Path(path).is_dir() else Path(path)
