"""1 x 1 convolutions as the matrix products that they are."""

from __future__ import annotations

import torch
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import nn


def pointwise(images: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """A 1 x 1 convolution of stride 1, without padding and groups, as one matrix product for each image.

    Args:
        images: `(B, C, H, W)`.
        weight: `(K, C, 1, 1)`.
        bias: `(K,)`.
    """
    count, channels, height, width = images.shape
    columns = images.reshape(count, channels, height * width)
    matrices = weight.view(1, len(weight), channels).expand(count, -1, -1)
    products = torch.bmm(matrices, columns) if bias is None else torch.baddbmm(bias[:, None], matrices, columns)
    return products.view(count, len(weight), height, width)


def pointwise_tokens(images: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """`pointwise`, whose result has a pixel's channels beside each other in memory, as tokens have their numbers."""
    count, channels, height, width = images.shape
    pixels = images.reshape(count, channels, height * width).transpose(1, 2)
    matrices = weight.view(1, len(weight), channels).transpose(1, 2).expand(count, -1, -1)
    products = torch.bmm(pixels, matrices) if bias is None else torch.baddbmm(bias, pixels, matrices)
    return products.view(count, height, width, len(weight)).permute(0, 3, 1, 2)


def multiply_pointwise(model: nn.Module) -> None:
    """Have every plain 1 x 1 convolution of a model multiply matrices; what it gives differs by rounding alone.

    On a CPU a convolution's tensors are laid out anew for it, which takes several times as long as the arithmetic of
    one pixel's channels where images are small (`experiments/benchmarks/tracing`). What makes a transformer's tokens
    of images lays them out as tokens, so that none of its layers has to.
    """
    makers = [module.proj_in for module in model.modules() if isinstance(module, Transformer2DModel)]
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and _is_pointwise(module):
            makes_tokens = any(module is maker for maker in makers)
            module._conv_forward = pointwise_tokens if makes_tokens else pointwise  # type: ignore[assignment]


def _is_pointwise(module: nn.Conv2d) -> bool:
    return (module.kernel_size, module.stride, module.padding, module.groups) == ((1, 1), (1, 1), (0, 0), 1)
