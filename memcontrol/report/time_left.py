"""How long a search still takes: a range, from what its workers did while it was watched."""

from __future__ import annotations

import heapq
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from memcontrol.report.wording import duration_text

NEEDED = 2
"""So many trials must have ended before their time says anything."""
RECENT = 20
"""Trials that count: a search's later ones are not like its first."""
FASTER, SLOWER = 0.85, 1.4
"""What remains may take so many times as long as what was seen: masks grow, and proposals take longer."""
OUTLIER = 3.0
"""A trial counts as at most so many times the upper quartile: a machine that stood still says nothing of the rest."""
MOST_ROUNDS = 50


@dataclass(frozen=True)
class Spread:
    """Seconds: the mean of what was seen, and a low and a high end for what comes."""

    low: float
    mean: float
    high: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Spread | None:
        """Of what single trials took, the latest last; None where they are too few."""
        recent = sorted(seconds[-RECENT:])
        if len(recent) < NEEDED:
            return None
        most = OUTLIER * recent[math.floor(0.75 * (len(recent) - 1))]
        counted = [min(one, most) for one in recent]
        mean, tenth = statistics.fmean(counted), round(0.1 * (len(counted) - 1))
        return cls(min(FASTER * mean, counted[tenth]), mean, max(SLOWER * mean, counted[-1 - tenth]))


@dataclass(frozen=True)
class Ahead:
    """What is still to be done.

    Attributes:
        trials, references: that no worker has begun.
        begun: for each worker that is at work, what it does in trials (1, or as many as a reference takes) and for how
            many seconds it has been at it.
        idle: workers that are between two pieces of work.
        after: trainings that confirm the front, when all else is done.
        reference: how many trials a reference takes.
        speed: how many times as many trials end as these workers end, where other hosts work on the same study.
    """

    trials: int
    references: int
    begun: Sequence[tuple[float, float]]
    idle: int
    after: int
    reference: float
    speed: float = 1.0

    def seconds(self, trial_s: float) -> float:
        """Until all is done, if a trial takes so long: each worker takes the next piece when it has done its own."""
        workers = max(1, len(self.begun) + self.idle)
        free = [max(0.0, trials * trial_s - spent) for trials, spent in self.begun]
        free += [0.0] * (workers - len(free))
        heapq.heapify(free)
        trials = round(self.trials / self.speed)
        rounds = max(0, trials // workers - MOST_ROUNDS)  # whole rounds change nothing but the time
        for count in (self.reference,) * self.references + (1.0,) * (trials - rounds * workers):
            heapq.heappush(free, heapq.heappop(free) + count * trial_s)
        return max(free) + (rounds + math.ceil(self.after / workers)) * trial_s

    def text(self, seen: Spread | None) -> str | None:
        """`about 8 to 14 min left`; None where nothing was seen that says so."""
        if seen is None:
            return None
        return f"about {range_text(self.seconds(seen.low), self.seconds(seen.high))} left"


def range_text(low: float, high: float) -> str:
    """Two durations in seconds, the unit once where it is the same; one of them where both are written alike."""
    first, last = duration_text(low), duration_text(high)
    number, _, unit = first.partition(" ")
    if first == last:
        return first
    return f"{number} to {last}" if unit == last.partition(" ")[2] else f"{first} to {last}"
