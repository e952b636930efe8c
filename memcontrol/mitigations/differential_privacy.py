"""DP-SGD through opacus: each sample's gradient clipped, noise on their sum, and the epsilon that this amounts to."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from accelerate import Accelerator

from memcontrol.config import TuningConfig
from memcontrol.errors import MemControlError
from memcontrol.finetuning import AfterStep, BeforeStep, Step, TrainingBatches, TrainingState, finetune_pipeline
from memcontrol.mitigations.per_sample_gradients import NoisyGradients, per_sample
from memcontrol.mitigations.privacy_accounting import PoissonBatches, PrivacyLoss, privacy_loss
from memcontrol.pipeline import FrozenPipeline


@dataclass(frozen=True)
class DifferentialPrivacy:
    """DP-SGD: batches drawn by Poisson sampling, per-sample gradients clipped and summed, Gaussian noise added.

    The noisy sum, divided by the batch size, takes the gradient's place: AdamW, the bound on the whole gradient's norm
    (`TuningConfig.clip`) and the running average go on as in plain training, and cost no epsilon. Works for tuned
    weights and biases of plain layers (`full`) and for LoRA's factors. Holds one gradient for each sample of a batch.

    Without noise and with no clip, training is the plain one, on the plain batches. A per-sample sum of gradients is
    rounded otherwise than a batch's: the same through opacus would agree to some 1e-6, and not to the last bit.

    Attributes:
        noise: standard deviation of the noise as a multiple of `clip`, from 0.
        clip: largest norm of one sample's gradient over all trained tensors; infinite only without noise.

    Raises:
        MemControlError: a negative noise, a clip not above 0, or noise without a finite clip.

    Source: Abadi et al. 2016 (arXiv 1607.00133, algorithm 1); for fine-tuned diffusion models, Ghalebikesabi et al.
    2023 (arXiv 2302.13861).
    """

    noise: float = 1.0
    clip: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.noise < math.inf:
            raise MemControlError(f"differential privacy: noise {self.noise}: expected a finite multiplier, 0 or more")
        if not self.clip > 0:
            raise MemControlError(f"differential privacy: clip {self.clip}: expected a gradient norm above 0")
        if self.noise and self.clip == math.inf:
            raise MemControlError("differential privacy: noise is a multiple of the clip: give a finite clip")

    def steps(
        self,
        frozen: FrozenPipeline,
        parameters: Mapping[str, torch.nn.Parameter],
        batches: TrainingBatches,
        *,
        learning_rate: float,
        config: TuningConfig,
        accelerator: Accelerator,
        after: AfterStep | None = None,
        state: TrainingState | None = None,
    ) -> Iterator[Step]:
        """`finetune_pipeline` under this mitigation; `Step.kept` is the size of the batch drawn, which may be 0.

        Where none was drawn, the step is taken by noise alone, and its loss is that of a sample that does not count.

        Raises:
            MemControlError: several processes, half precision, accumulation or gradient checkpointing (each sample's
                gradient is kept in one backward pass), a batch larger than the training set, or a method of whose
                parameters opacus does not know each sample's gradient.
            MissingPackageError: opacus is not installed.
        """
        if not self.noise and self.clip == math.inf:
            plain = (frozen, parameters, batches)
            yield from finetune_pipeline(
                *plain, learning_rate=learning_rate, config=config, accelerator=accelerator, after=after, state=state
            )
            return
        self.check(config, accelerator)
        drawn = PoissonBatches.of(batches)
        with self.gradients(frozen.unet, parameters, batch=batches.batch, seed=batches.seed, drawn=drawn) as before:
            for step in finetune_pipeline(
                frozen,
                parameters,
                drawn,
                learning_rate=learning_rate,
                config=config,
                accelerator=accelerator,
                before=before,
                after=after,
                state=state,
            ):
                yield replace(step, kept=len(drawn.drawn(step.number - 1)))

    def check(self, config: TuningConfig, accelerator: Accelerator) -> None:
        """Refuse, before anything is trained, what this mitigation cannot be trained with.

        Raises:
            MemControlError: several processes, half precision, accumulation or gradient checkpointing.
        """
        if self.noise or self.clip < math.inf:
            _check_accelerator(accelerator)
            _check_backward(config)

    @contextmanager
    def gradients(
        self,
        unet: torch.nn.Module,
        parameters: Mapping[str, torch.nn.Parameter],
        *,
        batch: int,
        seed: int,
        drawn: PoissonBatches | None = None,
    ) -> Iterator[BeforeStep]:
        """Inside, each sample's gradients are kept, and the yielded `BeforeStep` clips, sums and noises them.

        Args:
            batch: expected size, by which the sum is divided.
            drawn: where batches come from, if some of them are empty.

        Raises:
            MemControlError: as `steps`.
        """
        with per_sample(unet, parameters):
            tensors = list(parameters.values())
            yield NoisyGradients(tensors, noise=self.noise, clip=self.clip, batch=batch, seed=seed, drawn=drawn)

    def epsilon(self, batches: TrainingBatches, *, steps: int, delta: float) -> PrivacyLoss:
        """The accountant's epsilon after `steps` steps on Poisson samples of these batches' records.

        Raises:
            MemControlError: a delta that is not above 0 and below one in as many as there are records.
            MissingPackageError: opacus is not installed.
        """
        return privacy_loss(batches, self.noise, steps=steps, delta=delta)


def _check_accelerator(accelerator: Accelerator) -> None:
    if accelerator.num_processes > 1:
        raise MemControlError(f"differential privacy trains in one process, not {accelerator.num_processes}")
    if accelerator.mixed_precision != "no":
        raise MemControlError(
            f"differential privacy: mixed_precision {accelerator.mixed_precision}: expected no, since gradients that "
            "are scaled or rounded would be clipped at another norm"
        )


def _check_backward(config: TuningConfig) -> None:
    for name in ("accumulation", "gradient_checkpointing"):
        if getattr(config, name) != TuningConfig.model_fields[name].default:
            raise MemControlError(
                f"differential privacy: {name} {getattr(config, name)}: expected none, since each sample's gradient is "
                "kept in one backward pass over the whole batch; lower the batch size instead"
            )
