"""Anti-gradient control: samples whose loss is abnormally low for their timestep do not count."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from memcontrol.errors import MemControlError
from memcontrol.finetuning import LossFacts
from memcontrol.mitigations.requirements import check_number


@dataclass(frozen=True)
class AntiGradientControl:
    """Skip a sample whose loss, times `multiplier`, is below the running mean loss of its timestep.

    Attributes:
        multiplier: m, above 0; the published lambda is 1/m. The lower, the more is skipped; m = 2 for CIFAR and 1.25
            for Stable Diffusion. At m = 1, what is below its timestep's mean is skipped.
        decay: of each timestep's running mean, from 0 and below 1.
        width: how many neighbouring timesteps share a mean, 1 or more; 1 as published. A short training sees most
            timesteps a few times at most, in each shard, and then skips next to nothing: the means rise from 0.

    Raises:
        MemControlError: a number that is out of its range.

    Source: Liu et al. 2024 (arXiv 2407.15328), "anti-gradient control"; the order of events is that of their code.
    """

    multiplier: float = 2.0
    decay: float = 0.8
    width: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.multiplier < math.inf:
            raise MemControlError(
                f"multiplier of anti-gradient control is {self.multiplier}: expected a number above 0, such as 2 "
                "(skip what is below half the mean); leave the control out to skip nothing"
            )
        check_number("decay of the loss bank", self.decay, low=0, below=1)
        check_number("width of the loss bank, in timesteps,", self.width, low=1, whole=True)

    def rule(self, *, timesteps: int, images: int) -> LossBank:
        """An empty bank, for one training.

        Args:
            timesteps: of the noise schedule.
            images: in the training set.
        """
        return LossBank(self, timesteps=timesteps, images=images)


@dataclass(frozen=True)
class LossBankRecord:
    """A loss bank at one moment, to keep and to draw.

    Attributes:
        means: `(ceil(T / width),)` float64, running mean loss of each timestep, or of each `width` neighbouring ones;
            0 where none was seen.
        skips: `(N,)` int64, how often each training image was skipped.
        seen: `(N,)` int64, how often it was judged.
    """

    means: NDArray[np.float64]
    skips: NDArray[np.int64]
    seen: NDArray[np.int64]


class LossBank:
    """A `LossRule` with a running mean loss for each timestep, which starts at 0, so that nothing is skipped at first.

    A batch is judged by the bank as it stands before the batch; then every sample's raw loss enters the bank, skipped
    ones too, in the batch's order, so that samples of one timestep enter one after another. In several processes each
    has a bank of its own samples.

    Attributes:
        control: its strengths.
        timesteps: of the noise schedule.
        means, skips, seen: as in `LossBankRecord`, and changing.
    """

    def __init__(self, control: AntiGradientControl, *, timesteps: int, images: int) -> None:
        self.control, self.timesteps = control, timesteps
        self.means = np.zeros(-(-timesteps // control.width))
        self.skips = np.zeros(images, dtype=np.int64)
        self.seen = np.zeros(images, dtype=np.int64)

    def keep(self, facts: LossFacts) -> torch.Tensor:
        """`(B,)` bool: whether `multiplier * loss` reaches the mean of the sample's timestep."""
        weighted, bounds = self.judged(facts)
        return torch.from_numpy(weighted >= bounds).to(facts.losses.device)

    def judged(self, facts: LossFacts) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """`multiplier * loss` of each sample and what it is held against, `(B,)` each; then the samples enter the bank.

        What is below is counted as skipped.
        """
        losses = facts.losses.double().cpu().numpy()
        places = facts.timesteps.cpu().numpy() // self.control.width
        weighted, bounds = self.control.multiplier * losses, self.means[places]
        np.add.at(self.seen, facts.positions, 1)
        np.add.at(self.skips, facts.positions[weighted < bounds], 1)
        decay = self.control.decay
        for place, loss in zip(places, losses, strict=True):
            self.means[place] = decay * self.means[place] + (1 - decay) * loss
        return weighted, bounds

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """The bank as it stands."""
        return {"means": self.means, "skips": self.skips, "seen": self.seen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with a bank of `state_dict`."""
        for name, array in self.state_dict().items():
            np.copyto(array, np.asarray(state[name]))

    def record(self) -> LossBankRecord:
        """A copy of the bank as it stands."""
        return LossBankRecord(self.means.copy(), self.skips.copy(), self.seen.copy())
