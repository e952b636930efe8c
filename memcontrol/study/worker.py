"""One worker: claims references, then trials, from the shared study until none is left."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import torch

from memcontrol.cache import Cache
from memcontrol.config import RunConfig
from memcontrol.run import RunFolder
from memcontrol.study.events import Listener, Progress
from memcontrol.study.ledger import Ledger, TrialWork, open_ledger
from memcontrol.study.pictures import beside_training
from memcontrol.study.references import reference_names, score_reference
from memcontrol.study.telling import Teller
from memcontrol.study.trial import Evaluation, Laboratory

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
        self.laboratory, self.folder = laboratory, folder
        self.ledger: Ledger = open_ledger(laboratory, folder)
        self.teller = Teller(folder, number, listener)

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
            points = score_reference(name, self.laboratory, self.teller.progress(name))
        except Exception as error:  # noqa: BLE001 - a reference that fails does so alone, and says why
            reason = f"{type(error).__name__}: {error}"
            self.ledger.write_reference(name, [], reason)
            self.teller.finished(name, None, began, reason)
            return
        self.ledger.write_reference(name, [_point(rate, evaluation) for rate, evaluation in points])
        self.teller.finished(name, None, began)

    def _score_trial(self, work: TrialWork) -> None:
        began, name = time.monotonic(), f"trial {work.number}"
        candidate = work.candidate
        space, told = self.ledger.proposer.space, self.teller.progress(name)
        groups, plan = space.trained(candidate.levels), space.plan(candidate)
        try:
            evaluation = self.laboratory.evaluate(
                groups, candidate.learning_rate, candidate.steps, told, mitigations=plan
            )
            self.folder.write_picture(
                self.folder.samples(work.number), beside_training(evaluation.images, self.laboratory)
            )
        except KeyboardInterrupt:
            self.ledger.abandon(work)
            raise
        except Exception as error:  # noqa: BLE001 - one failing trial fails alone, and says why
            reason = f"{type(error).__name__}: {error}"
            self.ledger.fail(work, reason, self.teller.facts(began))
            self.teller.finished(name, work.number, began, reason)
            return
        facts = self.teller.facts(began) | {"loss": evaluation.loss, "steps": evaluation.steps}
        objectives = self.laboratory.config.scoring.objectives
        self.ledger.complete(work, evaluation.scores, objectives, facts)
        scores = {objective: evaluation.scores[objective].value for objective in objectives}
        self.teller.finished(name, work.number, began, scores=scores)


def _point(rate: float | None, evaluation: Evaluation) -> dict[str, Any]:
    scores = {name: score.to_json() for name, score in evaluation.scores.items()}
    return {"learning_rate": rate, "steps": evaluation.steps, "loss": evaluation.loss, "scores": scores}
