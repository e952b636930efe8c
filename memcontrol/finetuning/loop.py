"""Optimizer steps, one after another: what each does, what it may be broken off and taken up again with."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from diffusers import DDPMScheduler

from memcontrol.config import TuningConfig
from memcontrol.errors import DivergedError, MemControlError
from memcontrol.finetuning.batches import Batch, Batches
from memcontrol.finetuning.loss import LossRule, Objective
from memcontrol.finetuning.optimization import AfterStep, BeforeStep, Done, Optimization, RunningAverage
from memcontrol.finetuning.state import TrainingState
from memcontrol.pipeline import FrozenPipeline


@dataclass(frozen=True)
class Step:
    """What one optimizer step did.

    Attributes:
        number: steps done so far, from 1.
        loss: mean squared error of the predicted noise (or velocity), per element, over the samples that count; over
            all where none does. Over all processes.
        kept: samples that counted.
        average: the running average of the tuned tensors, None where it is switched off.
    """

    number: int
    loss: float
    learning_rate: float
    average: RunningAverage | None
    parameters: Mapping[str, torch.nn.Parameter]
    kept: int

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the tuned tensors hold their running average; outside, training goes on from where it was."""
        with nullcontext() if self.average is None else self.average.applied():
            yield

    @torch.no_grad()
    def settle(self, tensors: Sequence[torch.Tensor]) -> None:
        """Put tensors, in the order of `parameters`, into the model and into the running average."""
        for parameter, tensor in zip(self.parameters.values(), tensors, strict=True):
            parameter.copy_(tensor)
        if self.average is not None:
            for average, tensor in zip(self.average.tensors, tensors, strict=True):
                average.copy_(tensor)


def learning_rate_factor(step: int, steps: int, warmup: float, schedule: str = "cosine") -> float:
    """Linear rise over the first `warmup` share of the steps, then a cosine to zero, or a constant."""
    rising = max(1, round(warmup * steps))
    if step < rising:
        return (step + 1) / rising
    if schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def finetune(
    unet: torch.nn.Module,
    parameters: Mapping[str, torch.nn.Parameter],
    batches: Batches,
    *,
    learning_rate: float,
    config: TuningConfig,
    scheduler_config: Mapping[str, Any],
    accelerator: Accelerator,
    rule: LossRule | None = None,
    before: BeforeStep | None = None,
    after: AfterStep | None = None,
    state: TrainingState | None = None,
) -> Iterator[Step]:
    """Optimise `parameters` of `unet` for `config.steps` steps, yielding after each.

    Args:
        parameters: all that trains, from `memcontrol.methods.tuned`; the optimizer has state for these alone.
        learning_rate: its peak.
        scheduler_config: the pipeline's noise schedule.
        rule: which samples count; all unless given.
        before: what is done to the gradients before each optimizer step; nothing unless given.
        after: what is done to the trained tensors after each optimizer step; nothing unless given.
        state: where this training's parts are kept, to be saved; one that was saved has it go on from there.

    Raises:
        DivergedError: the loss became NaN or infinite.
        MemControlError: the batch does not divide among processes and micro-batches, or this U-Net has no gradient
            checkpointing.
    """
    check_division(config, accelerator)
    optimization = Optimization(parameters, config, accelerator, learning_rate)
    for name, part in (("training", optimization), ("rule", rule), ("before", before), ("after", after)):
        if state is not None:
            state.add(name, part)
    # Preparing a model for half precision replaces its forward for good, and sampling must not see that.
    model = unet if accelerator.num_processes == 1 else accelerator.prepare_model(Synchronised(unet))
    scheduler = DDPMScheduler.from_config(dict(scheduler_config))
    objective = Objective(model, scheduler, accelerator, config.min_snr_gamma, rule)
    share = slice(accelerator.process_index, None, accelerator.num_processes)
    try:
        if optimization.done is not None:
            yield _step(optimization.last, optimization)
        with _checkpointing(unet, config.gradient_checkpointing):
            for number in range(0 if optimization.done is None else optimization.done.number, config.steps):
                rate = learning_rate * learning_rate_factor(number, config.steps, config.warmup, config.schedule)
                optimization.begin(rate)
                batch = batches.at(number).at(share).to(accelerator.device)
                value, kept = _learnt(objective, batch, config.accumulation)
                if not math.isfinite(value):
                    lower = f"lower the learning rate ({learning_rate:.3g})"
                    raise DivergedError(f"loss is {value} at step {number + 1}: {lower}")
                optimization.end(Done(number + 1, value, rate, kept), before, after)
                yield _step(optimization.last, optimization)
    finally:
        optimization.release()


