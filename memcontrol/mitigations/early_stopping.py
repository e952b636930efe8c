"""Early stopping on the loss of held-out images, keeping the best tensors seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler

from memcontrol.data.images import ImageSet
from memcontrol.errors import DivergedError, MemControlError
from memcontrol.finetuning import Batch, Step, TrainingBatches, noise_target
from memcontrol.mitigations.requirements import check_number
from memcontrol.pipeline import FrozenPipeline

BATCH = 32
"""Pairs that the U-Net is given at a time."""
STREAM = 611
"""It keeps these random numbers apart from all others of a seed, training's noise among them."""


@dataclass(frozen=True)
class EarlyStopping:
    """Stop when the held-out loss no longer falls, and go back to the tensors of its lowest value.

    The learning rate falls over the steps that were asked for, not over those that are taken. At patience None
    training is the plain one, to the last step and tensor.

    Attributes:
        patience: stop after this many checks one after another without improvement; None never checks.
        every: steps between checks.
        improvement: share of the lowest loss so far by which a lower one counts as improvement.
        pairs: held-out images with a timestep and noise, the same at every check, rounded up to whole batches of 32;
            each costs a third of what a training pair does: 128 every 25 steps of 16 add about a tenth to the time.

    Raises:
        MemControlError: a patience, distance or number of pairs below 1, or an improvement not from 0 to below 1.

    Source: Prechelt 1998 (Early stopping - but when?, 10.1007/3-540-49430-8_3), criterion UP, here
    against the lowest loss; as a guard of diffusion models against memorization, Bonnaire et al. 2025 (arXiv
    2505.17638).
    """

    patience: int | None = 3
    every: int = 25
    improvement: float = 0.001
    pairs: int = 128

    def __post_init__(self) -> None:
        if self.patience is not None:
            check_number("early stopping: patience", self.patience, low=1, whole=True)
        check_number("early stopping: every", self.every, low=1, whole=True)
        check_number("early stopping: improvement, a share of the loss,", self.improvement, low=0, below=1)
        check_number("early stopping: pairs", self.pairs, low=1, whole=True)

    def watch(self, loss: Callable[[], float]) -> Watch:
        """The watch over one training; `loss` is that of the U-Net as it is when called, such as a `HeldOutLoss`."""
        return Watch(self, loss)


@dataclass(frozen=True)
class Check:
    """The held-out loss after some optimizer steps, under the averaged tensors where there is an average."""

    step: int
    loss: float


@dataclass
class Watch:
    """Early stopping of one training.

    Attributes:
        checks: every loss seen.
        best: the check whose tensors are kept; None before the first.
    """

    strength: EarlyStopping
    loss: Callable[[], float]
    checks: list[Check] = field(default_factory=list)
    best: Check | None = None
    _tensors: list[torch.Tensor] = field(default_factory=list)
    _waited: int = 0
    _stopped: bool = False

    def steps(self, steps: Iterator[Step]) -> Iterator[Step]:
        """`steps`, or as many of them as it takes.

        Once they are exhausted, the trained tensors are those of the best check, and `.averaged()` of the last step
        gives the same. Where the caller leaves before, they are as the last step left them.

        Raises:
            DivergedError: a held-out loss that is NaN or infinite.
        """
        if self.strength.patience is None:
            yield from steps
            return
        last: Step | None = None
        for step in steps:
            last = step
            checked = bool(self.checks) and self.checks[-1].step >= step.number
            if not checked and step.number % self.strength.every == 0 and self._stops(step):
                self._stopped = True
                step.settle(self._tensors)
            yield step
            if self._stopped:
                return
        if last is not None:
            if not self.checks or self.checks[-1].step != last.number:
                self._stops(last)
            last.settle(self._tensors)

    def state_dict(self) -> dict[str, Any]:
        """The checks so far, and the best tensors."""
        return {
            "checks": [asdict(check) for check in self.checks],
            "best": None if self.best is None else asdict(self.best),
            "tensors": self._tensors,
            "waited": self._waited,
            "stopped": self._stopped,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`; a training that was stopped takes no further step."""
        self.checks[:] = [Check(**check) for check in state["checks"]]
        self.best = None if state["best"] is None else Check(**state["best"])
        self._tensors = list(state["tensors"])
        self._waited, self._stopped = state["waited"], state["stopped"]

    def _stops(self, step: Step) -> bool:
        """Whether this check is the last, after keeping its tensors where its loss is the lowest."""
        with step.averaged():
            check = Check(step.number, self.loss())
            if not math.isfinite(check.loss):
                raise DivergedError(f"held-out loss is {check.loss} at step {step.number}: lower the learning rate")
            lowest = math.inf if self.best is None else self.best.loss
            if check.loss < lowest:
                self.best = check
                self._tensors = [tensor.detach().clone() for tensor in step.parameters.values()]
        self.checks.append(check)
        improved = check.loss < lowest * (1 - self.strength.improvement)
        self._waited = 0 if improved else self._waited + 1
        return self.strength.patience is not None and self._waited >= self.strength.patience


@dataclass(frozen=True)
class HeldOutLoss:
    """Mean squared error of what a pipeline's U-Net predicts for fixed held-out images, timesteps and noise.

    The images are `Dataset.heldout.fidelity`, not those for copying: tensors chosen to fit the images that training
    images are compared with would come out as copying less than they do. Nor those for confirmation, which nothing is
    chosen on. The fidelity of the stopped model is thereby slightly optimistic, and its confirmation is not.

    Attributes:
        batches: on the CPU.
    """

    frozen: FrozenPipeline
    batches: Sequence[Batch]

    @classmethod
    def of(cls, frozen: FrozenPipeline, images: ImageSet, strength: EarlyStopping, *, seed: int) -> HeldOutLoss:
        """The loss on `strength.pairs` pairs of held-out images, drawn with their own captions.

        Raises:
            MemControlError: no images.
        """
        if not len(images):
            raise MemControlError("early stopping got no held-out images: expected one or more")
        source = TrainingBatches(
            latents=frozen.latent_moments(images),
            text=frozen.text_embeddings(images.captions),
            repeats=np.ones(len(images), dtype=np.int64),
            batch=min(BATCH, strength.pairs),
            caption_dropout=0.0,
            train_timesteps=int(frozen.scheduler_config["num_train_timesteps"]),
            seed=int(np.random.SeedSequence([seed, STREAM]).generate_state(1)[0]),
        )
        return cls(frozen, [source.at(step) for step in range(-(-strength.pairs // source.batch))])

    @torch.no_grad()
    def __call__(self) -> float:
        """The loss of the U-Net as it is now."""
        return float(np.mean([self._of(batch) for batch in self.batches]))

    def _of(self, batch: Batch) -> float:
        unet, device = self.frozen.unet, self.frozen.device
        scheduler = DDPMScheduler.from_config(dict(self.frozen.scheduler_config))
        noisy = scheduler.add_noise(batch.clean, batch.noise, batch.timesteps).to(device, unet.dtype)
        told = tuple(part.to(device, unet.dtype) for part in batch.conditioning)
        predicted: torch.Tensor = unet(noisy, batch.timesteps.to(device), *told, return_dict=False)[0]
        return float((predicted.float() - noise_target(scheduler, batch).to(device)).square().mean())
