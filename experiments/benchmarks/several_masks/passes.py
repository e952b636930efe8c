"""Several candidates' predictions in one pass of a U-Net: by vmap, or with batches one after another in its layers.

`stacked` holds tensors `(K, ...)` under the U-Net's names: one tuned tensor for each of K candidates. All other tensors
are shared. A way takes noisy latents `(K, B, C, h, w)`, or `(B, C, h, w)` that all candidates share, and gives `(K, B,
C, h, w)`.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

Tensor = torch.Tensor
Stacked = Mapping[str, Tensor]
Way = Callable[[Any, Stacked, Tensor, Tensor, Tensor], Tensor]
Convolve = Callable[[torch.nn.Conv2d, Tensor, Tensor | None, Tensor], Tensor]


def by_vmap(unet: Any, stacked: Stacked, noisy: Tensor, timesteps: Tensor, text: Tensor) -> Tensor:
    """What comes before the first tuned layer is computed once where the candidates share their batch."""

    def one(tuned: dict[str, Tensor], latents: Tensor) -> Tensor:
        predicted: Tensor = functional_call(unet, tuned, (latents, timesteps, text), {"return_dict": False})[0]
        return predicted

    shared = None if noisy.ndim == 4 else 0
    predicted: Tensor = torch.vmap(one, in_dims=(0, shared))(dict(stacked), noisy)
    return predicted


def by_vmap_plainly(unet: Any, stacked: Stacked, noisy: Tensor, timesteps: Tensor, text: Tensor) -> Tensor:
    """Attention as matrix products: on a CPU, vmap computes the fused one candidate by candidate."""
    with sdpa_kernel(SDPBackend.MATH):
        return by_vmap(unet, stacked, noisy, timesteps, text)


def joined(convolve: Convolve, unet: Any, stacked: Stacked, noisy: Tensor, timesteps: Tensor, text: Tensor) -> Tensor:
    """All candidates' batches as one of K * B; a layer that is tuned tells the candidates apart."""
    count = len(next(iter(stacked.values())))
    latents = noisy.expand(count, *noisy.shape) if noisy.ndim == 4 else noisy
    times = timesteps if timesteps.ndim == 0 else timesteps.repeat(count)
    with _told_apart(unet, stacked, convolve):
        predicted: Tensor = unet(latents.flatten(0, 1), times, text.repeat(count, 1, 1), return_dict=False)[0]
    return predicted.view(count, -1, *predicted.shape[1:])


@contextmanager
def _told_apart(unet: Any, stacked: Stacked, convolve: Convolve) -> Iterator[None]:
    """Inside, layers that hold tuned tensors give each candidate's share of the batch its own."""
    owned: dict[str, dict[str, Tensor]] = {}
    for name, values in stacked.items():
        owner, _, leaf = name.rpartition(".")
        owned.setdefault(owner, {})[leaf] = values
    layers = {owner: unet.get_submodule(owner) for owner in owned}
    count = len(next(iter(stacked.values())))
    for owner, layer in layers.items():
        tensors = [owned[owner].get(leaf, _repeated(getattr(layer, leaf), count)) for leaf in ("weight", "bias")]
        layer.forward = partial(FORWARDS.get(type(layer), convolve), layer, *tensors)
    try:
        yield
    finally:
        for layer in layers.values():
            del layer.forward


def _repeated(tensor: Tensor | None, count: int) -> Tensor | None:
    return None if tensor is None else tensor.expand(count, *tensor.shape)


def _linear(_layer: torch.nn.Linear, weight: Tensor, bias: Tensor | None, given: Tensor) -> Tensor:
    rows = given.reshape(len(weight), -1, given.shape[-1])
    made = torch.bmm(rows, weight.mT) if bias is None else torch.baddbmm(bias[:, None], rows, weight.mT)
    return made.view(*given.shape[:-1], -1)


def _group_norm(layer: torch.nn.GroupNorm, weight: Tensor, bias: Tensor, given: Tensor) -> Tensor:
    plain = F.group_norm(given, layer.num_groups, eps=layer.eps)
    shares = plain.view(len(weight), -1, given.shape[1], given[0, 0].numel())
    return torch.addcmul(bias[:, None, :, None], shares, weight[:, None, :, None]).view_as(given)


def _layer_norm(layer: torch.nn.LayerNorm, weight: Tensor, bias: Tensor, given: Tensor) -> Tensor:
    plain = F.layer_norm(given, layer.normalized_shape, eps=layer.eps).view(len(weight), -1, given.shape[-1])
    return torch.addcmul(bias[:, None], plain, weight[:, None]).view_as(given)


FORWARDS: Mapping[type, Callable[..., Tensor]] = {
    torch.nn.Linear: _linear,
    torch.nn.GroupNorm: _group_norm,
    torch.nn.LayerNorm: _layer_norm,
}


def in_turn(layer: torch.nn.Conv2d, weight: Tensor, bias: Tensor | None, given: Tensor) -> Tensor:
    """One convolution for each candidate."""
    biases = [None] * len(weight) if bias is None else list(bias)
    shares = zip(given.chunk(len(weight)), weight, biases, strict=True)
    return torch.cat([F.conv2d(share, own, add, layer.stride, layer.padding) for share, own, add in shares])


def as_groups(layer: torch.nn.Conv2d, weight: Tensor, bias: Tensor | None, given: Tensor) -> Tensor:
    """One grouped convolution, which is what vmap makes of it: the candidates' channels side by side."""
    count = len(weight)
    side = given.view(count, -1, *given.shape[1:]).transpose(0, 1).flatten(1, 2)
    biases = None if bias is None else bias.flatten()
    made = F.conv2d(side, weight.flatten(0, 1), biases, layer.stride, layer.padding, groups=count)
    return made.view(len(made), count, -1, *made.shape[2:]).transpose(0, 1).flatten(0, 1)


WAYS: Mapping[str, Way] = {
    "vmap": by_vmap,
    "vmap, plain attention": by_vmap_plainly,
    "joined": partial(joined, in_turn),
    "joined, grouped convolutions": partial(joined, as_groups),
}
