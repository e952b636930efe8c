"""What one image costs, counted on networks without weights: operations, and bytes kept for gradients."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from memcontrol.pipeline.outline import PipelineOutline

FLOAT = 4
"""Bytes of a float32, in which weights, gradients and averages are kept."""
WORKSPACES = 3
"""A forward pass without gradients is taken to hold this many of its largest tensors at once."""


@dataclass(frozen=True)
class ImageCost:
    """Floating-point operations of one image, a multiplication and an addition counting as two.

    Attributes:
        forward: of the U-Net, once.
        encode, decode: of the autoencoder; 0 where there is none.
        text: of one caption; 0 where there is none.
        decode_bytes: memory of decoding, beside the weights.
    """

    forward: int
    encode: int
    decode: int
    text: int
    decode_bytes: int


@dataclass(frozen=True)
class TrainingCost:
    """One image of a training step.

    Attributes:
        flops: forward and backward.
        saved_bytes: activations kept for the backward pass.
    """

    flops: int
    saved_bytes: int


def image_cost(outline: PipelineOutline) -> ImageCost:
    """What the pipeline's own parts cost for one image.

    U-Net and autoencoder are counted by torch's counter. The text encoder is counted by its size: two operations for
    each parameter and token, word and position tables left out.
    """
    with torch.no_grad():
        forward = _flops(lambda: _denoise(outline))
        if outline.vae is None:
            return ImageCost(forward, 0, 0, 0, 0)
        pixels = torch.empty(1, 3, outline.resolution, outline.resolution, device="meta")
        latents = torch.empty(1, *outline.latent_shape, device="meta")
        encode = _flops(lambda: outline.vae.encode(pixels))
        with _Largest() as watch:
            decode = _flops(lambda: outline.vae.decode(latents))
    layers = sum(p.numel() for name, p in outline.text_encoder.named_parameters() if "embedding" not in name)
    return ImageCost(forward, encode, decode, 2 * layers * outline.text_length, WORKSPACES * watch.bytes)


def training_cost(outline: PipelineOutline, names: Collection[str], *, checkpointing: bool = False) -> TrainingCost:
    """What a step costs for one image where the U-Net's parameters of these names train.

    Args:
        checkpointing: whether activations are computed again in the backward pass instead of kept.
    """
    with _training(outline.unet, names, checkpointing):
        saved: list[int] = []
        return TrainingCost(_flops(lambda: _trained(outline, saved)), sum(saved))


def _denoise(outline: PipelineOutline) -> Any:
    latents = torch.empty(1, *outline.latent_shape, device="meta")
    timestep = torch.zeros(1, dtype=torch.long, device="meta")
    text = [torch.empty(1, outline.text_length, outline.text_width, device="meta")] if outline.text_length else []
    return outline.unet(latents, timestep, *text, return_dict=False)[0]


def _flops(run: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


@contextmanager
def _training(unet: Any, names: Collection[str], checkpointing: bool) -> Iterator[None]:
    chosen = set(names)
    for name, parameter in unet.named_parameters():
        parameter.requires_grad_(name in chosen)
    if checkpointing:
        # diffusers checkpoints in training mode alone.
        unet.enable_gradient_checkpointing()
        unet.train()
    try:
        yield
    finally:
        unet.zero_grad()
        unet.requires_grad_(False)
        if checkpointing:
            unet.disable_gradient_checkpointing()
            unet.eval()


def _trained(outline: PipelineOutline, saved: list[int]) -> None:
    """A forward and a backward pass; adds the bytes of each tensor kept between them, parameters left out."""
    own = {parameter.untyped_storage()._cdata for parameter in outline.unet.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        # The tensor itself is held, so that no other one is given its place in memory while this goes on.
        kept.setdefault(tensor.untyped_storage()._cdata, tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = _denoise(outline)
    saved += [tensor.untyped_storage().nbytes() for key, tensor in kept.items() if key not in own]
    result.sum().backward()


class _Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the size of the largest tensor that is made while it is entered."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor):
            self.bytes = max(self.bytes, int(made.untyped_storage().nbytes()))
        return made
