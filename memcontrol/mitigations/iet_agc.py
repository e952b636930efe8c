"""Iterative ensemble training with anti-gradient control (IET-AGC), and its successor (IET-AGC+)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from memcontrol.data.images import ImageSet
from memcontrol.errors import MemControlError
from memcontrol.finetuning import Batches, TrainingBatches
from memcontrol.mitigations.ensembles import EnsembleTraining
from memcontrol.mitigations.loss_bank import AntiGradientControl
from memcontrol.mitigations.requirements import check_number
from memcontrol.mitigations.shards import Members, Shard, ShardBatches, mixed, split
from memcontrol.mitigations.threshold_augmentation import AugmentedBatches, ThresholdAugmentation
from memcontrol.pipeline import FrozenPipeline

_SHARD = 304


@dataclass(frozen=True)
class IterativeEnsemble:
    """Divide the training set into shards that train apart, and average what they trained after every round.

    One shard without control is plain training, bit for bit.

    Attributes:
        shards: K, 1 or more.
        rounds: 1 or more; each shard's steps are divided among them as evenly as whole steps can be.
        control: which samples count; None: all.
        moved: share of its images, those most often skipped, that each shard gives to the next on every second round,
            counted back from the one before the last; nothing is averaged on these rounds. 0: never.
        augmentation: what happens to samples that were nearly skipped; None: they count as they are.

    Raises:
        MemControlError: a number that is out of its range, or `moved` or `augmentation` without control.

    Source: Liu et al. 2024 (arXiv 2407.15328): shards, rounds, control. Guan et al. 2025 (arXiv 2502.09434): moved,
    augmentation.
    """

    shards: int = 1
    rounds: int = 1
    control: AntiGradientControl | None = None
    moved: float = 0.0
    augmentation: ThresholdAugmentation | None = None

    def __post_init__(self) -> None:
        check_number("shards of ensemble training", self.shards, low=1, whole=True)
        check_number("rounds of ensemble training", self.rounds, low=1, whole=True)
        check_number("moved, the share that shards give on,", self.moved, low=0, below=1)
        if self.control is None and (self.moved or self.augmentation):
            raise MemControlError(
                "redistribution and augmentation go by loss banks, and there is no control: give one, such as "
                "AntiGradientControl(2.0)"
            )

    def training(
        self,
        frozen: FrozenPipeline,
        images: ImageSet,
        batches: TrainingBatches,
        *,
        data: Callable[[Batches], Batches] | None = None,
    ) -> EnsembleTraining:
        """One training's shards, with empty loss banks; the random numbers go by the seed of `batches`.

        Args:
            images: the training images that `batches` were made of.
            data: a mitigation of the data, put in front of every shard's batches.

        Raises:
            MemControlError: more shards than training images.
        """
        parts = split(len(images), self.shards, seed=batches.seed)
        seeds = [batches.seed] if self.shards == 1 else [mixed(batches.seed, _SHARD, k) for k in range(self.shards)]
        drawn = [ShardBatches(batches, members, seed=seed) for members, seed in zip(parts, seeds, strict=True)]
        shards = [self._shard(one, members, frozen, images, data) for one, members in zip(drawn, parts, strict=True)]
        return EnsembleTraining(frozen, shards, rounds=self.rounds, moved=self.moved)

    def _shard(
        self,
        drawn: ShardBatches,
        members: Members,
        frozen: FrozenPipeline,
        images: ImageSet,
        data: Callable[[Batches], Batches] | None,
    ) -> Shard:
        batches = drawn if data is None else data(drawn)
        if self.control is None:
            return Shard(members, drawn, batches)
        bank = self.control.rule(timesteps=drawn.plain.train_timesteps, images=len(images))
        if self.augmentation is None:
            return Shard(members, drawn, batches, bank, bank)
        altered = AugmentedBatches(batches, bank, self.augmentation, images=images, frozen=frozen, seed=drawn.seed)
        return Shard(members, drawn, altered, bank, altered)


CIFAR = AntiGradientControl(2.0)
STABLE_DIFFUSION = AntiGradientControl(1.25)

PRESETS: Mapping[str, IterativeEnsemble] = {
    "agc-cifar": IterativeEnsemble(control=CIFAR),
    "agc-sd": IterativeEnsemble(control=STABLE_DIFFUSION),
    "iet-cifar": IterativeEnsemble(10, 10),
    "iet-sd": IterativeEnsemble(4, 25),
    "iet-agc-cifar": IterativeEnsemble(10, 10, CIFAR),
    "iet-agc-sd": IterativeEnsemble(4, 25, STABLE_DIFFUSION),
    "iet-agc+-cifar": IterativeEnsemble(10, 10, CIFAR, 0.25, ThresholdAugmentation()),
    "iet-agc+-sd": IterativeEnsemble(4, 25, STABLE_DIFFUSION, 0.25, ThresholdAugmentation()),
}
"""As published for CIFAR and for Stable Diffusion on LAION-10k; of the control and of the ensemble alone, too.

Published beside them: batch 128 and learning rate 2e-4 on CIFAR, 100 epochs of a shard in a round; batch 8, 2.5e-6 and
2,000 steps on Stable Diffusion.
"""
