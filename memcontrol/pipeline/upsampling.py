"""An upsampling by repeating pixels and the convolution after it, as the four smaller convolutions that they are."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from diffusers.models.upsampling import Upsample2D
from torch import nn

TAPS = (((1.0, 0.0, 0.0), (0.0, 1.0, 1.0)), ((1.0, 1.0, 0.0), (0.0, 0.0, 1.0)))
"""For a pixel at an even and at an odd place: which of three taps each of the two pixels that it sees is under."""


def quartered(weight: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Kernels `(K, C, 2, 2)` for the four pixels that one becomes, of a kernel `(K, C, 3, 3)` for repeated pixels.

    A window of three on repeated pixels sees two that differ: their taps are added beforehand. The four are in the
    order of rows, then columns.
    """
    taps = torch.tensor(TAPS, dtype=torch.float64, device=weight.device)
    found = torch.einsum("apy,bqx,kcyx->abkcpq", taps, taps, weight.double()).to(weight.dtype).flatten(0, 1)
    return tuple(kernel.contiguous(memory_format=torch.channels_last) for kernel in found)


def upsampled(images: torch.Tensor, kernels: tuple[torch.Tensor, ...], bias: torch.Tensor | None) -> torch.Tensor:
    """What a convolution of 3 x 3 gives on images of twice the size, each pixel repeated.

    Args:
        images: `(B, C, H, W)`.
        kernels: `quartered`.
        bias: `(K,)`.

    Returns:
        `(B, K, 2H, 2W)`, channels last.
    """
    count, _, height, width = images.shape
    found = images.new_empty((count, height, 2, width, 2, len(kernels[0])))
    for place, kernel in enumerate(kernels):
        row, column = divmod(place, 2)
        windows = nn.functional.conv2d(images, kernel, bias, padding=1).permute(0, 2, 3, 1)
        found[:, :, row, :, column] = windows[:, row : row + height, column : column + width]
    return found.view(count, 2 * height, 2 * width, -1).permute(0, 3, 1, 2)


def upsample_in_quarters(model: nn.Module) -> None:
    """Have a frozen model upsample so wherever it can: four ninths of the arithmetic, the same up to rounding."""
    for module in model.modules():
        if isinstance(module, Upsample2D) and _is_plain(module):
            kernels, bias = quartered(module.conv.weight), module.conv.bias
            module.forward = partial(_forward, module, kernels, bias)


def _forward(
    module: Any, kernels: tuple[torch.Tensor, ...], bias: torch.Tensor | None, images: torch.Tensor, size: Any = None
) -> torch.Tensor:
    if size is not None:
        whole: torch.Tensor = Upsample2D.forward(module, images, size)
        return whole
    return upsampled(images, kernels, bias)


def _is_plain(module: Any) -> bool:
    """Whether a layer repeats pixels, then convolves them, and nothing else."""
    conv = getattr(module, "conv", None)
    return (
        module.interpolate
        and module.norm is None
        and isinstance(conv, nn.Conv2d)
        and (conv.kernel_size, conv.stride, conv.padding, conv.dilation) == ((3, 3), (1, 1), (1, 1), (1, 1))
        and (conv.groups, conv.padding_mode) == (1, "zeros")
    )
