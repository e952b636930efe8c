"""SV-DIFF: tune shifts of the singular values of layer weights, starting at zero."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from memcontrol.errors import SpaceError
from memcontrol.methods.attachment import LayersAttachment, Resources, Settings, Tunable, owner, replaced
from memcontrol.methods.decompositions import Factors, matrix_shape, prepared

SHIFTED = (nn.Conv2d, nn.Linear, nn.GroupNorm, nn.LayerNorm)


class SpectralShift(nn.Module):
    """A parametrization of a weight, W + u diag(relu(s + shift) - s) vh: at zero it gives W to the last bit.

    Attributes:
        factors: W's decomposition, on the shift's device wherever that is moved; no buffers, so that no state dict and
            no broadcast carries them.
        shift: `(k,)` float32, whatever W's type: half precision would lose small steps.
    """

    def __init__(self, factors: Factors) -> None:
        super().__init__()
        self.factors = factors
        self.shift = nn.Parameter(torch.zeros_like(factors.s))

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.factors = self.factors.to(self.shift.device)
        return self

    def values(self) -> torch.Tensor:
        """The shifted singular values, `(k,)` float32."""
        # relu, but with a gradient of one where s + shift is exactly zero: a zero weight could not leave it otherwise.
        return (self.factors.s + self.shift).clamp(min=0)

    def change(self) -> torch.Tensor:
        """What the shift adds to the singular values, `(k,)` float32: zero at no shift, to the last bit."""
        return self.values() - self.factors.s

    def forward(self, original: torch.Tensor) -> torch.Tensor:
        """The weight with shifted singular values, in the shape and type of the original one."""
        change = (self.factors.u * self.change()) @ self.factors.vh
        return (original + change.reshape(original.shape)).to(original.dtype)


def factored_is_cheaper(rows: int, columns: int, positions: int) -> bool:
    """Whether a forward and a backward pass multiply less through the factors than through the rebuilt weight.

    Through factors, activations and their gradients pass the weight itself, which gives the output at no shift, and a
    `(k, columns)` and a `(rows, k)` matrix, which give the change. Otherwise the weight is rebuilt, activations, their
    gradients and the weight's gradient each take one product with it, and the shift's gradient takes one more product
    of the size of the rebuilding.

    Args:
        rows, columns: of the weight as a matrix.
        positions: pixels or tokens of the output, over the whole batch.
    """
    rank = min(rows, columns)
    factored = 2 * (rank * (rows + columns) + rows * columns) * positions
    rebuilt = 3 * rows * columns * positions + 2 * rank * rows * columns
    return factored < rebuilt


def _original(module: nn.Module) -> torch.Tensor:
    """The weight under the parametrization."""
    return module.get_parameter("parametrizations.weight.original")


class FactoredLinear:
    """A linear layer's forward pass with the change through its factors, where that is cheaper."""

    def __init__(self, module: nn.Linear, shift: SpectralShift) -> None:
        self.module, self.shift, self.rebuilt = module, shift, module.forward

    def __call__(self, input: torch.Tensor) -> torch.Tensor:
        """As `nn.Linear.forward`."""
        module, factors = self.module, self.shift.factors
        if not factored_is_cheaper(module.out_features, module.in_features, input.numel() // module.in_features):
            return self.rebuilt(input)
        # The change multiplies in float32: in half precision, small shifts would be rounded away.
        inner = F.linear(input, factors.vh.to(input.dtype)) * self.shift.change()
        plain = F.linear(input, _original(module), module.bias)
        return plain + F.linear(inner.to(input.dtype), factors.u.to(input.dtype))


class FactoredConvolution:
    """A convolution's forward pass with the change through its factors, a kernel to k channels and a 1 x 1 kernel."""

    def __init__(self, module: nn.Conv2d, shift: SpectralShift) -> None:
        self.module, self.shift, self.rebuilt = module, shift, module.forward
        self.kernel = (-1, module.in_channels, *module.kernel_size)
        self.columns = shift.factors.vh.shape[1]

    def __call__(self, input: torch.Tensor) -> torch.Tensor:
        """As `nn.Conv2d.forward`."""
        module = self.module
        vertical, horizontal = module.stride
        positions = input.numel() // (module.in_channels * vertical * horizontal)
        if not factored_is_cheaper(module.out_channels, self.columns, positions):
            return self.rebuilt(input)
        factors = self.shift.factors
        inner = module._conv_forward(input, factors.vh.reshape(self.kernel).to(input.dtype), None)
        inner = inner * self.shift.change()[:, None, None]
        plain: torch.Tensor = module._conv_forward(input, _original(module), module.bias)
        return plain + F.conv2d(inner.to(input.dtype), factors.u[:, :, None, None].to(input.dtype))


@dataclass(frozen=True)
class ShiftedLayer:
    """A layer whose weight's singular values are shifted while attached."""

    module: nn.Module
    shift: SpectralShift

    def attach(self) -> None:
        """Put the parametrization on the weight, and the factored forward pass, where there is one, on the layer."""
        forward = _factored(self.module, self.shift)
        parametrize.register_parametrization(self.module, "weight", self.shift, unsafe=True)
        if forward is not None:
            self.module.forward = forward

    def detach(self) -> None:
        """Take both off again; the weight is the same object as before, in its old place among the parameters."""
        if isinstance(vars(self.module).get("forward"), FactoredLinear | FactoredConvolution):
            del self.module.forward
        parametrize.remove_parametrizations(self.module, "weight", leave_parametrized=False)
        for leaf, parameter in list(self.module.named_parameters(recurse=False)):
            if leaf != "weight":  # which is last now, and the first of every layer of these kinds
                delattr(self.module, leaf)
                self.module.register_parameter(leaf, parameter)

    @contextmanager
    def folded(self) -> Iterator[None]:
        """Inside, the layer is a plain one that holds the shifted weight."""
        with torch.no_grad():
            weight = self.shift(_original(self.module))
        self.detach()
        try:
            with replaced(self.module, {"weight": weight}):
                yield
        finally:
            self.attach()


@dataclass(frozen=True)
class _Alike:
    """Weights that are shifted together: matrices of one shape and type, stacked.

    Attributes:
        shapes: of the weights, by name.
        shifts: `(k,)` each.
        u, s, vh: `(L, m, k)`, `(L, k)` and `(L, k, n)`.
        original: `(L, m, n)`.
    """

    shapes: Mapping[str, torch.Size]
    shifts: tuple[nn.Parameter, ...]
    u: torch.Tensor
    s: torch.Tensor
    vh: torch.Tensor
    original: torch.Tensor

    @classmethod
    def of(cls, layers: Mapping[str, ShiftedLayer]) -> _Alike:
        """Of layers by their weights' names."""
        weights = {name: _original(layer.module).detach() for name, layer in layers.items()}
        factors = [layer.shift.factors for layer in layers.values()]
        parts = [[one.u for one in factors], [one.s for one in factors], [one.vh for one in factors]]
        parts.append([weight.reshape(matrix_shape(weight)) for weight in weights.values()])
        shapes = {name: weight.shape for name, weight in weights.items()}
        return cls(shapes, tuple(layer.shift.shift for layer in layers.values()), *map(torch.stack, parts))

    def weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Each weight's name, and the weight with shifted singular values, as `SpectralShift` gives it."""
        change = (self.s + torch.stack(self.shifts)).clamp(min=0) - self.s
        shifted = self.original + (self.u * change[:, None]) @ self.vh
        for (name, shape), weight in zip(self.shapes.items(), shifted.to(self.original.dtype).unbind(), strict=True):
            yield name, weight.view(shape)


@dataclass(frozen=True)
class ShiftsAttachment(LayersAttachment):
    """Layers whose weights' singular values are shifted.

    Attributes:
        names: of the weights, in the order of `layers`.
    """

    layers: tuple[ShiftedLayer, ...]
    names: tuple[str, ...]

    def tensors(self) -> Mapping[str, torch.Tensor]:
        """The shifted weights: those of one shape together, which saves most of the time where layers are small."""
        return {name: weight for alike in self._stacks for name, weight in alike.weights()}

    @cached_property
    def _stacks(self) -> tuple[_Alike, ...]:
        """Copies of what stays as it is; made where the layers are when they are first asked for."""
        found: dict[tuple[object, ...], dict[str, ShiftedLayer]] = {}
        for name, layer in zip(self.names, self.layers, strict=True):
            weight = _original(layer.module)
            found.setdefault((matrix_shape(weight), weight.dtype), {})[name] = layer
        return tuple(_Alike.of(layers) for layers in found.values())


@dataclass(frozen=True)
class SVDiff:
    """Shifts of singular values: W = u diag(s) vh becomes u diag(relu(s + shift)) vh. Biases stay as they are.

    A convolution's weight is taken as a matrix `(out, in * kh * kw)`, a norm's as `(1, n)`.

    Source: Han et al. 2023 (arXiv 2303.11305).
    """

    def numel(self, unet: nn.Module, parameter: str, settings: Settings) -> int:
        """One number for each singular value, min(m, n) of an m x n weight.

        Raises:
            SpaceError: not the weight of a Conv2d, Linear, GroupNorm or LayerNorm.
        """
        module, leaf = owner(unet, parameter)
        weight = getattr(module, leaf, None)
        if isinstance(module, SHIFTED) and leaf == "weight" and weight is not None:
            return min(matrix_shape(weight))
        kinds = ", ".join(kind.__name__ for kind in SHIFTED)
        missing = ", which has none" if weight is None else ""
        found = f"{parameter} is the {leaf} of a {type(module).__name__}{missing}"
        raise SpaceError(f"svdiff shifts weights of {kinds} alone: {found}; exclude it, or tune it by another method")

    def changes(self, unet: nn.Module, parameter: str) -> tuple[str, ...]:
        """The parameter itself."""
        return (parameter,)

    @contextmanager
    def attached(
        self, unet: nn.Module, tunables: Sequence[Tunable], resources: Resources
    ) -> Iterator[ShiftsAttachment]:
        """Shift the chosen weights; on exit nothing of it is left."""
        names = [name for tunable in tunables for name in tunable.parameters]
        for name in names:
            self.numel(unet, name, {})
        missing = [name for name in names if name not in resources.decompositions]
        factors = {**resources.decompositions, **prepared(unet, missing, resources.cache)}
        layers = {name: _shifted(owner(unet, name)[0], factors[name]) for name in names}
        parameters = {f"{name}.shift": layer.shift.shift for name, layer in layers.items()}
        attachment = ShiftsAttachment(tuple(layers.values()), parameters, tuple(layers))
        with attachment.attached():
            yield attachment


def _shifted(module: nn.Module, factors: Factors) -> ShiftedLayer:
    return ShiftedLayer(module, SpectralShift(factors.to(module.get_parameter("weight").device)))


def _factored(module: nn.Module, shift: SpectralShift) -> FactoredLinear | FactoredConvolution | None:
    """None for norms and grouped convolutions, and where a subclass or a wrapper has a forward pass of its own."""
    if "forward" in vars(module):
        return None
    if isinstance(module, nn.Linear) and type(module).forward is nn.Linear.forward:
        return FactoredLinear(module, shift)
    if isinstance(module, nn.Conv2d) and type(module).forward is nn.Conv2d.forward and module.groups == 1:
        return FactoredConvolution(module, shift)
    return None
