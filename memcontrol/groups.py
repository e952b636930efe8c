"""Search space and U-Net to named, disjoint, sized parameter groups: what each bit of a mask switches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from memcontrol.errors import ModelError, SpaceError
from memcontrol.fingerprint import fingerprint
from memcontrol.space import GroupBy, SearchSpace, SpacePart

if TYPE_CHECKING:
    from torch import nn

ENDS = "ends"
MATRICES = ("to_q", "to_k", "to_v", "to_out", "add_k_proj", "add_v_proj")


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that one bit of a mask trains or freezes together.

    Attributes:
        name: unique in its space, such as `down.0.attention`.
        method: how the parameters are tuned when the bit is one; a zero bit means frozen.
        parameters: dotted names in the U-Net, in the U-Net's order.
        numel: how many numbers the method trains for them.
        always: trained whatever the mask says.
        settings: the method's own, such as LoRA's rank.
        alternatives: the same parameters under other settings, where a search chooses among several.
    """

    name: str
    method: str
    parameters: tuple[str, ...]
    numel: int
    always: bool = False
    settings: Mapping[str, float] = field(default_factory=dict, hash=False)
    alternatives: tuple[ParameterGroup, ...] = ()

    def at(self, level: int) -> ParameterGroup:
        """This group at a level above zero: 1 is itself, 2 its first alternative, and so on."""
        return replace(self, alternatives=()) if level == 1 else self.alternatives[level - 2]


def stage(parameter: str) -> str:
    """`down.0`, `mid`, `up.1` and so on; `ends` for what lies outside the blocks."""
    first, _, rest = parameter.partition(".")
    if first == "mid_block":
        return "mid"
    if first in ("down_blocks", "up_blocks"):
        return f"{first.removesuffix('_blocks')}.{rest.partition('.')[0]}"
    return ENDS


def side(parameter: str) -> str:
    """`down`, `mid`, `up` or `ends`; the norm before the last convolution belongs to `up`."""
    return "up" if parameter.startswith("conv_norm_out.") else stage(parameter).partition(".")[0]


def stage_kind(parameter: str) -> str:
    """The stage with `attention` (all within `attentions`) or `resnets` (the rest: resnets and samplers)."""
    place = stage(parameter)
    if place == ENDS:
        return ENDS
    return f"{place}.attention" if "attentions" in parameter.split(".") else f"{place}.resnets"


def kind(parameter: str) -> str:
    """The kind of layer, by name; biases are a kind of their own, norms keep theirs."""
    segments = parameter.split(".")
    if any("norm" in segment for segment in segments):
        return "norms"
    if segments[-1] == "bias":
        return "biases"
    if any(segment in MATRICES for segment in segments):
        return "cross-attention" if _is_cross(segments) else "self-attention"
    if "ff" in segments:
        return "feed-forward"
    if "proj_in" in segments or "proj_out" in segments:
        return "projections"
    if any("emb" in segment for segment in segments):
        return "embeddings"
    return "convolutions" if any("conv" in segment for segment in segments) else "other"


def attention_block(parameter: str) -> str:
    """The attention module: `down.0.attentions.1`, a Transformer2D or, without captions, one attention layer.

    Raises:
        SpaceError: the parameter is in no attention block.
    """
    segments = parameter.split(".")
    if stage(parameter) == ENDS or "attentions" not in segments[:-1]:
        raise SpaceError(f"{parameter} is in no attention block: select within *.attentions.*, or group_by module")
    return f"{stage(parameter)}.attentions.{segments[segments.index('attentions') + 1]}"


def attention_layer(parameter: str) -> str:
    """The attention block with `self` (attn1) or `cross` (attn2).

    Raises:
        SpaceError: the parameter is no query, key, value or output of an attention layer.
    """
    segments = parameter.split(".")
    if not any(segment in MATRICES for segment in segments):
        raise SpaceError(f"{parameter} is no query, key, value or output: select *.to_q.* and the like")
    return f"{attention_block(parameter)}.{'cross' if _is_cross(segments) else 'self'}"


def matrix(parameter: str) -> str:
    """The attention layer with `q`, `k`, `v` or `out`.

    Raises:
        SpaceError: the parameter is no query, key, value or output of an attention layer.
    """
    layer = attention_layer(parameter)
    role = next(segment for segment in parameter.split(".") if segment in MATRICES)
    return f"{layer}.{role.removeprefix('to_').removeprefix('add_').removesuffix('_proj')}"


def module(parameter: str) -> str:
    """The layer that owns the parameter, by its dotted name."""
    return parameter.rpartition(".")[0] or parameter


