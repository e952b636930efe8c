"""Whether a mask fits a U-Net: the same architecture, and methods that train the numbers that the mask says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from memcontrol.errors import MaskError, SpaceError
from memcontrol.groups import parameter_groups
from memcontrol.mask_records import MaskedGroup
from memcontrol.space import SearchSpace

if TYPE_CHECKING:
    from torch import nn

LISTED = 5


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
    from memcontrol.methods import tuned_numel

    names = {name for name, _ in unet.named_parameters()}
    named = {name for group in groups for name in group.parameters}
    try:
        here = parameter_groups(SearchSpace.model_validate(space), unet)
    except (SpaceError, ValidationError):
        here = ()
    missing = sorted(named - names)
    extra = sorted({name for group in here for name in group.parameters} - named)
    present = [group for group in groups if names >= set(group.parameters)]
    numels = [(group, tuned_numel(group, unet)) for group in present]
    resized = [f"{group.name} ({n:,} numbers, not {group.numel:,})" for group, n in numels if n != group.numel]
    found = (("it lacks", missing), ("it adds", extra), ("other shapes in", resized))
    lines = [f"{what} {_first(names)}" for what, names in found if names]
    return lines or ["parameters outside the mask's groups have other names or shapes"]


def _first(names: Sequence[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
