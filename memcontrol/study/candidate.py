"""What a study chooses: which groups train, at which learning rate, and how strong its mitigations are."""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from dataclasses import dataclass, field

from memcontrol.groups import ParameterGroup
from memcontrol.mitigations.choices import MitigationChoices
from memcontrol.mitigations.plan import MitigationPlan

STEPS_PER_DECADE = 4
LEVELS = string.digits + string.ascii_lowercase


@dataclass(frozen=True)
class Candidate:
    """One mask at one learning rate.

    Attributes:
        levels: one for each group that the space lets a mask switch: 0 frozen, 1 trained, 2 and up trained under the
            settings of an alternative (`ParameterGroup.at`).
        learning_rate: peak rate on a quarter-decade grid; None where nothing trains.
        steps: optimizer steps.
        strengths: which value each searched strength of a mitigation has; empty where none is searched or nothing
            trains.
    """

    levels: tuple[int, ...]
    learning_rate: float | None
    steps: int
    strengths: tuple[int, ...] = ()

    @property
    def mask(self) -> str:
        """The levels as digits: zeros and ones where no group has alternatives."""
        return "".join(LEVELS[level] for level in self.levels)


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
        full_rate: full fine-tuning's customary learning rate, where the space says so.
        mitigations: under which candidates train, and which of their strengths are searched.
    """

    groups: tuple[ParameterGroup, ...]
    always: tuple[ParameterGroup, ...]
    rates: RateGrid
    steps: int
    full_rate: float | None = None
    mitigations: MitigationChoices = field(default_factory=MitigationChoices)

    def candidate(self, levels: Sequence[int], rate_index: int, strengths: Sequence[int] | None = None) -> Candidate:
        """The candidate of these levels; rate and strengths are dropped where nothing would train.

        Args:
            strengths: the middle value of each that is searched, unless given.
        """
        if not (any(levels) or self.always):
            return Candidate(tuple(map(int, levels)), None, self.steps)
        chosen = self.mitigations.middle if strengths is None else tuple(map(int, strengths))
        return Candidate(tuple(map(int, levels)), self.rates.rate(rate_index), self.steps, chosen)

    @property
    def size(self) -> int:
        """How many distinct candidates there are."""
        masks = math.prod(self.highest(group) + 1 for group in self.groups)
        each: int = (self.rates.last - self.rates.first + 1) * self.mitigations.count
        return masks * each if self.always else masks * each - (each - 1)

    def mitigation_texts(self, candidate: Candidate) -> tuple[str, ...]:
        """The mitigations of a candidate, as `load_mitigation` reads them."""
        return self.mitigations.texts(candidate.strengths or self.mitigations.middle)

    def plan(self, candidate: Candidate) -> MitigationPlan:
        """The mitigations of a candidate, put in their places."""
        return self.mitigations.plan(candidate.strengths or self.mitigations.middle)

    @staticmethod
    def highest(group: ParameterGroup) -> int:
        """A group's highest level."""
        return 1 + len(group.alternatives)

    def trained(self, levels: Sequence[int]) -> tuple[ParameterGroup, ...]:
        """The groups that these levels train, with the settings that they choose."""
        chosen = tuple(group.at(level) for group, level in zip(self.groups, levels, strict=True) if level)
        return self.always + chosen

    def customary_rate(self, levels: Sequence[int]) -> int:
        """Grid index of a usual rate for these levels: small masks want larger rates than large ones.

        A straight line in logarithms from the grid's top at a hundredth of the switchable parameters to a quarter of a
        decade below its middle at all of them.
        """
        whole = sum(group.numel for group in self.trained([self.highest(group) for group in self.groups]))
        share = max(0.01, sum(group.numel for group in self.trained(levels)) / whole)
        middle = (self.rates.first + self.rates.last) / 2
        slope = (self.rates.last - middle + STEPS_PER_DECADE / 4) / 2
        return self.rates.nearest(10 ** ((middle - 1 - slope * math.log10(share)) / STEPS_PER_DECADE))

    def trajectory_rates(self) -> tuple[float, ...]:
        """Half a decade below, at, and above full fine-tuning's customary rate, to one digit."""
        middle = self.full_rate or self.rates.rate(self.customary_rate((1,) * len(self.groups)))
        return tuple(float(f"{middle * factor:.0e}") for factor in (10**-0.5, 1, 10**0.5))

    def baselines(self) -> list[Candidate]:
        """Everything at each level, then each family of groups.

        Those of a family share the first or the last part of their dotted names.
        """
        top = max(map(self.highest, self.groups), default=1)
        families: dict[tuple[int, ...], None] = {
            tuple(min(level, self.highest(group)) for group in self.groups): None for level in range(1, top + 1)
        }
        parts = [group.name.split(".") for group in self.groups]
        for which in (-1, 0):
            for family in dict.fromkeys(part[which] for part in parts):
                families.setdefault(tuple(int(part[which] == family) for part in parts))
        return [self.candidate(levels, self.customary_rate(levels)) for levels in families]