GROUPINGS: Mapping[GroupBy, Callable[[str], str]] = {
    "all": lambda _: "all",
    "side": side,
    "stage": stage,
    "stage-kind": stage_kind,
    "kind": kind,
    "attention-block": attention_block,
    "attention-layer": attention_layer,
    "matrix": matrix,
    "module": module,
    "name": lambda parameter: parameter,
}


def parameter_groups(space: SearchSpace, unet: nn.Module) -> tuple[ParameterGroup, ...]:
    """The groups that a space makes of a U-Net: disjoint, in the order down, mid, up, ends; then those always trained.

    Raises:
        SpaceError: a part selects nothing, its method does not fit a parameter that it selects, a parameter is in two
            groups, or two parts make groups of one name.
    """
    names = [name for name, _ in unet.named_parameters()]
    groups: list[ParameterGroup] = []
    for number, part in enumerate(space.parts, start=1):
        members = _members(part, names)
        if not members and not part.optional:
            without = f" without {', '.join(part.exclude)}" if part.exclude else ""
            raise SpaceError(
                f"search space {space.name}: part {number} (select {', '.join(part.select)}{without}) selects none of "
                f"the {len(names)} parameters of {type(unet).__name__}, such as {next(iter(names), 'none')}: "
                "correct its rules"
            )
        for name, chosen in members.items():
            first, *others = [_group(name, part, chosen, settings, unet) for settings in part.choices]
            groups.append(replace(first, alternatives=tuple(others)))
    _refuse_overlaps(space.name, groups)
    # A sort keeps the order of equals: within a stage the space's order of parts, then the U-Net's order, stands.
    return tuple(sorted(groups, key=_place))


def architecture_fingerprint(unet: nn.Module) -> str:
    """Hash of the sorted parameter names and shapes; it decides whether a mask fits."""
    return fingerprint(sorted((name, list(parameter.shape)) for name, parameter in unet.named_parameters()))


def weights_fingerprint(unet: nn.Module) -> str:
    """Hash of every parameter's bytes; it decides whether tuned tensors and caches belong.

    One tensor is brought to the CPU at a time, and one already there is not copied.

    Raises:
        ModelError: the weights are not loaded (meta device).
    """
    import torch

    hashes = []
    for name, parameter in sorted(unet.named_parameters()):
        if parameter.is_meta:
            raise ModelError(f"{name} has no values (meta device): load the model's weights before hashing them")
        flat = parameter.detach().cpu().contiguous().reshape(-1)
        hashes.append([name, str(parameter.dtype), fingerprint(flat.view(torch.uint8).numpy())])
    return fingerprint(hashes)


def _is_cross(segments: list[str]) -> bool:
    return "attn2" in segments or "add_k_proj" in segments or "add_v_proj" in segments


def _members(part: SpacePart, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    members: dict[str, list[str]] = {}
    for parameter in filter(part.selects, names):
        key = GROUPINGS[part.group_by](parameter)
        if part.name is not None:
            key = part.name if part.group_by == "all" else f"{key}.{part.name}"
        members.setdefault(key, []).append(parameter)
    return {name: tuple(parameters) for name, parameters in members.items()}


def _group(
    name: str, part: SpacePart, parameters: tuple[str, ...], settings: Mapping[str, float], unet: nn.Module
) -> ParameterGroup:
    from memcontrol.methods import tuned_numel

    unsized = ParameterGroup(name, part.method, parameters, 0, part.always, settings)
    return replace(unsized, numel=tuned_numel(unsized, unet))


def _refuse_overlaps(space: str, groups: Iterable[ParameterGroup]) -> None:
    owners: dict[str, str] = {}
    names: set[str] = set()
    for group in groups:
        if group.name in names and not any(parameter in owners for parameter in group.parameters):
            raise SpaceError(f"search space {space}: two parts make a group {group.name}: give one of them a name")
        names.add(group.name)
        for parameter in group.parameters:
            if parameter in owners:
                raise SpaceError(
                    f"search space {space}: {parameter} is in two groups, {owners[parameter]} and {group.name}: "
                    "narrow a select rule or exclude it from one part"
                )
            owners[parameter] = group.name


def _place(group: ParameterGroup) -> tuple[bool, tuple[int, int]]:
    # A group over several stages comes after the last of them; the ends come last of all.
    return group.always, max((_stage_rank(name) for name in group.parameters if stage(name) != ENDS), default=(3, 0))


def _stage_rank(parameter: str) -> tuple[int, int]:
    place, _, index = stage(parameter).partition(".")
    return ("down", "mid", "up").index(place), int(index or 0)
