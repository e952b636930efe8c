"""The U-Net and the decoder in other number formats and memory layouts."""

import copy
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

Tensor = torch.Tensor
CHANNELS_LAST = torch.channels_last


class Through(torch.nn.Module):
    """A U-Net called under `around`, its inputs changed before, its prediction float32 afterwards.

    Args:
        changed: what is done to latents and captions.
    """

    def __init__(
        self, unet: Any, changed: Callable[[Tensor], Tensor], around: Callable[[], AbstractContextManager[Any]]
    ) -> None:
        super().__init__()
        self.unet, self.changed, self.around = unet, changed, around

    @property
    def config(self) -> Any:
        return self.unet.config

    def forward(self, latents: Tensor, timestep: Tensor, text: Tensor, *, return_dict: bool) -> tuple[Tensor]:
        with self.around():
            predicted = self.unet(self.changed(latents), timestep, self.changed(text), return_dict=return_dict)[0]
        return (predicted.float().contiguous(),)


def autocast() -> AbstractContextManager[Any]:
    return torch.autocast("cpu", torch.bfloat16)


def as_they_are(tensor: Tensor) -> Tensor:
    return tensor


def halved(tensor: Tensor) -> Tensor:
    return tensor.to(torch.bfloat16)


def last(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=CHANNELS_LAST) if tensor.ndim == 4 else tensor


def lone(unet: Any, **how: Any) -> Any:
    """A copy of the weights, so that the pipeline's own stay as they are."""
    return copy.deepcopy(unet).to(**how)


SAMPLING: Mapping[str, Callable[[Any], Any]] = {
    "float32": lambda unet: Through(unet, as_they_are, nullcontext),
    "inference mode": lambda unet: Through(unet, as_they_are, torch.inference_mode),
    "bf16 autocast": lambda unet: Through(unet, as_they_are, autocast),
    "bf16 U-Net": lambda unet: Through(lone(unet, dtype=torch.bfloat16), halved, nullcontext),
    "channels last": lambda unet: Through(lone(unet, memory_format=CHANNELS_LAST), last, nullcontext),
    "channels last, bf16 autocast": lambda unet: Through(lone(unet, memory_format=CHANNELS_LAST), last, autocast),
    "channels last, bf16 U-Net": lambda unet: Through(
        lone(unet, memory_format=CHANNELS_LAST, dtype=torch.bfloat16), lambda given: last(halved(given)), nullcontext
    ),
}
"""A U-Net without gradients from the pipeline's own."""


@dataclass(frozen=True)
class Training:
    """How a training step is computed.

    Attributes:
        weights_last, latents_last: which of the two have their channels last.
    """

    around: Callable[[], AbstractContextManager[Any]] = nullcontext
    weights_last: bool = False
    latents_last: bool = False

    def model(self, unet: Any) -> Any:
        own = unet.to(memory_format=CHANNELS_LAST) if self.weights_last else unet
        return Through(own, last if self.latents_last else as_they_are, self.around)


TRAINING: Mapping[str, Training] = {
    "float32": Training(),
    "bf16 autocast": Training(autocast),
    "channels last, contiguous latents": Training(weights_last=True),
    "channels last": Training(weights_last=True, latents_last=True),
    "channels last, bf16 autocast": Training(autocast, weights_last=True, latents_last=True),
}


@dataclass(frozen=True)
class Decoding:
    """How the decoder is computed; ours has channels last in float32."""

    last: bool = True
    dtype: torch.dtype = torch.float32
    around: Callable[[], AbstractContextManager[Any]] = nullcontext


DECODER: Mapping[str, Decoding] = {
    "float32, channels last": Decoding(),
    "float32, contiguous": Decoding(last=False),
    "bf16 autocast": Decoding(around=autocast),
    "bf16 decoder": Decoding(dtype=torch.bfloat16),
    "bf16 decoder, contiguous": Decoding(last=False, dtype=torch.bfloat16),
}
