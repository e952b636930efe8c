"""Threshold-aware augmentation: samples that were nearly skipped are learnt from in altered form alone."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from memcontrol.data.images import ImageSet
from memcontrol.errors import MemControlError
from memcontrol.finetuning import Batch, Batches, LossFacts
from memcontrol.mitigations.loss_bank import LossBank
from memcontrol.mitigations.randaugment import MOST, randaugmented
from memcontrol.pipeline import FrozenPipeline

_STREAM = 303


@dataclass(frozen=True)
class ThresholdAugmentation:
    """What happens to samples with `b <= m * loss < band * b`, b being the loss bank's bound and m its multiplier.

    They do not count where they are, but are queued, with a nearness to the bound of `exp(-sharpness * |m*loss - b| /
    b)`, 0 to 1. `queue` of them make one step, changed by RandAugment of magnitude `floor(magnitude * mean nearness)`.

    Attributes:
        band: above 1.
        sharpness: 0 or more.
        queue: samples of one such step, 1 or more.
        operations: of RandAugment on each image.
        magnitude: the largest, on RandAugment's scale of 0 to 30.

    Raises:
        MemControlError: a number that is out of its range.

    Source: Guan et al. 2025 (arXiv 2502.09434), "threshold-aware augmentation".
    """

    band: float = 1.5
    sharpness: float = 5.0
    queue: int = 8
    operations: int = 2
    magnitude: float = 5.0

    def __post_init__(self) -> None:
        for name, good, expected in (
            ("band", 1 < self.band < math.inf, "a number above 1"),
            ("sharpness", 0 <= self.sharpness < math.inf, "a number from 0"),
            ("queue", self.queue >= 1, "a whole number from 1"),
            ("operations", self.operations >= 0, "a whole number from 0"),
            ("magnitude", 0 <= self.magnitude <= MOST, f"a number from 0 to {MOST}"),
        ):
            if not good:
                raise MemControlError(
                    f"{name} of threshold-aware augmentation is {getattr(self, name)}: expected {expected}"
                )

    def nearness(self, weighted: NDArray[np.float64], bounds: NDArray[np.float64]) -> NDArray[np.float64]:
        """How near `multiplier * loss` is to bounds above 0, 0 to 1; `(B,)` all."""
        return np.exp(-self.sharpness * np.abs(weighted - bounds) / bounds)

    def strength(self, nearness: NDArray[np.float64]) -> int:
        """RandAugment's magnitude for samples of that nearness, `(queue,)`."""
        return math.floor(self.magnitude * float(nearness.mean()))


@dataclass(frozen=True)
class _Queued:
    position: int
    nearness: float
    text: torch.Tensor | None
    empty: torch.Tensor | None


class AugmentedBatches:
    """Batches, and the `LossRule` beside a loss bank, that put a step of augmented samples in between.

    Such a step is one of the steps asked for: the ordinary batch that would have come is the next one's. Its samples
    have new noise and timesteps, and the caption embedding that they were queued with; all of them count, and none
    enters the bank. Where there is an autoencoder, latents are the posterior means. What was queued before its image
    went to another shard is still learnt from here.

    Args:
        batches: the ordinary ones.
        images: the training images, at the pipeline's resolution.
        frozen: encodes what was changed.

    Attributes:
        extra: augmented steps so far.
        augmented: `(N,)` int64, how often each training image was in one.
    """

    def __init__(
        self,
        batches: Batches,
        bank: LossBank,
        settings: ThresholdAugmentation,
        *,
        images: ImageSet,
        frozen: FrozenPipeline,
        seed: int,
    ) -> None:
        self.batches, self.bank, self.settings = batches, bank, settings
        self.images, self.frozen, self.seed = images, frozen, seed
        self.extra = 0
        self.augmented = np.zeros(len(images), dtype=np.int64)
        self._queue: deque[_Queued] = deque()
        self._ordinary: Batch | None = None

    def at(self, step: int) -> Batch:
        """The augmented batch where enough samples wait; otherwise the next ordinary one."""
        if len(self._queue) < self.settings.queue:
            self._ordinary = self.batches.at(step - self.extra)
            return self._ordinary
        self._ordinary = None
        self.extra += 1
        return self._augmented([self._queue.popleft() for _ in range(self.settings.queue)], step)

    def keep(self, facts: LossFacts) -> torch.Tensor:
        """`(B,)` bool: those at the band's upper end or above, or all of an augmented batch."""
        if self._ordinary is None:
            return torch.ones_like(facts.losses, dtype=torch.bool)
        weighted, bounds = self.bank.judged(facts)
        plain = weighted >= self.settings.band * bounds
        near = np.flatnonzero((weighted >= bounds) & ~plain)
        text, empty = self._ordinary.text, self._ordinary.empty
        for row, nearness in zip(near, self.settings.nearness(weighted[near], bounds[near]), strict=True):
            self._queue.append(
                _Queued(
                    int(facts.positions[row]),
                    float(nearness),
                    None if text is None else text[row].clone(),
                    None if empty is None else empty[row].clone(),
                )
            )
        return torch.from_numpy(plain).to(facts.losses.device)

    def state_dict(self) -> dict[str, Any]:
        """Counts, and the samples that wait."""
        return {
            "extra": self.extra,
            "augmented": self.augmented,
            "queue": [
                {"position": one.position, "nearness": one.nearness, "text": one.text, "empty": one.empty}
                for one in self._queue
            ],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.extra = state["extra"]
        np.copyto(self.augmented, np.asarray(state["augmented"]))
        self._queue = deque(_Queued(**one) for one in state["queue"])

    def _augmented(self, queued: list[_Queued], step: int) -> Batch:
        positions = np.array([sample.position for sample in queued], dtype=np.intp)
        np.add.at(self.augmented, positions, 1)
        rng = np.random.default_rng([self.seed, _STREAM, step])
        pixels = randaugmented(
            self.images.pixels(positions),
            operations=self.settings.operations,
            magnitude=self.settings.strength(np.array([sample.nearness for sample in queued])),
            rng=rng,
        )
        generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
        clean = torch.from_numpy(self.frozen.encode(pixels)).reshape(-1, *self.frozen.latent_shape)
        noise = torch.randn(clean.shape, generator=generator)
        timesteps = torch.randint(self.bank.timesteps, (len(queued),), generator=generator)
        text = [sample.text for sample in queued if sample.text is not None]
        empty = [sample.empty for sample in queued if sample.empty is not None]
        return Batch(
            positions,
            clean,
            noise,
            timesteps,
            torch.stack(text) if text else None,
            torch.stack(empty) if empty else None,
        )
