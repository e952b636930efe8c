"""A mask carried to another U-Net: to groups of the same names, or to those at the same relative positions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Literal

from pydantic import ValidationError

from memcontrol.errors import MaskError, SpaceError, listed
from memcontrol.groups import ParameterGroup, parameter_groups
from memcontrol.mask import Mask
from memcontrol.mask_records import MaskedGroup, ModelIdentity
from memcontrol.random_masks import always_trained
from memcontrol.space import SearchSpace, validation_message

if TYPE_CHECKING:
    from torch import nn

How = Literal["unchanged", "name", "position"]
LISTED = 8
LACKS, UNDECIDED = "it has nothing like", "nothing in the mask decides its"
Place = tuple[tuple[Fraction, int], ...]
"""Each number in a group's name, as a share of the largest there is, and as it is."""


@dataclass(frozen=True)
class Carried:
    """A mask of the target, and where its bits come from.

    Attributes:
        how: `unchanged` where the target has the mask's own architecture.
        sources: group of the target -> group of the mask whose bit it took; empty where nothing changed.
        unused: groups of the mask that train there and whose bits no group of the target took.
    """

    mask: Mask
    how: How
    sources: Mapping[str, str]
    unused: tuple[str, ...] = ()


def carry(mask: Mask, unet: nn.Module, model: ModelIdentity, *, by: Literal["name", "position"] = "name") -> Carried:
    """The mask for another U-Net: the groups that its search space makes there, with the bits of their counterparts.

    A U-Net of the mask's own architecture gets the mask unchanged. By name, groups of one name are counterparts. By
    position, a group's counterpart is the nearest group of the same side, kind and method: nearest in relative depth
    among the side's levels, then in relative index within the level; of two as near, the one of the lower number.

    Args:
        model: the U-Net's identity.

    Raises:
        MaskError: the mask's space does not fit the U-Net, groups have no counterpart (all are named), or nothing would
            train.
    """
    if model.architecture == mask.model.architecture:
        return Carried(mask, "unchanged", {})
    groups = _target_groups(mask, unet, model)
    switched = [group for group in groups if not group.always]
    own = {group.name: group for group in mask.groups}
    sources = _by_name(mask, switched) if by == "name" else _by_position(mask, switched, unet)
    _refuse_unmatched(mask, switched, sources, model, by)
    chosen = [_levelled(mask, group, own[sources[group.name]]) for group in switched]
    bits = [own[sources[group.name]].on for group in switched]
    always = [group for group in groups if group.always]
    origin = {"mask": mask.name, "model": mask.model.id, "architecture": mask.model.architecture, "by": by}
    carried = Mask.build(
        SearchSpace.model_validate(mask.space.content),
        [*chosen, *always],
        [*bits, *[True] * len(always)],
        model=model,
        unet_numel=sum(parameter.numel() for parameter in unet.parameters()),
        learning_rate=mask.learning_rate,
        name=mask.name,
        provenance=dict(mask.provenance) | {"carried from": origin},
    )
    if mask.trained and not carried.trained:
        raise MaskError(f"mask {mask.name} would train nothing of {model.id}: no group took the bit of one that is on")
    kept = {*sources.values(), *always_trained(mask)}
    return Carried(carried, by, sources, tuple(group.name for group in mask.trained if group.name not in kept))


def mapping_text(carried: Carried) -> str:
    """Where the bits went, on one line: each group of the mask with the groups that took its bit; + for trained."""
    if carried.how == "unchanged":
        return "the same groups"
    taken: dict[str, list[str]] = {}
    for target, source in carried.sources.items():
        taken.setdefault(source, []).append(target)
    on = {carried.sources[group.name] for group in carried.mask.trained if group.name in carried.sources}
    same = all(targets == [source] for source, targets in taken.items())
    parts = [
        f"{'+' if source in on else '-'}{source}" + ("" if same else f" -> {', '.join(targets)}")
        for source, targets in taken.items()
    ]
    lost = f"; on there and carried nowhere: {', '.join(carried.unused)}" if carried.unused else ""
    return "; ".join(parts) + lost


def _target_groups(mask: Mask, unet: nn.Module, model: ModelIdentity) -> tuple[ParameterGroup, ...]:
    """What the mask's space makes of the U-Net."""
    try:
        return parameter_groups(SearchSpace.model_validate(mask.space.content), unet)
    except ValidationError as error:
        raise MaskError(f"mask {mask.name}: its search space: {validation_message(error)}") from error
    except SpaceError as error:
        raise MaskError(f"mask {mask.name} cannot be carried to {model.class_name} {model.id}: {error}") from error