class Synchronised(torch.nn.Module):
    """A U-Net as distributed training wraps it: what accelerate does to a model's forward is done to this one's."""

    def __init__(self, unet: torch.nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, *inputs: torch.Tensor, return_dict: bool) -> tuple[torch.Tensor]:
        """The U-Net's own."""
        predicted: tuple[torch.Tensor] = self.unet(*inputs, return_dict=return_dict)
        return predicted


def _learnt(objective: Objective, batch: Batch, accumulation: int) -> tuple[float, int]:
    """Leave the gradients of a batch, where any of its samples counts; its loss and how many count, over processes."""
    parts = batch.parts(accumulation)
    accelerator, loss = objective.accelerator, torch.zeros(())
    verdict = None if len(parts) == 1 else objective.judged(parts, batch, None)
    for place, part in enumerate(parts):
        last = place == len(parts) - 1
        with nullcontext() if last else accelerator.no_sync(objective.model):
            predicted = objective.predicted(part)
            if verdict is None:
                verdict = objective.judged(parts, batch, predicted)
            keep = None if verdict.keep is None else torch.split(verdict.keep, [len(one) for one in parts])[place]
            added = objective.loss(part, objective.errors(part, predicted), keep, verdict.divisor)
            loss = added.detach() if place == 0 else loss + added.detach()
            if verdict.kept:
                accelerator.backward(added)
    if accelerator.num_processes > 1:
        loss = accelerator.reduce(loss, reduction="mean")
    return loss.item(), 0 if verdict is None else verdict.kept


def _step(done: Done, optimization: Optimization) -> Step:
    return Step(done.number, done.loss, done.rate, optimization.average, optimization.parameters, done.kept)


def check_division(config: TuningConfig, accelerator: Accelerator) -> None:
    """Raises MemControlError where a batch does not divide among processes and micro-batches."""
    batch, processes = config.batch, accelerator.num_processes
    if batch % processes:
        raise MemControlError(f"batch {batch} does not divide among {processes} processes")
    if config.accumulation > batch // processes:
        each = f" in each of {processes} processes" if processes > 1 else ""
        raise MemControlError(
            f"accumulation {config.accumulation} of {batch // processes} images a step{each}: each micro-batch needs "
            "an image, so give fewer micro-batches, or a larger batch"
        )


@contextmanager
def _checkpointing(unet: Any, wanted: bool) -> Iterator[None]:
    """Inside, activations are computed again in the backward pass instead of kept, where that is wanted."""
    if not wanted or getattr(unet, "is_gradient_checkpointing", False):
        yield
        return
    if not getattr(unet, "_supports_gradient_checkpointing", False):
        raise MemControlError(f"a {type(unet).__name__} has no gradient checkpointing: leave it out")
    unet.enable_gradient_checkpointing()
    try:
        yield
    finally:
        unet.disable_gradient_checkpointing()


def finetune_pipeline(
    frozen: FrozenPipeline,
    parameters: Mapping[str, torch.nn.Parameter],
    batches: Batches,
    *,
    learning_rate: float,
    config: TuningConfig,
    accelerator: Accelerator,
    rule: LossRule | None = None,
    before: BeforeStep | None = None,
    after: AfterStep | None = None,
    state: TrainingState | None = None,
) -> Iterator[Step]:
    """`finetune` with a pipeline's own U-Net and noise schedule."""
    return finetune(
        frozen.unet,
        parameters,
        batches,
        learning_rate=learning_rate,
        config=config,
        scheduler_config=frozen.scheduler_config,
        accelerator=accelerator,
        rule=rule,
        before=before,
        after=after,
        state=state,
    )
