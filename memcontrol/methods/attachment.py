"""What every tuning method offers: sizes beforehand, an attachment while training, plain weights afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch

from memcontrol.cache import Cache
from memcontrol.methods.decompositions import Factors

Settings = Mapping[str, float]
"""A method's own settings, such as LoRA's `rank` and `alpha`; empty for most."""


class Tunable(Protocol):
    """Parameters that one method tunes under the same settings; groups of a space and of a mask are such."""

    @property
    def method(self) -> str:
        """A key of `memcontrol.methods.METHODS`."""

    @property
    def parameters(self) -> tuple[str, ...]:
        """Dotted names in the U-Net."""

    @property
    def settings(self) -> Settings:
        """The method's own settings."""


@dataclass(frozen=True)
class Resources:
    """What attaching a method may need besides the U-Net.

    Attributes:
        cache: where decompositions of the base weights are kept; None computes them anew.
        seed: of initial values that are random.
        decompositions: those of this U-Net's base weights that are at hand, by the weight's name.
    """

    cache: Cache | None = None
    seed: int = 0
    decompositions: Mapping[str, Factors] = field(default_factory=dict)


class Attachment(Protocol):
    """One method, attached to a U-Net."""

    @property
    def parameters(self) -> Mapping[str, torch.nn.Parameter]:
        """What to optimise, by a name that is unique in the U-Net."""

    def folded(self) -> AbstractContextManager[None]:
        """Inside, the U-Net's layers are plain ones whose weights hold what was tuned: to sample, or to save."""

    def tensors(self) -> Mapping[str, torch.Tensor]:
        """What it makes of the plain U-Net's parameters, by dotted name; the same as when folded, up to rounding."""


@runtime_checkable
class Savable(Protocol):
    """An attachment that other programs load in a format of its own, besides the whole pipeline."""

    def save(self, folder: Path) -> None:
        """Write what was tuned, for the base model, into a folder that need not exist."""


class AdaptedLayer(Protocol):
    """A layer that computes otherwise while attached."""

    def attach(self) -> None:
        """Change the layer."""

    def detach(self) -> None:
        """Leave the layer as it was."""

    def folded(self) -> AbstractContextManager[None]:
        """Inside, the layer is a plain one whose weights hold what was tuned."""


@dataclass(frozen=True)
class LayersAttachment:
    """Chosen layers, each adapted by itself."""

    layers: tuple[AdaptedLayer, ...]
    parameters: Mapping[str, torch.nn.Parameter]

    @contextmanager
    def folded(self) -> Iterator[None]:
        """Inside, every chosen layer is plain."""
        with ExitStack() as stack:
            for layer in self.layers:
                stack.enter_context(layer.folded())
            yield

    @contextmanager
    def attached(self) -> Iterator[LayersAttachment]:
        """Inside, every chosen layer is attached."""
        with ExitStack() as stack:
            for layer in self.layers:
                layer.attach()
                stack.callback(layer.detach)
            yield self


class TuningMethod(Protocol):
    """How chosen parameters of a U-Net are made trainable, and how the U-Net is put back."""

    def numel(self, unet: torch.nn.Module, parameter: str, settings: Settings) -> int:
        """How many numbers train for a parameter of that dotted name; works on the meta device.

        Raises:
            SpaceError: the method does not fit this layer.
        """

    def changes(self, unet: torch.nn.Module, parameter: str) -> tuple[str, ...]:
        """Dotted names of the plain U-Net's parameters that hold what was tuned once it is folded."""

    def attached(
        self, unet: torch.nn.Module, tunables: Sequence[Tunable], resources: Resources
    ) -> AbstractContextManager[Attachment]:
        """Inside, the tunables train. On exit the U-Net is bit for bit as before."""


def owner(unet: torch.nn.Module, parameter: str) -> tuple[torch.nn.Module, str]:
    """The module that holds a parameter, and the parameter's name in it."""
    place, _, leaf = parameter.rpartition(".")
    return unet.get_submodule(place), leaf


@contextmanager
def replaced(module: torch.nn.Module, values: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Inside, the module's parameters of those names are frozen ones that hold `values`.

    On exit the same objects as before are back, so that an optimizer that holds them goes on.
    """
    kept = {leaf: getattr(module, leaf) for leaf in values}
    for leaf, value in values.items():
        setattr(module, leaf, torch.nn.Parameter(value.detach(), requires_grad=False))
    try:
        yield
    finally:
        for leaf, parameter in kept.items():
            setattr(module, leaf, parameter)
