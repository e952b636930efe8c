"""Attention whose heads are narrow, over few tokens, as the matrix products that it is."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import nn
from torch.autograd.function import once_differentiable

WIDTH = 8
"""Numbers of a token in a head, at most: PyTorch's fused attention is slow for fewer than a vector register holds."""
PAIRS = 64 * 64
"""Of a query and a key in an image, at most: for more, the fused attention is as fast, and keeps none of them."""


class NarrowAttention(AttnProcessor2_0):  # type: ignore[misc]
    """What diffusers' own processor computes, up to rounding, by batched products where it takes longer.

    The products have the tokens, and not a head's few numbers, as their last dimension, which is what makes them fast.
    """

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> torch.Tensor:
        """As `AttnProcessor2_0`: `(B, N, D)`, or `(B, D, H, W)` in a U-Net of pixels."""
        given = hidden_states
        tokens = given.flatten(2).transpose(1, 2) if given.ndim == 4 else given
        told = tokens if encoder_hidden_states is None else encoder_hidden_states
        mixed_precision = torch.is_autocast_enabled(tokens.device.type)
        is_left = attention_mask is not None or not _is_simple(attn) or mixed_precision
        if is_left or tokens.shape[1] * told.shape[1] > PAIRS:
            found: torch.Tensor = super().__call__(
                attn, given, encoder_hidden_states, attention_mask, temb, *args, **kwargs
            )
            return found
        if attn.group_norm is not None:
            normed = attn.group_norm(tokens.transpose(1, 2)).transpose(1, 2)
            tokens, told = normed, normed if encoder_hidden_states is None else told
        mixed = attended(attn.to_q(tokens), attn.to_k(told), attn.to_v(told), attn.heads)
        mixed = attn.to_out[1](attn.to_out[0](mixed))
        if given.ndim == 4:
            mixed = mixed.transpose(1, 2).reshape(given.shape)
        if attn.residual_connection:
            mixed = mixed + given
        scaled: torch.Tensor = mixed / attn.rescale_output_factor
        return scaled


def attended(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, heads: int) -> torch.Tensor:
    """Scaled dot-product attention `(B, N, D)` of queries `(B, N, D)` to keys and values `(B, M, D)`.

    Args:
        heads: each has D / heads numbers of a token.

    Source: Vaswani et al. 2017 (arXiv 1706.03762), section 3.2.
    """
    images, tokens, numbers = query.shape
    queries, keys, values = (_in_heads(one, heads) for one in (query, key, value))
    found: torch.Tensor = _Mixture.apply(queries, keys, values, (numbers // heads) ** -0.5)[0]  # type: ignore[no-untyped-call]
    # Tokens beside each other again: PyTorch would copy them for the layer after, and add its bias apart.
    return found.view(images, heads, -1, tokens).permute(0, 3, 1, 2).reshape(images, tokens, numbers).contiguous()


class _Mixture(torch.autograd.Function):
    """Values mixed by attention, `(H, D, N)`, and its weights `(H, M, N)`, of all images' heads.

    Autograd's own gradients have a head's few numbers as their last dimension, and copy the weights' to turn them.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        weights = _scaled(keys, queries.transpose(1, 2), scale).softmax(dim=1)
        return torch.bmm(values.transpose(1, 2), weights), weights

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
        *tensors, ctx.scale = inputs
        ctx.save_for_backward(*tensors, output[1])
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        queries, keys, values, weights = ctx.saved_tensors
        of_values = torch.bmm(given, weights.transpose(1, 2))
        of_scores = torch._softmax_backward_data(torch.bmm(values, given), weights, 1, weights.dtype)
        of_queries = _scaled(keys.transpose(1, 2), of_scores, ctx.scale)
        of_keys = _scaled(queries.transpose(1, 2), of_scores.transpose(1, 2), ctx.scale)
        return of_queries.transpose(1, 2), of_keys.transpose(1, 2), of_values.transpose(1, 2), None


def _scaled(ones: torch.Tensor, others: torch.Tensor, scale: float) -> torch.Tensor:
    """Batched products, times a number."""
    return torch.baddbmm(ones.new_empty(()), ones, others, beta=0, alpha=scale)


def attend_by_products(model: nn.Module) -> None:
    """Have narrow attention be done by products wherever diffusers' default processor does it in a model."""
    for module in model.modules():
        if isinstance(module, Attention) and type(module.processor) is AttnProcessor2_0 and _is_narrow(module):
            module.set_processor(NarrowAttention())


def _is_narrow(attn: Any) -> bool:
    return bool(attn.inner_dim // attn.heads <= WIDTH)


def _is_simple(attn: Any) -> bool:
    """Whether there is nothing to it but projections, a norm over groups of channels, and a residual connection."""
    return attn.spatial_norm is None and not attn.norm_cross and attn.norm_q is None and attn.norm_k is None


def _in_heads(tokens: torch.Tensor, heads: int) -> torch.Tensor:
    """`(B, N, D)` as `(B * heads, N, D / heads)`."""
    images, count, numbers = tokens.shape
    return tokens.view(images, count, heads, numbers // heads).transpose(1, 2).reshape(images * heads, count, -1)
