"""CPU seconds of works in turns, and what autograd keeps for them."""

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

Line = dict[str, Any]


def saved_mb(work: Callable[[], object]) -> float:
    """Megabytes that autograd keeps for the backward pass, but for tensors that train."""
    sizes: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.is_leaf or not tensor.requires_grad:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        work()
    return sum(sizes.values()) / 1e6


class Stopwatch:
    """CPU seconds of named works, taken in turns so that a busy machine is unfair to none.

    Attributes:
        spent: all readings by key.
    """

    def __init__(self, rounds: int, repeats: int) -> None:
        self.rounds, self.repeats = rounds, repeats
        self.spent: dict[tuple[object, ...], list[float]] = defaultdict(list)

    def take(self, key: tuple[object, ...], work: Callable[[], object]) -> None:
        """Read `repeats` times after a warm-up."""
        work()
        for _ in range(self.repeats):
            began = time.process_time()
            work()
            self.spent[key].append(time.process_time() - began)

    def each(self, parts: int, *keys: tuple[object, ...]) -> Line:
        """Milliseconds of one of so many parts, the mean over keys.

        Median and quartiles, and the least, which other work on the cores spoils least.
        """
        spent = [np.quantile(np.array(self.spent[key]) * 1000 / parts, (0, 0.25, 0.5, 0.75)) for key in keys]
        least, low, middle, high = (round(float(value), 3) for value in np.mean(spent, axis=0))
        readings = sum(len(self.spent[key]) for key in keys)
        return {"cpu_ms": middle, "least_ms": least, "quartiles_ms": [low, high], "n": readings}
