"""Whether a mask fits a U-Net: the same architecture, and methods that train the numbers that the mask says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from memcontrol.errors import MaskError, SpaceError, listed
from memcontrol.groups import parameter_groups
from memcontrol.mask_records import MaskedGroup
from memcontrol.space import SearchSpace

if TYPE_CHECKING:
    from torch import nn


def check_sizes(groups: Sequence[MaskedGroup], unet: nn.Module) -> None:
    """Refuse groups whose methods do not train what they say in a U-Net that has all of their parameters.

    Raises:
        MaskError: naming the group.
    """
    from memcontrol.methods import tuned_numel

    for group in groups:
        try:
            numel = tuned_numel(group, unet)
        except SpaceError as error:
            raise MaskError(f"group {group.name}: {error}") from error
        if numel != group.numel:
            raise MaskError(
                f"group {group.name}: {group.method} trains {numel:,} numbers of its parameters here, and the mask "
                f"says {group.numel:,}: it belongs to another method or other settings"
            )


def differences(groups: Sequence[MaskedGroup], space: Mapping[str, Any], unet: nn.Module) -> list[str]:
    """How a U-Net of another architecture differs from the one that a mask was made for, as far as its groups tell.

    Args:
        groups: all of the mask's, on or off.
        space: what `SearchSpace.model_validate` reads.
    """
    names = {name for name, _ in unet.named_parameters()}
    named = {name for group in groups for name in group.parameters}
    try:
        here = parameter_groups(SearchSpace.model_validate(space), unet)
    except (SpaceError, ValidationError):
        here = ()
    missing = sorted(named - names)
    extra = sorted({name for group in here for name in group.parameters} - named)
    present = [group for group in groups if names >= set(group.parameters)]
    resized = [difference for group in present if (difference := _resized(group, unet)) is not None]
    found = (("it lacks", missing), ("it adds", extra), ("other shapes in", resized))
    lines = [f"{what} {listed(names)}" for what, names in found if names]
    return lines or ["parameters outside the mask's groups have other names or shapes"]


def _resized(group: MaskedGroup, unet: nn.Module) -> str | None:
    """How the group's size differs in a U-Net that has all of its parameters; None where it does not."""
    from memcontrol.methods import tuned_numel

    try:
        numel = tuned_numel(group, unet)
    except SpaceError:  # a parameter of that name belongs to another kind of layer here
        return f"{group.name} ({group.method} does not fit)"
    return None if numel == group.numel else f"{group.name} ({numel:,} numbers, not {group.numel:,})"
