"""One worker: claims references, then trials, from the shared study until none is left."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import optuna

from memcontrol.cache import Cache
from memcontrol.config import RunConfig
from memcontrol.fingerprint import fingerprint
from memcontrol.mitigations.plan import MitigationPlan
from memcontrol.run import RunFolder
from memcontrol.study.artifacts import upload
from memcontrol.study.candidate import Candidate
from memcontrol.study.events import Listener, Progress
from memcontrol.study.execution import Execution
from memcontrol.study.heartbeat import Heartbeat
from memcontrol.study.kept_training import KeptTraining
from memcontrol.study.ledger import Ledger, TrialWork, open_ledger
from memcontrol.study.pictures import beside_training
from memcontrol.study.placement import loaded_for_good, take_device
from memcontrol.study.reference_study import ReferenceWork
from memcontrol.study.references import as_candidate, reference_names, score_reference
from memcontrol.study.rungs import Record
from memcontrol.study.telling import Teller
from memcontrol.study.trial import Evaluation, Laboratory, OnStep, Reached

IDLE_S = 1.0
DROPPED = "not heard of for too long, so another worker has it: the result is dropped"


@dataclass(frozen=True)
class WorkOrder:
    """What a worker needs to know; small enough to send to a new process, and without secrets."""

    config: RunConfig
    folder: Path
    cache: Path
    execution: Execution = field(default_factory=Execution)


@dataclass(frozen=True)
class _Ended:
    """How a trial ended.

    Attributes:
        counts: whether that was recorded: not where another worker has the trial.
        scores: of its objectives, where it completed.
        pruned: where it ended that did not complete.
    """

    counts: bool
    error: str | None = None
    scores: dict[str, float] | None = None
    pruned: str | None = None


def run_worker(order: WorkOrder, number: int, device: str, listener: Listener) -> None:
    """Load everything, then work until the study has no work left."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    take_device(device)
    listener(Progress(number, "start", "load", 0, 1))
    laboratory = Laboratory(order.config, cache=Cache(order.cache), device=device)
    Worker(laboratory, RunFolder(order.folder), number, listener, order.execution).run()


