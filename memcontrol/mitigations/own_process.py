"""What one process trains by itself among several, and what all of them have in common."""

from __future__ import annotations

from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from numpy.typing import NDArray


class Alone:
    """An accelerator as a process sees it that trains by itself: its device and precision, and no other process."""

    num_processes, process_index = 1, 0

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator

    def __getattr__(self, name: str) -> Any:
        return getattr(self._accelerator, name)

    def reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor: there is nothing to add."""
        return tensor


def alone(accelerator: Accelerator) -> Accelerator:
    """The accelerator for a training of this process by itself."""
    return accelerator if accelerator.num_processes == 1 else cast(Accelerator, Alone(accelerator))


def summed(array: NDArray[Any], accelerator: Accelerator) -> NDArray[Any]:
    """A copy of the array, summed over processes."""
    if accelerator.num_processes == 1:
        return array.copy()
    total: NDArray[Any] = accelerator.reduce(torch.from_numpy(array.copy()).to(accelerator.device)).cpu().numpy()
    return total


def of_first(number: float, accelerator: Accelerator) -> float:
    """The first process's number, in all: their rounding may differ, and what they decide by the number may not."""
    if accelerator.num_processes == 1:
        return number
    told = torch.tensor([number], dtype=torch.float64, device=accelerator.device)
    return float(broadcast(told, from_process=0).item())
