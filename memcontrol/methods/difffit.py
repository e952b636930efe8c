"""DiffFit: tune factors that scale the outputs of attention and feed-forward layers, starting at one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch

from memcontrol.errors import SpaceError
from memcontrol.methods.attachment import Resources, Settings, Tunable, owner, replaced


@dataclass(frozen=True)
class ScaledLayer:
    """A linear layer whose output is multiplied by its factors, one vector or the product of two.

    Attributes:
        factors: each `(out_features,)`.
    """

    module: torch.nn.Module
    factors: tuple[torch.nn.Parameter, ...]

    def scale(self) -> torch.Tensor:
        """The product of the factors, `(out_features,)`."""
        product: torch.Tensor = self.factors[0]
        for factor in self.factors[1:]:
            product = product * factor
        return product

    @torch.no_grad()
    def plain(self) -> dict[str, torch.Tensor]:
        """Weight and bias that give the scaled output."""
        values = {"weight": self.module.get_parameter("weight") * self.scale()[:, None]}
        if self.module.bias is not None:
            values["bias"] = self.module.get_parameter("bias") * self.scale()
        return values


@dataclass
class DiffFitAttachment:
    """Factors of the chosen layers, applied to their outputs while attached."""

    layers: Mapping[str, ScaledLayer]
    parameters: Mapping[str, torch.nn.Parameter]
    folding: bool = False

    @contextmanager
    def folded(self) -> Iterator[None]:
        """Inside, weights and biases are multiplied by the factors and the outputs are left alone."""
        with ExitStack() as stack:
            for layer in self.layers.values():
                stack.enter_context(replaced(layer.module, layer.plain()))
            self.folding = True
            try:
                yield
            finally:
                self.folding = False


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
        module, leaf = owner(unet, parameter)
        if not isinstance(module, torch.nn.Linear) or leaf != "weight":
            found = f"{parameter} is the {leaf} of a {type(module).__name__}"
            raise SpaceError(f"difffit scales Linear layers, named by their weight: {found}")
        return module.out_features * _factors(parameter)

    @contextmanager
    def attached(
        self, unet: torch.nn.Module, tunables: Sequence[Tunable], resources: Resources
    ) -> Iterator[DiffFitAttachment]:
        """Scale the outputs of the chosen layers; on exit nothing of it is left."""
        names = [name for tunable in tunables for name in tunable.parameters]
        layers = {name: _scaled(owner(unet, name)[0], _factors(name)) for name in names}
        parameters = {
            f"{name}.{_factor_name(place)}": factor
            for name, layer in layers.items()
            for place, factor in enumerate(layer.factors)
        }
        attachment = DiffFitAttachment(layers, parameters)
        with ExitStack() as stack:
            for layer in layers.values():
                stack.enter_context(_hooked(layer, attachment))
            yield attachment


def _factors(parameter: str) -> int:
    return 2 if "to_out" in parameter.split(".") else 1


def _factor_name(place: int) -> str:
    return f"difffit_scale_{place}"


def _scaled(module: torch.nn.Module, count: int) -> ScaledLayer:
    weight = module.get_parameter("weight")
    return ScaledLayer(module, tuple(torch.nn.Parameter(weight.new_ones(len(weight))) for _ in range(count)))


@contextmanager
def _hooked(layer: ScaledLayer, attachment: DiffFitAttachment) -> Iterator[None]:
    """The factors are parameters of the layer meanwhile, so that several processes average their gradients."""

    def scaled(_module: torch.nn.Module, _inputs: object, output: torch.Tensor) -> torch.Tensor:
        return output if attachment.folding else output * layer.scale()

    for place, factor in enumerate(layer.factors):
        layer.module.register_parameter(_factor_name(place), factor)
    hook = layer.module.register_forward_hook(scaled)
    try:
        yield
    finally:
        hook.remove()
        for place in range(len(layer.factors)):
            delattr(layer.module, _factor_name(place))
