"""Samples that their caption moves too much do not count: a threshold on the text-conditional noise magnitude."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from memcontrol.data.images import Dataset
from memcontrol.finetuning import LossFacts, LossRule
from memcontrol.mitigations.requirements import captioned, check_number, check_positive
from memcontrol.pipeline import FrozenPipeline


@dataclass(frozen=True)
class Threshold:
    """Drop samples of a high text-conditional noise magnitude; it costs one more prediction of each batch.

    The magnitude is a root mean square per element (`per_element` turns a published norm into one). Samples whose
    caption was dropped have none, and always count.

    Attributes:
        bound: samples at or above it are dropped; infinity is plain training. None is `auto`: the highest `share` are.
        share: what `auto` drops of the samples with captions; 0 is plain training.
        remembered: magnitudes, of the latest samples with captions, among which `auto` finds the highest. They drift as
            training goes on: among 1,000 on `tiny`, `auto` dropped 2 % early and 12 % late; among 160, 5 and 11 %.

    Source: Wen et al. 2024 (arXiv 2407.21720), section 5; `auto` after the code of Dutt et al. 2024 (arXiv 2405.19458),
        which drops the highest 10 % of each batch by itself.
    """

    bound: float | None = None
    share: float = 0.1
    remembered: int = 160

    def __post_init__(self) -> None:
        if self.bound is not None:
            check_positive("Threshold.bound", self.bound)
        check_number("Threshold.share", self.share, low=0, high=1)
        check_number("Threshold.remembered", self.remembered, low=1, whole=True)

    @property
    def idle(self) -> bool:
        """Whether it drops nothing: zero strength."""
        return self.share == 0 if self.bound is None else self.bound == math.inf

    def rule(self, *, frozen: FrozenPipeline, dataset: Dataset) -> LossRule | None:
        """The rule of one training, nothing remembered yet; None, which is plain training, at zero strength.

        Raises:
            ModelError, DataError: the model takes no text, or the data has no captions.
        """
        if self.idle:
            return None
        captioned(frozen, dataset, type(self).__name__)
        return RunningBound(self.share, self.remembered) if self.bound is None else FixedBound(self.bound)


@dataclass(frozen=True)
class FixedBound:
    """Samples count whose magnitude is below `bound`."""

    bound: float

    def keep(self, facts: LossFacts) -> torch.Tensor:
        """`(B,)` bool."""
        return ~(facts.magnitudes() >= self.bound)


class RunningBound:
    """Samples count unless they are among the highest `share` of the latest magnitudes, their batch's own included.

    Never are more than that share of these above the bound, so that none is dropped before 1 / share have been seen,
    and none where all are alike. Each process judges by what it has seen itself.

    Attributes:
        seen: the latest magnitudes, of samples with captions.
    """

    def __init__(self, share: float, remembered: int) -> None:
        self.share = share
        self.seen: deque[float] = deque(maxlen=remembered)

    @property
    def bound(self) -> float:
        """The lowest magnitude that no more than `share` of those seen exceed; 0 where all may, infinite at first."""
        if not self.seen:
            return math.inf
        above = int(self.share * len(self.seen))
        return sorted(self.seen)[-above - 1] if above < len(self.seen) else 0.0

    def state_dict(self) -> dict[str, list[float]]:
        """The latest magnitudes."""
        return {"seen": list(self.seen)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from those of `state_dict`."""
        self.seen.clear()
        self.seen.extend(state["seen"])

    def keep(self, facts: LossFacts) -> torch.Tensor:
        """`(B,)` bool; remembers the batch."""
        magnitudes = facts.magnitudes()
        self.seen.extend(magnitudes[magnitudes > 0].tolist())
        return ~(magnitudes > self.bound)


def per_element(norm: float, latent_shape: tuple[int, int, int]) -> float:
    """A published threshold on the L2 norm over latents `(C, h, w)` as a root mean square per element.

    The norm grows with the square root of the number of elements: 2 on 4x64x64 latents is 0.0156.
    """
    return norm / math.sqrt(math.prod(latent_shape))
