"""Masks of a search with tuned tensors for each, and the U-Net that holds one candidate's."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from passes import Stacked, Tensor

from memcontrol.study.trial import Laboratory

RANDOM = "random masks"
KINDS = ("all", "attention", "norms", RANDOM)


@dataclass(frozen=True)
class Candidates:
    """K masks with their tuned tensors.

    Attributes:
        names: what each trains.
        stacked: `(K, ...)` of everything that any of them trains; the base model's where one does not.
    """

    kind: str
    names: tuple[tuple[str, ...], ...]
    stacked: Stacked


def levels(laboratory: Laboratory, kind: str) -> Iterator[list[int]]:
    """The masks of a kind, one candidate after another."""
    groups, rng = laboratory.candidates.groups, np.random.default_rng(711)
    while True:
        if kind == RANDOM:
            yield rng.integers(2, size=len(groups)).tolist()
        else:
            yield [int(kind == "all" or kind in group.name.split(".")) for group in groups]


def candidates(laboratory: Laboratory, kind: str, count: int) -> Candidates:
    """So many of a kind, their tensors a little off the base model's, as in a training."""
    generator = torch.Generator().manual_seed(712)
    masks = [mask for mask, _ in zip(levels(laboratory, kind), range(count), strict=False)]
    trained = [laboratory.candidates.trained(mask) for mask in masks]
    names = tuple(tuple(name for group in groups for name in group.parameters) for groups in trained)
    base = dict(laboratory.frozen.unet.named_parameters())
    stacked = {}
    for name in dict.fromkeys(name for own in names for name in own):
        moved = 0.01 * torch.randn((count, *base[name].shape), generator=generator)
        for place, own in enumerate(names):
            moved[place] *= name in own
        stacked[name] = base[name].detach() + moved
    return Candidates(kind, names, stacked)


class Holding:
    """The U-Net with one candidate's tensors in it, those that it trains asking for gradients; restored at the end."""

    def __init__(self, unet: Any, of: Candidates, place: int) -> None:
        own = dict(unet.named_parameters())
        self.tensors = [own[name] for name in of.names[place]]
        self.values = [of.stacked[name][place] for name in of.names[place]]

    def __enter__(self) -> list[Tensor]:
        self.before = [tensor.detach().clone() for tensor in self.tensors]
        for tensor, value in zip(self.tensors, self.values, strict=True):
            tensor.data.copy_(value)
            tensor.requires_grad_(True)
        return self.tensors

    def __exit__(self, *_: object) -> None:
        for tensor, value in zip(self.tensors, self.before, strict=True):
            tensor.requires_grad_(False)
            tensor.data.copy_(value)