def _by_name(mask: Mask, groups: Sequence[ParameterGroup]) -> dict[str, str]:
    own = {(group.name, group.method) for group in mask.groups}
    return {group.name: group.name for group in groups if (group.name, group.method) in own}


def _by_position(mask: Mask, groups: Sequence[ParameterGroup], unet: nn.Module) -> dict[str, str]:
    here = _placed(groups, (name for name, _ in unet.named_parameters()))
    there = _placed(mask.groups, (name for group in mask.groups for name in group.parameters))
    found = {}
    for (kind, name), place in here.items():
        others = [(_distance(place, other), named) for (known, named), other in there.items() if known == kind]
        if others:
            found[name] = min(others)[1]
    return found


def _placed(
    groups: Sequence[ParameterGroup] | Sequence[MaskedGroup], parameters: Iterable[str]
) -> dict[tuple[tuple[str, str], str], Place]:
    """(Kind and method, name) -> where the group is."""
    levels = _levels(parameters)
    split = {group.name: (_kind(group.name), group.method, _numbers(group.name)) for group in groups}
    largest: dict[tuple[str, str, tuple[int, ...]], int] = {}
    for kind, method, numbers in split.values():
        for i, number in enumerate(numbers):
            key = (kind, method, numbers[:i])
            largest[key] = max(number, largest.get(key, 0))
    placed = {}
    for name, (kind, method, numbers) in split.items():
        tops = [largest[kind, method, numbers[:i]] for i in range(len(numbers))]
        if numbers and _has_level(name):
            tops[0] = levels - 1
        shares = [Fraction(number, top) if top else Fraction(0) for number, top in zip(numbers, tops, strict=True)]
        placed[(kind, method), name] = tuple(zip(shares, numbers, strict=True))
    return placed


def _distance(place: Place, other: Place) -> tuple[tuple[Fraction, int], ...]:
    """Compared from the left: how far apart each share is, then the other's own number."""
    return tuple((abs(share - theirs), number) for (share, _), (theirs, number) in zip(place, other, strict=True))


def _kind(name: str) -> str:
    """A group's name without its numbers: `down.0.attentions.1` -> `down.#.attentions.#`."""
    return ".".join("#" if part.isdecimal() else part for part in name.split("."))


def _numbers(name: str) -> tuple[int, ...]:
    return tuple(int(part) for part in name.split(".") if part.isdecimal())


def _has_level(name: str) -> bool:
    """Whether the first number in a group's name is that of a level."""
    first, _, rest = name.partition(".")
    return first in ("down", "up", "down_blocks", "up_blocks") and rest.partition(".")[0].isdecimal()


def _levels(parameters: Iterable[str]) -> int:
    """Levels of a U-Net, by the names of its parameters."""
    parts = (name.split(".") for name in parameters)
    return max((int(part[1]) + 1 for part in parts if part[0] in ("down_blocks", "up_blocks")), default=1)


def _refuse_unmatched(
    mask: Mask, groups: Sequence[ParameterGroup], sources: Mapping[str, str], model: ModelIdentity, by: str
) -> None:
    """Refuse groups of the target that nothing decides, and trained groups whose like the target does not have."""
    key = _kind if by == "position" else str
    likes, always = {(key(group.name), group.method) for group in groups}, always_trained(mask)
    lost = [
        group.name
        for group in mask.trained
        if group.name not in always and (key(group.name), group.method) not in likes
    ]
    undecided = [group.name for group in groups if group.name not in sources]
    lines = [f"{what} {listed(names, LISTED)}" for what, names in ((LACKS, lost), (UNDECIDED, undecided)) if names]
    if lines:
        mend = "use --map position, or" if by == "name" else "use"
        raise MaskError(
            f"mask {mask.name} cannot be carried by {by} to {model.class_name} {model.id}: {'; '.join(lines)}; "
            f"{mend} a mask of a search space that both U-Nets have"
        )


def _levelled(mask: Mask, group: ParameterGroup, source: MaskedGroup) -> ParameterGroup:
    """The group with the settings that its counterpart has."""
    for choice in (group.at(level) for level in range(1, 2 + len(group.alternatives))):
        if not source.on or dict(choice.settings) == dict(source.settings):
            return choice
    raise MaskError(f"mask {mask.name}: settings {dict(source.settings)} of {source.name} are not among its space's")
