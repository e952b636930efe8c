"""Tune the chosen parameters themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class FullTuning:
    """Every chosen parameter is optimised as it is."""

    @contextmanager
    def attached(self, unet: torch.nn.Module, names: Sequence[str]) -> Iterator[dict[str, torch.nn.Parameter]]:
        """Make `names` trainable; on exit their values and flags are as before."""
        chosen = {name: unet.get_parameter(name) for name in names}
        kept = {name: parameter.detach().clone() for name, parameter in chosen.items()}
        for parameter in chosen.values():
            parameter.requires_grad_(True)
        try:
            yield chosen
        finally:
            for name, parameter in chosen.items():
                parameter.requires_grad_(False)
                parameter.grad = None
                parameter.data.copy_(kept[name])
