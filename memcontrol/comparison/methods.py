"""The tuning methods that a comparison names: which search space each means, all groups of it on, and its rate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from memcontrol.errors import MaskError
from memcontrol.fingerprint import fingerprint
from memcontrol.groups import ParameterGroup, parameter_groups
from memcontrol.mask import Mask
from memcontrol.space import SearchSpace, load_space

if TYPE_CHECKING:
    from torch import nn

FREEZE = "freeze"
FULL = "full"


@dataclass(frozen=True)
class Method:
    """A way to fine-tune.

    Attributes:
        space: the shipped search space whose groups all train; None for the untuned model.
        rate: peak learning rate.
    """

    space: str | None
    rate: float | None


METHODS: Mapping[str, Method] = {
    FREEZE: Method(None, None),
    FULL: Method("full-tuning", 3e-3),
    "attention": Method("attention-tuning", 1e-2),
    "bias": Method("bias-tuning", 3e-2),
    "norm": Method("norm-tuning", 3e-2),
    "bitfit": Method("bitfit", 3e-2),
    "difffit": Method("paper-difffit", 3e-2),
    "svdiff": Method("paper-svdiff", 3e-2),
    "lora": Method("lora-blocks", 1e-2),
}
"""By name. The rates had the lowest mean `fd` on seeds 0 and 1 of brain slices, out of two or three, on the shipped
model `tiny` at 300 steps (experiments/methods_table); other models and lengths may want others."""


def trained_groups(mask: Mask) -> tuple[ParameterGroup, ...]:
    """The groups that a mask trains, of whichever U-Net it fits."""
    return tuple(
        ParameterGroup(group.name, group.method, group.parameters, group.numel, settings=group.settings)
        for group in mask.trained
    )


@dataclass(frozen=True)
class Recipe:
    """What a row of the table trains: all groups of a method's space, or those of a mask.

    Attributes:
        name: of the method, or of the mask's file.
        rate: peak learning rate; None where nothing trains.
        space: of a method; None for the untuned model and for a mask.
        mask: of a mask file.
        steps: optimizer steps, where they are not those of every row.
        stop: steps after which training breaks off, as a checkpoint's did.
    """

    name: str
    rate: float | None
    space: SearchSpace | None = None
    mask: Mask | None = None
    steps: int | None = None
    stop: int | None = None

    @classmethod
    def of_method(cls, name: str, rate: float | None = None) -> Recipe:
        """A method by its name in `METHODS`, at its own rate unless another is given."""
        method = METHODS[name]
        return cls(name, rate or method.rate, None if method.space is None else load_space(method.space))

    @classmethod
    def of_mask(cls, name: str, mask: Mask) -> Recipe:
        """A mask, at its own rate.

        Raises:
            MaskError: it trains nothing.
        """
        if mask.learning_rate is None:
            raise MaskError(f"mask {name} trains nothing: leave it out, method {FREEZE} is the same")
        return cls(name, mask.learning_rate, mask=mask)

    @property
    def content(self) -> str:
        """Hash of what decides its scores besides a run's settings."""
        mask = None if self.mask is None else [[g.method, g.parameters, dict(g.settings)] for g in self.mask.trained]
        parts = [self.rate, None if self.space is None else self.space.sha256, mask]
        own = [*parts, *([] if self.steps is None else [self.steps])]
        return fingerprint(own if self.stop is None else [*own, "stop", self.stop])

    def groups(self, unet: nn.Module) -> tuple[ParameterGroup, ...]:
        """The groups that train; none for the untuned model.

        Raises:
            MaskError: the mask does not fit the U-Net.
            SpaceError: the method's space selects nothing of it.
        """
        if self.mask is not None:
            self.mask.check(unet)
            return trained_groups(self.mask)
        return () if self.space is None else parameter_groups(self.space, unet)
