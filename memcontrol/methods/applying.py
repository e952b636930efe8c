"""Methods attached to a U-Net that a training loop of one's own tunes, until `fold` leaves plain, tuned weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch

from memcontrol.errors import ModelError
from memcontrol.methods import Resources, Tunable, Tuning, changed_names, tuned

ATTRIBUTE = "_memcontrol_applied"


@dataclass(frozen=True)
class Applied:
    """What `apply` attached to a U-Net.

    Attributes:
        tuning: the attached methods.
        names: tensors of the plain U-Net that folding changes.
        flags: what of the U-Net was trainable before.
        stack: detaches when closed.
    """

    tuning: Tuning
    names: tuple[str, ...]
    flags: dict[str, bool]
    stack: ExitStack


def apply(unet: torch.nn.Module, tunables: Sequence[Tunable], resources: Resources) -> list[torch.nn.Parameter]:
    """Freeze a U-Net but for what the tunables' methods train, and give that, in the U-Net's order.

    The methods stay attached until `fold`; the U-Net may be moved to another device meanwhile.

    Raises:
        ModelError: a mask is applied to this U-Net already.
        SpaceError: a method does not fit one of the layers.
    """
    refuse_applied(unet)
    flags = _flags(unet)
    names = changed_names(unet, tunables)
    with ExitStack() as stack:
        tuning = stack.enter_context(tuned(unet, tunables, resources))
        # On the U-Net itself, so that it goes when the U-Net goes.
        vars(unet)[ATTRIBUTE] = Applied(tuning, names, flags, stack.pop_all())
    chosen = {id(parameter) for parameter in tuning.parameters.values()}
    return [parameter for parameter in unet.parameters() if id(parameter) in chosen]


def fold(unet: torch.nn.Module) -> None:
    """End what `Mask.apply` began: plain layers again, whose weights hold what was tuned.

    Call it before saving the U-Net; an optimizer that held the tuned parameters is of no use afterwards. What was
    trainable before is so again.

    Args:
        unet: the one that `apply` was given, not a wrapper around it (`accelerator.unwrap_model` takes that off).

    Raises:
        ModelError: no mask is applied to it.
    """
    applied = vars(unet).get(ATTRIBUTE)
    if not isinstance(applied, Applied):
        raise ModelError(
            f"no mask is applied to this {type(unet).__name__}: give the U-Net that apply was given, without wrappers"
        )
    values = plain_values(unet, applied.tuning, applied.names)
    del vars(unet)[ATTRIBUTE]
    applied.stack.close()
    put_into(dict(unet.named_parameters()), values)
    _set_flags(unet, applied.flags)


def refuse_applied(unet: torch.nn.Module) -> None:
    """Refuse a U-Net that a mask is applied to already.

    Raises:
        ModelError: it is.
    """
    if ATTRIBUTE in vars(unet):
        raise ModelError("a mask is applied to this U-Net already: call memcontrol.fold(unet) first, or load it anew")


def plain_values(unet: torch.nn.Module, tuning: Tuning, names: Sequence[str]) -> dict[str, torch.Tensor]:
    """Copies of the named tensors of the plain U-Net, with what was tuned in them; outside `Tuning.folded`."""
    with tuning.folded():
        return {name: unet.get_parameter(name).detach().clone() for name in names}


@torch.no_grad()
def put_into(parameters: Mapping[str, torch.nn.Parameter], values: Mapping[str, torch.Tensor]) -> None:
    """Write values into the parameters of the same names, on whichever device these are."""
    for name, value in values.items():
        parameters[name].copy_(value)


@contextmanager
def flags_kept(unet: torch.nn.Module) -> Iterator[None]:
    """On exit, what was trainable before is so again."""
    flags = _flags(unet)
    try:
        yield
    finally:
        _set_flags(unet, flags)


def _flags(unet: torch.nn.Module) -> dict[str, bool]:
    return {name: parameter.requires_grad for name, parameter in unet.named_parameters()}


def _set_flags(unet: torch.nn.Module, flags: Mapping[str, bool]) -> None:
    for name, parameter in unet.named_parameters():
        parameter.requires_grad_(flags[name])
