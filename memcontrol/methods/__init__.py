"""Ways of tuning a chosen group of parameters; each method is one file and one entry of `METHODS`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Protocol

import torch

from memcontrol.methods.full import FullTuning


class TuningMethod(Protocol):
    """How chosen parameters of a U-Net are made trainable, and how the U-Net is put back."""

    def attached(
        self, unet: torch.nn.Module, names: Sequence[str]
    ) -> AbstractContextManager[dict[str, torch.nn.Parameter]]:
        """Inside: the parameters to optimise, by name. On exit the U-Net is bit for bit as before."""


METHODS: Mapping[str, TuningMethod] = {"full": FullTuning()}


@contextmanager
def tuned(unet: torch.nn.Module, chosen: Mapping[str, Sequence[str]]) -> Iterator[dict[str, torch.nn.Parameter]]:
    """Freeze `unet` but for the parameters that each method tunes, and restore what was touched on exit.

    Args:
        chosen: method name -> dotted parameter names.

    Yields:
        Every parameter to optimise, by name.
    """
    unet.requires_grad_(False)
    with ExitStack() as stack:
        parameters: dict[str, torch.nn.Parameter] = {}
        for method, names in chosen.items():
            parameters |= stack.enter_context(METHODS[method].attached(unet, names))
        yield parameters
