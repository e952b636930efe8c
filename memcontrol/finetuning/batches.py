"""What one optimizer step learns from: batches that depend on seed and step alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from memcontrol.config import TuningConfig
from memcontrol.data.images import Dataset
from memcontrol.pipeline import FrozenPipeline, LatentMoments, TextEmbeddings

MEMO_BYTES = 2**26
"""Of batches kept for the next training: 481 steps of 16 images on `tiny`, 11 on SD."""


@dataclass(frozen=True)
class Batch:
    """One step's training pairs.

    Attributes:
        positions: `(B,)` which training images they are.
        clean, noise: `(B, C, h, w)`.
        timesteps: `(B,)` int64.
        text: `(B, L, D)` caption embeddings, some replaced by the empty caption's; None where the U-Net takes no text.
        empty: `(B, L, D)` the empty caption's embedding, likewise.
    """

    positions: NDArray[np.intp]
    clean: torch.Tensor
    noise: torch.Tensor
    timesteps: torch.Tensor
    text: torch.Tensor | None
    empty: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def conditioning(self) -> tuple[torch.Tensor, ...]:
        """What the U-Net is given besides noisy latents and timesteps."""
        return () if self.text is None else (self.text,)

    @property
    def told(self) -> torch.Tensor:
        """`(B,)` bool, of which the U-Net is told more than the empty caption; nowhere without text."""
        if self.text is None or self.empty is None:
            return torch.zeros(len(self.positions), dtype=torch.bool)
        return (self.text != self.empty).flatten(1).any(1)

    @property
    def nbytes(self) -> int:
        """Of its tensors; the empty caption's embedding is one for all."""
        tensors = (self.clean, self.noise, self.timesteps, self.text)
        return sum(tensor.nbytes for tensor in tensors if tensor is not None)

    def at(self, share: slice) -> Batch:
        """Some of its pairs."""
        return self._with(lambda tensor: tensor[share], self.positions[share])

    def to(self, device: torch.device) -> Batch:
        """Its pairs on a device; the positions stay where they are."""
        return self._with(lambda tensor: tensor.to(device), self.positions)

    def parts(self, number: int) -> list[Batch]:
        """Its pairs in so many micro-batches, in their order, whose sizes differ by one at most; none is empty."""
        number = min(number, len(self))
        if number <= 1:
            return [self]
        edges = [len(self) * place // number for place in range(number + 1)]
        return [self.at(slice(low, high)) for low, high in pairwise(edges)]

    def _with(self, change: Callable[[torch.Tensor], torch.Tensor], positions: NDArray[np.intp]) -> Batch:
        return Batch(
            positions=positions,
            clean=change(self.clean),
            noise=change(self.noise),
            timesteps=change(self.timesteps),
            text=None if self.text is None else change(self.text),
            empty=None if self.empty is None else change(self.empty),
        )


class Batches(Protocol):
    """Where batches come from: what a mitigation of the data alters or puts something in front of."""

    def at(self, step: int) -> Batch:
        """The batch of one step, from 0, on the CPU."""
        ...


@dataclass(frozen=True)
class TrainingBatches:
    """Batches as a pure function of (seed, step), so that every candidate of a run sees the same ones.

    Attributes:
        repeats: `(N,)` how many times each image stands in an epoch.
    """

    latents: LatentMoments
    text: TextEmbeddings | None
    repeats: NDArray[np.int64]
    batch: int
    caption_dropout: float
    train_timesteps: int
    seed: int

    def positions(self, step: int) -> NDArray[np.intp]:
        """Images of one step: epochs are shuffled one after another, without a gap between them."""
        stream = np.repeat(np.arange(len(self.repeats)), self.repeats)
        wanted = np.arange(step * self.batch, (step + 1) * self.batch)
        epochs, places = np.divmod(wanted, len(stream))
        orders = [_shuffled(len(stream), self.seed, int(epoch)) for epoch in epochs]
        return np.array([stream[order[place]] for order, place in zip(orders, places, strict=True)])

    def at(self, step: int) -> Batch:
        """The batch of one step, on the CPU; random numbers do not depend on the device.

        The first steps' batches are kept, up to `MEMO_BYTES`: nobody may change them in place.
        """
        batch = self._memo.get(step)
        if batch is None:
            batch = self._made(step)
            if (len(self._memo) + 1) * batch.nbytes <= MEMO_BYTES:
                self._memo[step] = batch
        return batch

    @cached_property
    def _memo(self) -> dict[int, Batch]:
        return {}

    def _made(self, step: int) -> Batch:
        generator = torch.Generator().manual_seed(_mixed(self.seed, step))
        positions = self.positions(step)
        mean = torch.from_numpy(np.array(self.latents.mean[positions]))
        std = torch.from_numpy(np.array(self.latents.std[positions]))
        clean = mean + std * torch.randn(mean.shape, generator=generator)
        noise = torch.randn(mean.shape, generator=generator)
        timesteps = torch.randint(self.train_timesteps, (len(positions),), generator=generator)
        if self.text is None:
            return Batch(positions, clean, noise, timesteps, None)
        dropped = torch.rand(len(positions), generator=generator) < self.caption_dropout
        empty = self.text.empty(len(positions))
        text = torch.where(dropped[:, None, None], empty, self.text.at(positions))
        return Batch(positions, clean, noise, timesteps, text, empty)


@lru_cache(maxsize=4)
def _shuffled(count: int, seed: int, epoch: int) -> NDArray[np.intp]:
    return np.random.default_rng([seed, 101, epoch]).permutation(count)


def _mixed(seed: int, step: int) -> int:
    return int(np.random.SeedSequence([seed, 102, step]).generate_state(1, np.uint64)[0] >> 1)


def training_batches(frozen: FrozenPipeline, dataset: Dataset, config: TuningConfig, *, seed: int) -> TrainingBatches:
    """The training set's batches, its images and captions encoded once."""
    return TrainingBatches(
        latents=frozen.latent_moments(dataset.training),
        text=frozen.text_embeddings(dataset.training.captions),
        repeats=dataset.repeats,
        batch=config.batch,
        caption_dropout=config.caption_dropout,
        train_timesteps=int(frozen.scheduler_config["num_train_timesteps"]),
        seed=seed,
    )
