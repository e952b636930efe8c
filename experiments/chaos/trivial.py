"""Work that costs nothing: a study of integers with two objectives, whose workers import no torch."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.trial import FrozenTrial

from memcontrol.run import RunFolder
from memcontrol.study.budget import BudgetStudy
from memcontrol.study.events import Finished, Listener
from memcontrol.study.execution import Execution

IDLE_S = 0.5


@dataclass(frozen=True)
class Order:
    """What a worker needs to know.

    Attributes:
        size: how many integers there are.
        seconds: that a trial takes.
        adaptive: whether what comes next depends on what was scored; else it is the next integer.
    """

    folder: Path
    budget: int
    size: int
    seconds: float = 0.0
    adaptive: bool = False
    execution: Execution = field(default_factory=Execution)


class Integers(BudgetStudy):
    """A study of integers."""

    def __init__(self, order: Order, identity: Mapping[str, str] | None = None) -> None:
        self.order, self.budget = order, order.budget
        super().__init__(
            RunFolder(order.folder),
            order.execution.study or "search",
            directions=("minimize", "minimize"),
            identity=identity or {"seed": "0"},
            execution=order.execution,
        )

    def distributions(self) -> dict[str, BaseDistribution]:
        return {"x": IntDistribution(0, self.order.size - 1)}

    def proposed(self, history: Sequence[FrozenTrial], number: int) -> Mapping[str, Any] | None:  # noqa: ARG002
        seen = {trial.params["x"] for trial in history}
        left = [x for x in range(self.order.size) if x not in seen]
        if not left or not self.order.adaptive:
            return {"x": left[0]} if left else None
        best = min((trial for trial in history if trial.values), key=lambda trial: trial.values[0], default=None)
        near = best.params["x"] if best else 0
        return {"x": min(left, key=lambda x: (abs(x - near), x))}


def values(x: int) -> list[float]:
    """Two objectives of an integer, each from 0 to 1."""
    digest = hashlib.sha256(str(x).encode()).digest()
    return [int.from_bytes(digest[start : start + 4], "big") / 2**32 for start in (0, 4)]


def work(order: Order, number: int, device: str, listener: Listener) -> None:  # noqa: ARG001
    """Score integers until none is left."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = Integers(order)
    while True:
        trial = study.claim()
        if trial is not None:
            score(study, trial, number, order.seconds, listener)
        elif study.others_running():
            study.database.rest()
            time.sleep(IDLE_S)
        else:
            study.database.rest()
            return


def score(study: Integers, trial: optuna.Trial, number: int, seconds: float, listener: Listener) -> None:
    began, claimed = time.monotonic(), SimpleNamespace(trial=trial)
    with study.working_on(claimed):
        _idle(seconds)
        told = values(trial.params["x"])
    counts = study.end(claimed, {"worker": number}, told)
    error = None if counts else "dropped"
    name = f"trial {trial.number}"
    study.folder.append_log({"time": time.time(), "worker": number, "work": name, "seconds": 0, "error": error})
    listener(Finished(number, name, trial.number, time.monotonic() - began, error))


def _idle(seconds: float) -> None:
    """Pass the time as training does, step by step."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(min(0.05, seconds))
