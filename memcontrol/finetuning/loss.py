"""What the U-Net should predict, how far it is from it, and which samples of a batch count."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from accelerate import Accelerator
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr
from numpy.typing import NDArray

from memcontrol.errors import MemControlError
from memcontrol.finetuning.batches import Batch

IMAGE = (1, 2, 3)
"""The dimensions of one sample."""
Divisor = torch.Tensor | float


@dataclass(frozen=True)
class LossFacts:
    """What is known of a batch's samples once they have been predicted; nothing in it has a gradient.

    Attributes:
        losses: `(B,)` mean squared error of each sample.
        timesteps: `(B,)` int64.
        positions: `(B,)` which training images they are.
        magnitudes: `(B,)` text-conditional noise magnitude per element (root mean square of the difference that the
            caption makes to the predicted noise), computed when called: one more prediction of the batch. Exactly 0
            where the caption was dropped.
    """

    losses: torch.Tensor
    timesteps: torch.Tensor
    positions: NDArray[np.intp]
    magnitudes: Callable[[], torch.Tensor]


class LossRule(Protocol):
    """Which samples of a batch count: the place of mitigations that act on the loss.

    One that keeps a state between steps is `Resumable` where its training is to be.
    """

    def keep(self, facts: LossFacts) -> torch.Tensor:
        """`(B,)` bool; where it is false throughout, no optimizer step is taken."""
        ...


def noise_target(scheduler: DDPMScheduler, batch: Batch) -> torch.Tensor:
    """What the U-Net should predict: the noise, or the velocity, as its scheduler was configured."""
    if _predicts_velocity(scheduler):
        velocity: torch.Tensor = scheduler.get_velocity(batch.clean, batch.noise, batch.timesteps)
        return velocity
    return batch.noise


def snr_weights(scheduler: DDPMScheduler, timesteps: torch.Tensor, gamma: float) -> torch.Tensor:
    """`(B,)` min-SNR-gamma weights: how much each sample's squared error counts, 1 at most.

    min(SNR, gamma) / SNR where noise is predicted, min(SNR, gamma) / (SNR + 1) where velocity is.

    Source: Hang et al. 2023 (arXiv 2303.09556), section 3.4.
    """
    snr: torch.Tensor = compute_snr(scheduler, timesteps)
    if _predicts_velocity(scheduler):
        return snr.clamp(max=gamma) / (snr + 1)
    return (gamma / snr).clamp(max=1)  # 1 at no signal at all, too


@dataclass(frozen=True)
class Verdict:
    """Which samples of a process's share of a batch count.

    Attributes:
        keep: `(B,)` bool; None where all do, or none.
        kept: how many samples count over all processes.
        divisor: of the sum over this process's samples; the mean over processes of these quotients is the loss.
    """

    keep: torch.Tensor | None
    kept: int
    divisor: Divisor


@dataclass(frozen=True)
class Objective:
    """The loss of one training, as one process sees it.

    Attributes:
        model: the U-Net, or what synchronises its gradients.
        min_snr_gamma: None counts every timestep alike.
        rule: which samples count; None: all.
    """

    model: torch.nn.Module
    scheduler: DDPMScheduler
    accelerator: Accelerator
    min_snr_gamma: float | None = None
    rule: LossRule | None = None

    def predicted(self, batch: Batch, *, told: bool = True) -> torch.Tensor:
        """`(B, C, h, w)`: what the model says of the noisy images, with their captions or with the empty one."""
        if not told and batch.empty is None:
            raise MemControlError("noise magnitudes need captions, and this model takes none: use another mitigation")
        conditioning = batch.conditioning if told else (batch.empty,)
        noisy = self.scheduler.add_noise(batch.clean, batch.noise, batch.timesteps)
        with self.accelerator.autocast():
            predicted: torch.Tensor = self.model(noisy, batch.timesteps, *conditioning, return_dict=False)[0]
        return predicted

    def errors(self, batch: Batch, predicted: torch.Tensor) -> torch.Tensor:
        """`(B, C, h, w)` squared errors, float32."""
        return (predicted.float() - noise_target(self.scheduler, batch)).square()

    def judged(self, parts: list[Batch], whole: Batch, predicted: torch.Tensor | None) -> Verdict:
        """Which samples of the whole count; the rule is asked once, whatever parts it is divided into.

        Args:
            predicted: for the whole; None has it predicted in parts, where the rule asks.
        """
        processes = self.accelerator.num_processes
        everything = Verdict(None, len(whole) * processes, float(len(whole)))
        if self.rule is None:
            return everything
        if predicted is None:
            with torch.no_grad():
                predicted = torch.cat([self.predicted(part) for part in parts])
        keep = self.rule.keep(self._facts(parts, whole, predicted.detach()))
        total = self.accelerator.reduce(keep.sum())
        kept = int(total.item())
        if kept in (0, everything.kept):
            return Verdict(None, kept, everything.divisor)
        # A process whose samples are all left out takes part in the others' step with gradients of zero.
        return Verdict(keep, kept, total if processes == 1 else total / processes)

    def loss(self, part: Batch, errors: torch.Tensor, keep: torch.Tensor | None, divisor: Divisor) -> torch.Tensor:
        """What a part adds to the loss of its process's share; for a whole that counts throughout, the plain mean."""
        if self.min_snr_gamma is None and keep is None and len(part) == divisor:
            return errors.mean()
        losses = errors.mean(dim=IMAGE)
        if self.min_snr_gamma is not None:
            losses = losses * snr_weights(self.scheduler, part.timesteps, self.min_snr_gamma)
        if keep is not None:
            losses = losses * keep
        total: torch.Tensor = losses.sum() / divisor
        return total

    def _facts(self, parts: list[Batch], whole: Batch, predicted: torch.Tensor) -> LossFacts:
        def magnitudes() -> torch.Tensor:
            with torch.no_grad():
                difference = predicted.float() - torch.cat([self.predicted(part, told=False) for part in parts]).float()
            if _predicts_velocity(self.scheduler):
                # eps = sqrt(alpha_bar) v + sqrt(1 - alpha_bar) x, and x is the same for both.
                signal = self.scheduler.alphas_cumprod.to(difference.device)[whole.timesteps].sqrt()
                difference = difference * signal[:, None, None, None]
            # Twice the same prediction may differ in its last bits where one of them has gradients.
            return difference.square().mean(dim=IMAGE).sqrt() * whole.told

        losses = self.errors(whole, predicted).mean(dim=IMAGE)
        return LossFacts(losses, whole.timesteps, whole.positions, magnitudes)


def _predicts_velocity(scheduler: DDPMScheduler) -> bool:
    return bool(scheduler.config["prediction_type"] == "v_prediction")
