"""What a study chooses: which groups train, and at which learning rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from memcontrol.groups import ParameterGroup

STEPS_PER_DECADE = 4


@dataclass(frozen=True)
class Candidate:
    """One mask at one learning rate.

    Attributes:
        bits: one for each group that the space lets a mask switch.
        learning_rate: peak rate on a quarter-decade grid; None where nothing trains.
        steps: optimizer steps.
    """

    bits: tuple[bool, ...]
    learning_rate: float | None
    steps: int

    @property
    def mask(self) -> str:
        """The bits as zeros and ones."""
        return "".join("1" if bit else "0" for bit in self.bits)


@dataclass(frozen=True)
class RateGrid:
    """Learning rates a quarter decade apart, `10 ** (index / 4)` for `first <= index <= last`.

    Attributes:
        fixed: the one rate of a space that searches none, on the grid or not.
    """

    first: int
    last: int
    fixed: float | None = None

    @classmethod
    def between(cls, low: float, high: float) -> RateGrid:
        """Grid points in [low, high]; where it holds none, its geometric middle alone."""
        first = math.ceil(STEPS_PER_DECADE * math.log10(low) - 1e-6)
        last = math.floor(STEPS_PER_DECADE * math.log10(high) + 1e-6)
        if first > last or low == high:
            middle = math.sqrt(low * high)
            nearest = round(STEPS_PER_DECADE * math.log10(middle))
            return cls(nearest, nearest, float(f"{middle:.3g}"))
        return cls(first, last)

    def rate(self, index: int) -> float:
        """The learning rate of a grid index, to three digits."""
        return self.fixed or float(f"{10 ** (index / STEPS_PER_DECADE):.3g}")

    def nearest(self, rate: float) -> int:
        """The grid index nearest to a rate."""
        return min(self.last, max(self.first, round(STEPS_PER_DECADE * math.log10(rate))))


@dataclass(frozen=True)
class CandidateSpace:
    """All candidates of a run.

    Attributes:
        groups: the groups that a mask switches, in bit order.
        always: groups that train whatever the mask says.
    """

    groups: tuple[ParameterGroup, ...]
    always: tuple[ParameterGroup, ...]
    rates: RateGrid
    steps: int

    def candidate(self, bits: Sequence[bool], rate_index: int) -> Candidate:
        """The candidate of these bits; the rate is dropped where nothing would train."""
        trains = any(bits) or bool(self.always)
        return Candidate(tuple(map(bool, bits)), self.rates.rate(rate_index) if trains else None, self.steps)

    @property
    def size(self) -> int:
        """How many distinct candidates there are."""
        count: int = 2 ** len(self.groups) * (self.rates.last - self.rates.first + 1)
        return count if self.always else count - (self.rates.last - self.rates.first)

    def trained(self, bits: Sequence[bool]) -> tuple[ParameterGroup, ...]:
        """The groups that these bits train."""
        return self.always + tuple(group for group, bit in zip(self.groups, bits, strict=True) if bit)

    def customary_rate(self, bits: Sequence[bool]) -> int:
        """Grid index of a usual rate for these bits: small masks want larger rates than large ones.

        A straight line in logarithms from the grid's top at a hundredth of the switchable parameters to half a decade
        below its middle at all of them.
        """
        whole = sum(group.numel for group in self.groups + self.always)
        share = max(0.01, sum(group.numel for group in self.trained(bits)) / whole)
        middle = (self.rates.first + self.rates.last) / 2
        slope = (self.rates.last - middle + STEPS_PER_DECADE / 4) / 2
        return self.rates.nearest(10 ** ((middle - 1 - slope * math.log10(share)) / STEPS_PER_DECADE))

    def trajectory_rates(self) -> tuple[float, ...]:
        """Half a decade below, at, and above the customary rate for everything, to one digit."""
        middle = self.rates.rate(self.customary_rate((True,) * len(self.groups)))
        return tuple(float(f"{middle * factor:.0e}") for factor in (10**-0.5, 1, 10**0.5))

    def baselines(self) -> list[Candidate]:
        """Everything, then each family of groups: those that share a first or a last part of their dotted names."""
        families: dict[tuple[bool, ...], None] = {(True,) * len(self.groups): None}
        parts = [group.name.split(".") for group in self.groups]
        for which in (-1, 0):
            for family in dict.fromkeys(part[which] for part in parts):
                families.setdefault(tuple(part[which] == family for part in parts))
        return [self.candidate(bits, self.customary_rate(bits)) for bits in families]
