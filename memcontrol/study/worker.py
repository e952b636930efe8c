"""One worker: claims references, then trials, from the shared study until none is left."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import torch

from memcontrol.cache import Cache
from memcontrol.config import RunConfig
from memcontrol.run import RunFolder
from memcontrol.study.events import Finished, Listener, Progress
from memcontrol.study.ledger import Ledger, TrialWork, open_ledger
from memcontrol.study.pictures import beside_training
from memcontrol.study.references import reference_names, score_reference
from memcontrol.study.trial import Evaluation, Laboratory

PROGRESS_EVERY_S = 0.5
IDLE_S = 1.0


@dataclass(frozen=True)
class WorkOrder:
    """What a worker needs to know; small enough to send to a new process."""

    config: RunConfig
    folder: Path
    cache: Path


def run_worker(order: WorkOrder, number: int, device: str, listener: Listener) -> None:
    """Load everything, then work until the study has no work left."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if device == "cpu":
        torch.set_num_threads(1)
    else:
        torch.cuda.set_device(device)  # accelerate takes the current device
    listener(Progress(number, "start", "load", 0, 1))
    laboratory = Laboratory(order.config, cache=Cache(order.cache), device=device)
    Worker(laboratory, RunFolder(order.folder), number, listener).run()


class Worker:
    """Scores what it claims; a trial that fails is recorded with its reason, an interrupted one is given back."""

    def __init__(self, laboratory: Laboratory, folder: RunFolder, number: int, listener: Listener) -> None:
        self.laboratory, self.folder, self.number, self.listener = laboratory, folder, number, listener
        self.ledger: Ledger = open_ledger(laboratory, folder)
        self._spoke = 0.0

    def run(self) -> None:
        """Score references, then trials, until none is left or another worker could still free one."""
        while reference := self.ledger.claim_reference(reference_names(self.laboratory)):
            self._score_reference(reference)
        while True:
            work = self.ledger.claim_trial()
            if work is not None:
                self._score_trial(work)
            elif self.ledger.others_running():
                time.sleep(IDLE_S)
            else:
                return

    def _score_reference(self, name: str) -> None:
        began = time.monotonic()
        try:
            points = score_reference(name, self.laboratory, self._progress(name))
        except Exception as error:  # noqa: BLE001 - a reference that fails does so alone, and says why
            reason = f"{type(error).__name__}: {error}"
            self.ledger.write_reference(name, [], reason)
            self._finished(name, None, began, reason)
            return
        self.ledger.write_reference(name, [_point(rate, evaluation) for rate, evaluation in points])
        self._finished(name, None, began)

    def _score_trial(self, work: TrialWork) -> None:
        began, name = time.monotonic(), f"trial {work.number}"
        candidate = work.candidate
        groups = self.ledger.proposer.space.trained(candidate.levels)
        try:
            evaluation = self.laboratory.evaluate(
                groups, candidate.learning_rate, candidate.steps, self._progress(name)
            )
            self.folder.write_picture(
                self.folder.samples(work.number), beside_training(evaluation.images, self.laboratory)
            )
        except KeyboardInterrupt:
            self.ledger.abandon(work)
            raise
        except Exception as error:  # noqa: BLE001 - one failing trial fails alone, and says why
            reason = f"{type(error).__name__}: {error}"
            self.ledger.fail(work, reason, self._facts(began))
            self._finished(name, work.number, began, reason)
            return
        facts = self._facts(began) | {"loss": evaluation.loss, "steps": evaluation.steps}
        objectives = self.laboratory.config.scoring.objectives
        self.ledger.complete(work, evaluation.scores, objectives, facts)
        scores = {objective: evaluation.scores[objective].value for objective in objectives}
        self._finished(name, work.number, began, scores=scores)

    def _facts(self, began: float) -> dict[str, Any]:
        return {"worker": self.number, "seconds": round(time.monotonic() - began, 2)}

    def _progress(self, work: str) -> Callable[[str, int, int], None]:
        def tell(phase: str, done: int, total: int) -> None:
            if time.monotonic() - self._spoke >= PROGRESS_EVERY_S:
                self._spoke = time.monotonic()
                self.listener(Progress(self.number, work, phase, done, total))

        return tell

    def _finished(
        self,
        work: str,
        trial: int | None,
        began: float,
        error: str | None = None,
        *,
        scores: dict[str, float] | None = None,
    ) -> None:
        seconds = round(time.monotonic() - began, 2)
        self.folder.append_log(
            {"time": time.time(), "worker": self.number, "work": work, "seconds": seconds, "error": error}
        )
        self.listener(Finished(self.number, work, trial, seconds, error, scores))


def _point(rate: float | None, evaluation: Evaluation) -> dict[str, Any]:
    scores = {name: score.to_json() for name, score in evaluation.scores.items()}
    return {"learning_rate": rate, "steps": evaluation.steps, "loss": evaluation.loss, "scores": scores}