class Worker:
    """Scores what it claims; a trial that fails is recorded with its reason, an interrupted one is given back."""

    def __init__(
        self,
        laboratory: Laboratory,
        folder: RunFolder,
        number: int,
        listener: Listener,
        execution: Execution | None = None,
    ) -> None:
        self.laboratory, self.folder = laboratory, folder
        self.ledger: Ledger = open_ledger(laboratory, folder, execution)
        self.teller = Teller(folder, number, listener)
        self._known: dict[Candidate, Evaluation] = {}

    def run(self) -> None:
        """Score references, then trials, until none is left or another worker could still free one."""
        with loaded_for_good():
            self._work()

    def _work(self) -> None:
        names = reference_names(self.laboratory)
        while True:
            if (reference := self.ledger.claim_reference(names)) is not None:
                self._score_reference(reference)
            elif (work := self.ledger.claim_trial()) is not None:
                self._score_trial(work)
            elif self.ledger.others_running():
                self.ledger.database.rest()
                time.sleep(IDLE_S)
            else:
                self.ledger.database.rest()
                return

    def _score_reference(self, work: ReferenceWork) -> None:
        began, name = time.monotonic(), work.name
        study = self.ledger.reference_study
        try:
            with study.working_on(work) as beat:
                scored = score_reference(name, self.laboratory, _heard(self.teller.progress(name), beat))
        except KeyboardInterrupt:
            study.abandon(work)
            raise
        except Exception as error:  # noqa: BLE001 - a reference that fails does so alone, and says why
            study.stop_where_full(work, error)
            why = f"{type(error).__name__}: {error}"
            self.ledger.write_reference(work, [], 0, why)
            self.teller.finished(name, None, began, why)
            return
        self._know(scored)
        points = [_point(rate, evaluation) for rate, evaluation in scored]
        counts = self.ledger.write_reference(work, points, round(time.monotonic() - began, 2))
        self.teller.finished(name, None, began, None if counts else DROPPED)

    def _know(self, scored: Sequence[tuple[float | None, Evaluation]]) -> None:
        """Remember what a reference scored that is a candidate to come as well, which is then not trained again.

        Where candidates are judged at rungs it is: others are compared with what it scores there.
        """
        expected = () if self.laboratory.config.search.rungs else self.ledger.proposer.space.baselines()
        for rate, evaluation in scored:
            candidate = None if rate is None else as_candidate(self.laboratory, rate, evaluation.steps)
            if candidate is not None and candidate in expected:
                self._known[candidate] = evaluation

    def _score_trial(self, work: TrialWork) -> None:
        began, name = time.monotonic(), f"trial {work.number}"
        kept: KeptTraining | None = None
        judge = TrialJudge(self.ledger, work, self._draw, checkpoints=self.laboratory.config.search.checkpoints)
        try:
            with self.ledger.working_on(work, self.ledger.execution.trial_timeout_s) as beat:
                plan = self.ledger.proposer.space.plan(work.candidate)
                kept = self._kept(work, plan)
                told = _heard(self.teller.progress(name), beat)
                if (evaluation := self._known.pop(work.candidate, None)) is None:
                    evaluation = self._evaluated(work.candidate, told, plan=plan, judge=judge, kept=kept)
                else:
                    self.teller.said(name, "is full fine-tuning as a reference trained it: its scores are taken over")
                self._draw(work, evaluation)
                self._upload(work)
        except KeyboardInterrupt:
            self.ledger.abandon(work)
            raise
        except Exception as error:  # noqa: BLE001 - one failing trial fails alone, and says why
            self.ledger.stop_where_full(work, error)
            why = f"{type(error).__name__}: {error}"
            ended = _Ended(self.ledger.fail(work, why, self.teller.facts(began)), error=why)
        else:
            ended = self._recorded(work, evaluation, judge.pruned, began)
        if not ended.counts:
            ended = _Ended(False, error=DROPPED)
        elif kept is not None:
            kept.clear()
        self.teller.finished(name, work.number, began, ended.error, scores=ended.scores, pruned=ended.pruned)

    def _evaluated(
        self,
        candidate: Candidate,
        told: OnStep,
        *,
        plan: MitigationPlan,
        judge: TrialJudge,
        kept: KeptTraining | None,
    ) -> Evaluation:
        groups = self.ledger.proposer.space.trained(candidate.levels)
        return self.laboratory.evaluate(
            groups, candidate.learning_rate, candidate.steps, told, mitigations=plan, judge=judge, kept=kept
        )

    def _recorded(self, work: TrialWork, evaluation: Evaluation, pruned: Record | None, began: float) -> _Ended:
        """Record what a trial scored, or at which rung it ended."""
        facts = self.teller.facts(began) | {"loss": evaluation.loss, "steps": evaluation.steps}
        if pruned is not None:
            return _Ended(self.ledger.prune(work, facts), pruned=pruned.text)
        objectives = self.laboratory.config.scoring.objectives
        counts = self.ledger.complete(work, evaluation.scores, objectives, facts)
        return _Ended(counts, scores={objective: evaluation.scores[objective].value for objective in objectives})

    def _kept(self, work: TrialWork, plan: MitigationPlan) -> KeptTraining | None:
        """Where the trial's training is kept, if it is; ensembles begin anew."""
        every_s, trains = self.ledger.execution.checkpoint_every_s, work.candidate.learning_rate is not None
        if every_s is None or not trains or plan.in_shards:
            return None
        identity = self.laboratory.identity | {"candidate": repr(work.candidate)}
        folder, attempt = self.folder.kept(fingerprint(identity)), f"trial-{work.number:03d}"
        kept = KeptTraining(folder, attempt, identity, self.laboratory.accelerator, every_s)
        if kept.step:
            self.ledger.inherit(work, kept.step)
            self.teller.said(f"trial {work.number}", f"goes on from step {kept.step}")
        return kept

    def _upload(self, work: TrialWork) -> None:
        """Keep the trial's picture where all hosts can have it."""
        place = self.ledger.execution.artifacts
        if place is not None:
            upload(self.folder.samples(work.number), work.trial, place)

    def _draw(self, work: TrialWork, evaluation: Evaluation, at: int | None = None) -> None:
        """Write the picture of a trial's images, at its end or at a checkpoint."""
        picture = beside_training(evaluation.images, self.laboratory)
        self.folder.write_picture(self.folder.samples(work.number, at), picture)


class Draw(Protocol):
    """What draws a trial's images."""

    def __call__(self, work: TrialWork, evaluation: Evaluation, at: int | None = None) -> None:
        """Write the picture, of a checkpoint where `at` names its steps."""


@dataclass
class TrialJudge:
    """Judges one trial at its rungs, and keeps those checkpoints that may stand on the front.

    By a rung's few images it is only chosen which checkpoint is scored by all: what stands on the front was scored as
    whole candidates are.

    Attributes:
        checkpoints: whether they may.
        pruned: the record of the rung at which the trial ended.
    """

    ledger: Ledger
    work: TrialWork
    draw: Draw
    checkpoints: bool
    pruned: Record | None = None

    def __call__(self, reached: Reached) -> bool:
        """Whether the trial goes on."""
        record, may_stand = self.ledger.judge(self.work, reached)
        if self.checkpoints and may_stand:
            whole = reached.whole()
            self.ledger.keep(self.work, whole, reached.of)
            self.draw(self.work, whole, whole.steps)
        if not record.goes_on:
            self.pruned = record
        return record.goes_on


def _heard(told: OnStep, beat: Heartbeat) -> OnStep:
    """Tells of a step, unless the work was given to another worker."""

    def tell(phase: str, done: int, total: int) -> None:
        beat.check()
        told(phase, done, total)

    return tell


def _point(rate: float | None, evaluation: Evaluation) -> dict[str, Any]:
    scores = {name: score.to_json() for name, score in evaluation.scores.items()}
    return {"learning_rate": rate, "steps": evaluation.steps, "loss": evaluation.loss, "scores": scores}
