"""Tune the chosen parameters themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch

from memcontrol.methods.attachment import Resources, Settings, Tunable


@dataclass(frozen=True)
class FullAttachment:
    """Parameters of the U-Net itself; they are plain already."""

    parameters: Mapping[str, torch.nn.Parameter]

    def folded(self) -> AbstractContextManager[None]:
        """Nothing to fold."""
        return nullcontext()

    def tensors(self) -> Mapping[str, torch.Tensor]:
        """None is made of others."""
        return {}


@dataclass(frozen=True)
class FullTuning:
    """Every chosen parameter is optimised as it is."""

    def numel(self, unet: torch.nn.Module, parameter: str, settings: Settings) -> int:
        """As many as the parameter holds."""
        return unet.get_parameter(parameter).numel()

    def changes(self, unet: torch.nn.Module, parameter: str) -> tuple[str, ...]:
        """The parameter itself."""
        return (parameter,)

    @contextmanager
    def attached(
        self, unet: torch.nn.Module, tunables: Sequence[Tunable], resources: Resources
    ) -> Iterator[FullAttachment]:
        """Make the parameters trainable; on exit their values and flags are as before."""
        chosen = {name: unet.get_parameter(name) for tunable in tunables for name in tunable.parameters}
        kept = {name: parameter.detach().clone() for name, parameter in chosen.items()}
        for parameter in chosen.values():
            parameter.requires_grad_(True)
        try:
            yield FullAttachment(chosen)
        finally:
            for name, parameter in chosen.items():
                parameter.requires_grad_(False)
                parameter.grad = None
                parameter.data.copy_(kept[name])
