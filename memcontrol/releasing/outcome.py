"""What a training came to: its last step, and which of its tensors are left where copying ended it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from memcontrol.finetuning import Step
from memcontrol.monitoring import Look


@dataclass
class LastClear:
    """The tuned tensors at the last look at which no rule for stopping applied, as they were looked at.

    Attributes:
        step: of that look; None where there was none.
        tensors: their averages where there are, on the CPU.
    """

    step: int | None = None
    tensors: list[torch.Tensor] = field(default_factory=list)

    def keep(self, step: int, parameters: Mapping[str, torch.nn.Parameter]) -> None:
        """Keep copies of the tensors as they are."""
        self.step = step
        self.tensors = [parameter.detach().to("cpu", copy=True) for parameter in parameters.values()]

    def state_dict(self) -> dict[str, Any]:
        """Step and tensors."""
        return {"step": self.step, "tensors": self.tensors}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a state of `state_dict`."""
        self.step, self.tensors = state["step"], list(state["tensors"])


@dataclass(frozen=True)
class Outcome:
    """What a training came to.

    Attributes:
        last: the last step; inside its `averaged()` the tensors are those to be saved.
        number: optimizer steps after which these tensors were so.
        look: the look at these very tensors; None where nothing was looked at, and in all processes but the first.
        notes: sentences on how a look ended the training; none where none did.
    """

    last: Step
    number: int
    look: Look | None = None
    notes: tuple[str, ...] = ()


def stopped_outcome(last: Step, looks: list[Look], clear: LastClear) -> Outcome:
    """The outcome of a training that the last look ended: the tensors of the last clear one are put back."""
    look = looks[-1]
    stopped = f"Stopped at step {look.step:,}: {look.reason}."
    if clear.step is None:
        said = (
            f"{stopped} That was so at every look, so what is saved are the tensors of step {look.step:,} all the same."
        )
        return Outcome(last, last.number, look, (said,))
    last.settle(clear.tensors)
    seen = next(one for one in looks if one.step == clear.step)
    said = f"{stopped} What is saved are the tensors of step {clear.step:,}, the last look at which that was not so"
    said += (
        "." if clear.step else ": the base model's, since no step had been taken; looking more often finds later ones."
    )
    return Outcome(last, clear.step, seen, (said,))
