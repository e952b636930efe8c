"""Ways of tuning chosen parameters of a U-Net; each method is one file and one entry of `METHODS`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from memcontrol.errors import ModelError
from memcontrol.methods.attachment import Attachment, Resources, Savable, Tunable, TuningMethod
from memcontrol.methods.difffit import DiffFit
from memcontrol.methods.full import FullTuning
from memcontrol.methods.lora import LoRA
from memcontrol.methods.svdiff import SVDiff

__all__ = ["METHODS", "Resources", "Tunable", "Tuning", "changed_names", "tuned", "tuned_numel"]

METHODS: Mapping[str, TuningMethod] = {"full": FullTuning(), "difffit": DiffFit(), "svdiff": SVDiff(), "lora": LoRA()}
"""In the order in which they are attached: `full` comes first, since it finds parameters by their plain names."""


@dataclass
class Tuning:
    """All methods of a mask, attached to a U-Net.

    Attributes:
        parameters: every parameter to optimise, by name.
        attachments: by the method's name.
        is_folded: whether the U-Net's layers are plain ones now.
    """

    parameters: Mapping[str, torch.nn.Parameter]
    attachments: Mapping[str, Attachment]
    is_folded: bool = False

    @contextmanager
    def folded(self) -> Iterator[None]:
        """Inside, the U-Net has plain layers whose weights hold what was tuned, up to rounding: to sample, to save."""
        with ExitStack() as stack:
            for attachment in self.attachments.values():
                stack.enter_context(attachment.folded())
            self.is_folded = True
            stack.callback(setattr, self, "is_folded", False)
            yield

    def tensors(self) -> dict[str, torch.Tensor]:
        """The plain U-Net's parameters that are functions of those that train, by dotted name; none while folded."""
        if self.is_folded:
            return {}
        return {name: tensor for one in self.attachments.values() for name, tensor in one.tensors().items()}

    def save(self, folder: Path) -> None:
        """Write what has a file format of its own, each method into the folder of its name; outside `folded` or in."""
        for name, attachment in self.attachments.items():
            if isinstance(attachment, Savable):
                attachment.save(folder / name)


def tuned_numel(tunable: Tunable, unet: torch.nn.Module) -> int:
    """How many numbers a tunable's method trains in this U-Net; works on the meta device.

    Raises:
        SpaceError: the method does not fit one of the layers.
    """
    method = METHODS[tunable.method]
    return sum(method.numel(unet, parameter, tunable.settings) for parameter in tunable.parameters)


def changed_names(unet: torch.nn.Module, tunables: Sequence[Tunable]) -> tuple[str, ...]:
    """Parameters of a plain U-Net that hold what was tuned once it is folded, in the U-Net's order; all others stay.

    Args:
        unet: with nothing attached, or inside `Tuning.folded`.

    Raises:
        SpaceError: a method does not fit one of the layers.
        ModelError: the U-Net lacks one of the parameters under its plain name.
    """
    chosen = {
        name
        for tunable in tunables
        for parameter in tunable.parameters
        for name in METHODS[tunable.method].changes(unet, parameter)
    }
    names = tuple(name for name, _ in unet.named_parameters() if name in chosen)
    if missing := sorted(chosen.difference(names)):
        raise ModelError(f"this U-Net has no parameter {missing[0]}: give a plain one, with nothing attached")
    return names


@contextmanager
def tuned(unet: torch.nn.Module, tunables: Sequence[Tunable], resources: Resources | None = None) -> Iterator[Tuning]:
    """Freeze `unet` but for what the tunables' methods train, and restore it bit for bit on exit."""
    unet.requires_grad_(False)
    with ExitStack() as stack:
        attachments: dict[str, Attachment] = {}
        for name, method in METHODS.items():
            if chosen := [tunable for tunable in tunables if tunable.method == name]:
                attachments[name] = stack.enter_context(method.attached(unet, chosen, resources or Resources()))
        parameters = {key: value for one in attachments.values() for key, value in one.parameters.items()}
        yield Tuning(parameters, attachments)
