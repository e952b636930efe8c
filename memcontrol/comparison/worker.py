"""One worker of a comparison: claims a row and a seed, trains and scores it, until none is left."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import optuna

from memcontrol.cache import Cache
from memcontrol.comparison.cells import Cell
from memcontrol.comparison.ledger import CellLedger, CellWork
from memcontrol.config import RunConfig
from memcontrol.run import RunFolder
from memcontrol.study.events import Listener, Progress
from memcontrol.study.pictures import beside_training
from memcontrol.study.placement import take_device
from memcontrol.study.telling import Teller
from memcontrol.study.trial import Evaluation, Laboratory


class SharedSettings(Protocol):
    """What all rows share, for each seed."""

    @property
    def seeds(self) -> tuple[int, ...]:
        """In the order in which they are worked through."""

    def run(self, seed: int) -> RunConfig:
        """The settings of one seed."""


@dataclass(frozen=True)
class CellOrder:
    """What a worker needs to know; small enough to send to a new process.

    Attributes:
        elsewhere: what messages offer to those who want other rows or settings.
    """

    config: SharedSettings
    cells: tuple[Cell, ...]
    identity: Mapping[str, str]
    folder: Path
    cache: Path
    elsewhere: str = "another --out"

    def ledger(self) -> CellLedger:
        """The comparison's study, made or joined.

        Raises:
            RunError: it was made with other settings or other rows.
        """
        return CellLedger(
            RunFolder(self.folder),
            cells={cell.name: cell.content for cell in self.cells},
            seeds=self.config.seeds,
            objectives=self.config.run(self.config.seeds[0]).scoring.objectives,
            identity=self.identity,
            elsewhere=self.elsewhere,
        )


def run_cell_worker(order: CellOrder, number: int, device: str, listener: Listener) -> None:
    """Work until the study has no work left."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    take_device(device)
    CellWorker(order, number, device, listener).run()


class CellWorker:
    """Trains what it claims; one that fails is recorded with its reason, an interrupted one is given back.

    Args:
        laboratory: of one of the seeds, where it is loaded already.
    """

    def __init__(
        self,
        order: CellOrder,
        number: int,
        device: str,
        listener: Listener,
        laboratory: Laboratory | None = None,
    ) -> None:
        self.order, self.device, self.listener, self._laboratory = order, device, listener, laboratory
        self.folder, self.ledger = RunFolder(order.folder), order.ledger()
        self.cells = {cell.name: cell for cell in order.cells}
        self.teller = Teller(self.folder, number, listener)

    def run(self) -> None:
        """Train until none is left."""
        while work := self.ledger.claim():
            try:
                laboratory = self._at(work.seed)
                self.ledger.check_data(work.seed, laboratory.data_fingerprint)
            except BaseException:
                self.ledger.abandon(work)
                raise
            self._score(work, laboratory)

    def _at(self, seed: int) -> Laboratory:
        """What all rows of a seed share; kept until another seed is asked for."""
        if self._laboratory is None or self._laboratory.config.seed != seed:
            self.listener(Progress(self.teller.number, f"seed {seed}", "load", 0, 1))
            self._laboratory = None  # freed before the next is loaded
            config = self.order.config.run(seed)
            self._laboratory = Laboratory(config, cache=Cache(self.order.cache), device=self.device)
        return self._laboratory

    def _score(self, work: CellWork, laboratory: Laboratory) -> None:
        began, name = time.monotonic(), f"{work.cell}, seed {work.seed}"
        try:
            with self.ledger.working_on(work):
                evaluation, numel = self._evaluated(work, laboratory, name)
                picture = beside_training(evaluation.images, laboratory)
                self.folder.write_picture(self.folder.samples(work.number), picture)
        except KeyboardInterrupt:
            self.ledger.abandon(work)
            raise
        except Exception as error:  # noqa: BLE001 - one failing training fails alone, and says why
            self.ledger.stop_where_full(work, error)
            why = f"{type(error).__name__}: {error}"
            self.ledger.fail(work, why, self.teller.facts(began))
            self.teller.finished(name, work.number, began, why)
            return
        facts = {"loss": evaluation.loss, "steps": evaluation.steps, "numel": numel}
        objectives = laboratory.config.scoring.objectives
        self.ledger.complete(work, evaluation.scores, objectives, self.teller.facts(began) | facts)
        scores = {objective: evaluation.scores[objective].value for objective in objectives}
        self.teller.finished(name, work.number, began, scores=scores)

    def _evaluated(self, work: CellWork, laboratory: Laboratory, name: str) -> tuple[Evaluation, int]:
        """The evaluation, and how many numbers were trained."""
        cell = self.cells[work.cell]
        groups = cell.recipe.groups(laboratory.frozen.unet)
        steps = cell.recipe.steps or laboratory.config.tuning.steps
        told = self.teller.progress(name)
        evaluation = laboratory.evaluate(
            groups, cell.recipe.rate, steps, told, mitigations=cell.plan, stop=cell.recipe.stop
        )
        return evaluation, sum(group.numel for group in groups)
