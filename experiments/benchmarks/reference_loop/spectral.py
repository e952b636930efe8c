"""Spectral shifts as the reference loop has them: every layer's weight is rebuilt from its factors when it is used."""

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn.utils import parametrize

Factors = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
LAYERS = (nn.Conv2d, nn.Linear, nn.GroupNorm, nn.LayerNorm)


class RebuiltWeight(nn.Module):
    """A weight as `u diag(relu(s + shift)) vh`, multiplied out whenever the layer asks for it."""

    def __init__(self, factors: Factors) -> None:
        super().__init__()
        self.u, self.s, self.vh = factors
        self.shift = nn.Parameter(torch.zeros_like(self.s), requires_grad=False)

    def forward(self, original: torch.Tensor) -> torch.Tensor:
        """The weight in its own shape."""
        return ((self.u * torch.relu(self.s + self.shift)) @ self.vh).reshape(original.shape)


def decompositions(unet: nn.Module) -> dict[str, Factors]:
    """Of every layer's weight, as a matrix `(out, rest)`; a norm's is `(1, n)`."""
    found = {}
    for name, module in unet.named_modules():
        if isinstance(module, LAYERS) and module.weight is not None:
            weight = module.weight.detach()
            matrix = weight[None] if weight.ndim == 1 else weight.flatten(1)
            found[name] = torch.linalg.svd(matrix, full_matrices=False)
    return found


def attach(unet: nn.Module, factors: Mapping[str, Factors]) -> dict[str, nn.Parameter]:
    """Have all of these layers rebuild their weights; gives each weight's shift by the weight's name."""
    shifts = {}
    for name, parts in factors.items():
        rebuilt = RebuiltWeight(parts)
        parametrize.register_parametrization(unet.get_submodule(name), "weight", rebuilt, unsafe=True)
        shifts[f"{name}.weight"] = rebuilt.shift
    return shifts


def detach(unet: nn.Module, factors: Mapping[str, Factors]) -> None:
    """Leave plain layers with their old weights."""
    for name in factors:
        parametrize.remove_parametrizations(unet.get_submodule(name), "weight", leave_parametrized=False)
