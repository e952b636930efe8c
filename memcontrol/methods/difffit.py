"""DiffFit: tune factors that scale the outputs of attention and feed-forward layers, starting at one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from memcontrol.errors import SpaceError
from memcontrol.methods.attachment import LayersAttachment, Resources, Settings, Tunable, owner, replaced


class ScaledLayer:
    """A linear layer whose output is multiplied by its factors, one vector or the product of two.

    While attached the factors are parameters of the layer, so that several processes average their gradients.

    Attributes:
        factors: each `(out_features,)` float32 at least, by the name that it has in the layer; half precision would
            lose small steps.
    """

    def __init__(self, module: torch.nn.Linear, count: int) -> None:
        self.module = module
        kind = torch.promote_types(module.weight.dtype, torch.float32)
        ones = module.weight.new_ones(module.out_features, dtype=kind)
        self.factors = {f"difffit_scale_{place}": torch.nn.Parameter(ones.clone()) for place in range(count)}
        self.unscaled: Callable[[torch.Tensor], torch.Tensor] = module.forward
        self.own = vars(module).get("forward")

    def attach(self) -> None:
        """Scale the layer's outputs from now on."""
        for name, factor in self.factors.items():
            self.module.register_parameter(name, factor)
        self.module.forward = self._scaled  # type: ignore[method-assign]

    def detach(self) -> None:
        """Leave the layer as it was."""
        del self.module.forward
        if self.own is not None:
            self.module.forward = self.own  # type: ignore[method-assign]
        for name in self.factors:
            delattr(self.module, name)

    def scale(self) -> torch.Tensor:
        """The product of the factors that the layer has now, `(out_features,)`."""
        first, *others = map(self.module.get_parameter, self.factors)
        product: torch.Tensor = first
        for factor in others:
            product = product * factor
        return product

    def tensors(self) -> dict[str, torch.Tensor]:
        """The weight, and the bias where there is one, that give the scaled outputs, by the name in the layer."""
        kind, scale = self.module.weight.dtype, self.scale()
        found = {"weight": (self.module.weight * scale[:, None]).to(kind)}
        if self.module.bias is not None:
            found["bias"] = (self.module.bias * scale).to(kind)
        return found

    def _scaled(self, input: torch.Tensor) -> torch.Tensor:
        output = self.unscaled(input)
        scaled = output * self.scale()
        # Where autocast rounds outputs below the weights' type, they go on in that of the factors.
        return scaled.to(output.dtype) if self.module.weight.dtype == output.dtype else scaled

    @contextmanager
    def folded(self) -> Iterator[None]:
        """Inside, the layer is a plain one whose weight and bias hold the factors."""
        with torch.no_grad():
            values = self.tensors()
        self.detach()
        try:
            with replaced(self.module, values):
                yield
        finally:
            self.attach()


@dataclass(frozen=True)
class ScalesAttachment(LayersAttachment):
    """Layers whose outputs are scaled.

    Attributes:
        places: their dotted names, in the order of `layers`.
    """

    layers: tuple[ScaledLayer, ...]
    places: tuple[str, ...]

    def tensors(self) -> Mapping[str, torch.Tensor]:
        """Weights and biases with the factors in them."""
        named = zip(self.places, self.layers, strict=True)
        return {f"{place}.{leaf}": tensor for place, layer in named for leaf, tensor in layer.tensors().items()}


@dataclass(frozen=True)
class DiffFit:
    """Scale factors on linear layers, named by the layer's weight: a group that holds `to_q.weight` scales that output.

    The output matrix of an attention (`to_out`) has two factors: one of its own and one of the whole attention, as in
    the code behind the published counts. Biases and norms, which DiffFit tunes as well, are parts of method `full`.

    Source: Xie et al. 2023 (arXiv 2304.06648), eq. 3.
    """

    def numel(self, unet: torch.nn.Module, parameter: str, settings: Settings) -> int:
        """A number for each output of the layer; two for an attention's output matrix.

        Raises:
            SpaceError: not the weight of a linear layer.
        """
        return _linear(unet, parameter).out_features * _factors(parameter)

    def changes(self, unet: torch.nn.Module, parameter: str) -> tuple[str, ...]:
        """The layer's weight, and its bias where it has one."""
        bias = f"{parameter.removesuffix('weight')}bias"
        return (parameter,) if _linear(unet, parameter).bias is None else (parameter, bias)

    @contextmanager
    def attached(
        self, unet: torch.nn.Module, tunables: Sequence[Tunable], resources: Resources
    ) -> Iterator[ScalesAttachment]:
        """Scale the outputs of the chosen layers; on exit nothing of it is left."""
        names = [name for tunable in tunables for name in tunable.parameters]
        layers = {name: ScaledLayer(_linear(unet, name), _factors(name)) for name in names}
        parameters = {
            f"{name}.{own}": factor for name, layer in layers.items() for own, factor in layer.factors.items()
        }
        places = tuple(name.rpartition(".")[0] for name in layers)
        attachment = ScalesAttachment(tuple(layers.values()), parameters, places)
        with attachment.attached():
            yield attachment


def _linear(unet: torch.nn.Module, parameter: str) -> torch.nn.Linear:
    module, leaf = owner(unet, parameter)
    if isinstance(module, torch.nn.Linear) and leaf == "weight":
        return module
    found = f"{parameter} is the {leaf} of a {type(module).__name__}"
    raise SpaceError(f"difffit scales Linear layers, named by their weight: {found}")


def _factors(parameter: str) -> int:
    return 2 if "to_out" in parameter.split(".") else 1
