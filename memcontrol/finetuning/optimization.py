"""The optimizer of one training, the running average beside it, and their state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel

from memcontrol.config import TuningConfig
from memcontrol.errors import MemControlError
from memcontrol.finetuning.flat import FlatTensors, flat


class BeforeStep(Protocol):
    """What is done to the gradients of a backward pass before their norm is clipped."""

    def __call__(self, parameters: Mapping[str, torch.nn.Parameter]) -> None:
        """Change the gradients of `parameters` in place."""
        ...


class AfterStep(Protocol):
    """What is done to the trained tensors after an optimizer step."""

    def __call__(self, parameters: Mapping[str, torch.nn.Parameter], learning_rate: float) -> None:
        """Change `parameters` in place, without gradients."""
        ...


@dataclass(frozen=True)
class Done:
    """One step as its training remembers it.

    Attributes:
        number: from 1.
        rate: learning rate.
        kept: samples that counted; with none, nothing was changed.
    """

    number: int
    loss: float
    rate: float
    kept: int


class RunningAverage:
    """An exponential running average of the trained tensors, whose decay rises to its value in the first steps."""

    def __init__(self, parameters: Sequence[torch.nn.Parameter], parts: Sequence[FlatTensors], decay: float) -> None:
        self.parameters: list[torch.Tensor] = list(parameters)
        self.parts = parts
        joined = [part.joined for part in parts]
        self.joined = EMAModel(joined, decay=decay, use_ema_warmup=True, power=0.75, foreach=True)

    @property
    def tensors(self) -> list[torch.Tensor]:
        """The averages in the order of the parameters; what is written into them is written into the average."""
        views = {
            id(parameter): view
            for part, joined in zip(self.parts, self.joined.shadow_params, strict=True)
            for parameter, view in zip(part.parameters, part.views(joined), strict=True)
        }
        return [views[id(parameter)] for parameter in self.parameters]

    def step(self) -> None:
        """Take the tensors as they are now into the average."""
        self.joined.step([part.joined for part in self.parts])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the parameters hold the average; outside, what they held before."""
        kept = [parameter.detach().clone() for parameter in self.parameters]
        with torch.no_grad():
            torch._foreach_copy_(self.parameters, self.tensors)
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(self.parameters, kept)


class Optimization:
    """AdamW on the trained tensors, and their running average.

    Attributes:
        parts: the tensors as the optimizer sees them: side by side in one, or in one for each data type and device.
        average: None where it is switched off.
        done: the last step; None before the first.
    """

    def __init__(
        self,
        parameters: Mapping[str, torch.nn.Parameter],
        config: TuningConfig,
        accelerator: Accelerator,
        learning_rate: float,
    ) -> None:
        self.parameters, self.config, self.accelerator = parameters, config, accelerator
        self.tensors = list(parameters.values())
        self.parts = flat(self.tensors)
        self.optimizer = torch.optim.AdamW(
            self.joined,
            lr=learning_rate,
            betas=config.betas,
            eps=config.epsilon,
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.prepared = accelerator.prepare_optimizer(self.optimizer)
        self.average = RunningAverage(self.tensors, self.parts, config.ema_decay) if config.ema_decay else None
        self.done: Done | None = None

    @property
    def joined(self) -> list[torch.nn.Parameter]:
        """What the optimizer changes."""
        return [part.joined for part in self.parts]

    @property
    def last(self) -> Done:
        """The last step.

        Raises:
            MemControlError: there was none.
        """
        if self.done is None:
            raise MemControlError("a training was asked for its last step before its first")
        return self.done

    def begin(self, rate: float) -> None:
        """Forget the gradients of the last step."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        for part in self.parts:
            part.hold()
        for tensor in self.tensors:
            tensor.grad = None

    def end(self, done: Done, before: BeforeStep | None, after: AfterStep | None) -> None:
        """Change the tensors by their gradients, unless no sample counted."""
        self.done = done
        if not done.kept:
            return
        if before is not None:
            before(self.parameters)
        for part in self.parts:
            part.gather()
        self.accelerator.clip_grad_norm_(self.joined, self.config.clip)
        # Accelerate's optimizer looks for packages on the disk at each step, which only a loss scaler is worth.
        (self.optimizer if self.accelerator.scaler is None else self.prepared).step()
        if after is not None:
            after(self.parameters, done.rate)
        if self.average is not None:
            self.average.step()

    def release(self) -> None:
        """Let the tensors go, each into memory of its own."""
        for part in self.parts:
            part.release()

    def state_dict(self) -> dict[str, Any]:
        """Tensors, optimizer, average, loss scaler and last step."""
        scaler = self.accelerator.scaler
        moments = self.optimizer.state_dict()["state"]
        average = {} if self.average is None else self.average.joined.state_dict()
        return {
            "tensors": list(self.tensors),
            "moments": {str(place): dict(moment) for place, moment in moments.items()},
            "average": {key: average[key] for key in ("optimization_step", "shadow_params") if average},
            "scaler": None if scaler is None else scaler.state_dict(),
            "done": None if self.done is None else asdict(self.done),
        }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a state of `state_dict`, on whatever device it comes.

        Raises:
            ValueError: it is of other tensors.
        """
        for tensor, saved in zip(self.tensors, state["tensors"], strict=True):
            tensor.copy_(saved)
        moments = {int(place): moment for place, moment in state["moments"].items()}
        self._check_shapes([moment[name] for moment in moments.values() for name in ("exp_avg", "exp_avg_sq")])
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        if self.average is not None:
            self._check_shapes(state["average"]["shadow_params"])
            self.average.joined.load_state_dict(state["average"])
            self.average.joined.to(self.tensors[0].device)
        if self.accelerator.scaler is not None and state["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.done = None if state["done"] is None else Done(**state["done"])

    def _check_shapes(self, saved: Sequence[torch.Tensor]) -> None:
        expected, found = {part.joined.shape for part in self.parts}, {tensor.shape for tensor in saved}
        if not found <= expected:
            raise ValueError(f"numbers of shape {sorted(found - expected)[0]}, expected {sorted(expected)}")
