"""The study that all workers share: who does what, exact budgets, and what came of it.

Optuna's relational storage holds the trials, and in a second study the references. A lock makes "how many are there,
what comes next, mine" one act, so any number of workers run exactly the budget and never the same candidate twice.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from memcontrol.run import RunFolder, check_content, read_object
from memcontrol.run_documents import ReferenceFile
from memcontrol.score import direction, is_fidelity
from memcontrol.study.budget import BUDGET, SEARCH, BudgetStudy, all_params
from memcontrol.study.candidate import Candidate
from memcontrol.study.execution import Execution
from memcontrol.study.proposals import Proposer, chosen_sampler
from memcontrol.study.reference_study import ReferenceStudy, ReferenceWork, references_of
from memcontrol.study.rungs import CHECKPOINTS, RUNGS, Floats, Judgement, Record, at_rung, may_stand, records
from memcontrol.study.shared import lost_before, was_interrupted
from memcontrol.study.storage import quiet
from memcontrol.study.trial import Evaluation, Laboratory, Reached


@dataclass(frozen=True)
class TrialWork:
    """A candidate to score, and the trial that it is in the study."""

    candidate: Candidate
    trial: optuna.Trial

    @property
    def number(self) -> int:
        """The trial's number."""
        return self.trial.number


class Ledger(BudgetStudy):
    """A run's study, and that of its references.

    Args:
        identity: what must be the same for trials to be comparable; kept with the study.
        judgement: of candidates at rungs.
        execution: where the study is kept; in the run folder unless given.

    Raises:
        RunError: the folder's study has another identity (the message names the differences).
    """

    def __init__(
        self,
        folder: RunFolder,
        proposer: Proposer,
        *,
        identity: Mapping[str, str],
        budget: int,
        judgement: Judgement | None = None,
        execution: Execution | None = None,
    ) -> None:
        self.proposer, self.budget, self.judgement = proposer, budget, judgement or Judgement()
        name = (execution.study if execution else None) or SEARCH
        super().__init__(folder, name, directions=proposer.directions, identity=identity, execution=execution)
        self.reference_study = ReferenceStudy(
            folder, references_of(name), directions=("minimize",), identity=identity, database=self.database
        )
        if not self.execution.shared:
            self.reference_study.adopt(self._written_references())

    def release_stale(self) -> int:
        """Give back the trials that an earlier launch left running, and forget references that failed.

        A study that hosts share may have workers elsewhere: there, trials are lost when they are not heard of.

        Returns:
            how many trials were given back.
        """
        released = 0 if self.execution.shared else self.release_running()
        if not self.execution.shared:
            self.reference_study.release_running()
        self.reference_study.forgive()
        return released

    def announce(self, objectives: Sequence[str]) -> None:
        """Tell whoever looks at the study its budget, and what its values are."""

        def told() -> None:
            self.study.set_user_attr(BUDGET, self.budget)
            with quiet():
                self.study.set_metric_names(list(objectives))

        self.database.patiently(told)

    def claim_reference(self, names: tuple[str, ...]) -> ReferenceWork | None:
        """The first reference that nobody has scored or claimed."""
        study = self.reference_study
        return study.claim(names) if study.has_work(names) or study.recovery_due() else None

    def claim_trial(self) -> TrialWork | None:
        """A new trial, or None where the budget is claimed or the space exhausted.

        Raises:
            RunError: every trial so far failed.
        """
        trial = self.claim()
        return None if trial is None else TrialWork(self.proposer.candidate(trial.params), trial)

    def proposed(self, history: Sequence[FrozenTrial], number: int) -> Mapping[str, Any] | None:
        """Parameters of the next candidate; None where the space is exhausted."""
        candidate = self.proposer.next(history, number)
        return None if candidate is None else self.proposer.params(candidate)

    def distributions(self) -> dict[str, BaseDistribution]:
        """Optuna's view of the space."""
        return self.proposer.distributions()

    def work_of(self, trial: FrozenTrial) -> Hashable | None:
        """The candidate; None of a trial that has not all parameters."""
        return None if super().work_of(trial) is None else self.proposer.candidate(all_params(trial))

    def judge(self, work: TrialWork, reached: Reached) -> tuple[Record, bool]:
        """Keep what a trial scored at a rung, with whether it goes on; and whether it may stand on the front as it is.

        A known baseline always goes on. Others are all whose scores at this rung are there, interrupted ones left out:
        their candidates come again.
        """
        return self.database.patiently(lambda: self._judged(work, reached))

    def _judged(self, work: TrialWork, reached: Reached) -> tuple[Record, bool]:
        names, own = list(reached.evaluation.scores), list(reached.evaluation.scores.values())
        with self.lock:
            heard = [trial for trial in self.trials() if trial.number != work.number and not was_interrupted(trial)]
            others = self._at((reached.rung.share, reached.rung.images), heard)
            spared = work.candidate in self.proposer.space.baselines()
            record = Record(
                share=reached.rung.share,
                images=reached.rung.images,
                steps=reached.evaluation.steps,
                of=reached.of,
                values=tuple(score.value for score in own),
                goes_on=spared or self.judgement.goes_on(own, others * self.proposer.signs),
            )
            # Where the connection broke while this was written, it is written again.
            known = [one for one in work.trial.user_attrs.get(RUNGS, []) if one["steps"] != record.steps]
            work.trial.set_user_attr(RUNGS, [*known, asdict(record)])
        return record, self._may_stand(record, names, others, heard)

    def _at(self, key: tuple[float, int], trials: Sequence[FrozenTrial]) -> Floats:
        """`(N, M)` objectives of trials that reached a rung."""
        found = at_rung((records(trial.user_attrs) for trial in trials), key)
        return self._points([record.values for record in found])

    def _points(self, values: Sequence[Sequence[float]]) -> Floats:
        return np.array(values, dtype=np.float64).reshape(-1, len(self.proposer.directions))

    def _may_stand(
        self, record: Record, objectives: Sequence[str], others: Floats, trials: Sequence[FrozenTrial]
    ) -> bool:
        """Whether a checkpoint is worth all images, by what other trials scored."""
        looks: list[tuple[Floats, Floats]] = []
        known = [trial.values for trial in trials if trial.state == TrialState.COMPLETE]
        for trial in trials:
            early = {own.steps: own for own in records(trial.user_attrs)}
            for one in trial.user_attrs.get(CHECKPOINTS, []):
                values = [one["scores"][name]["value"] for name in objectives]
                known.append(values)
                at = early.get(one["steps"])
                if at is not None and at.key == record.key:
                    looks.append((np.array(at.values), np.array(values)))
        own, proposer = np.array(record.values), self.proposer
        return may_stand(own, others, looks, self._points(known), logarithmic=proposer.scales, signs=proposer.signs)

    def keep(self, work: TrialWork, evaluation: Evaluation, of: int) -> None:
        """Keep a checkpoint of a trial that was scored as a whole one."""
        scores = {name: score.to_json() for name, score in evaluation.scores.items()}
        kept = {"steps": evaluation.steps, "of": of, "scores": scores}

        def keep() -> None:
            known = [one for one in work.trial.user_attrs.get(CHECKPOINTS, []) if one["steps"] != evaluation.steps]
            work.trial.set_user_attr(CHECKPOINTS, [*known, kept])

        self.database.patiently(keep)

    def inherit(self, work: TrialWork, step: int) -> None:
        """Take over what the trial in whose place this one came scored at rungs, up to the step at which it goes on."""

        def inherited() -> None:
            trials = self.trials()
            for number in lost_before(trials[work.number])[-1:]:
                for name in (RUNGS, CHECKPOINTS):
                    known = [one for one in trials[number].user_attrs.get(name, []) if one["steps"] < step]
                    if known:
                        work.trial.set_user_attr(name, known)

        self.database.patiently(inherited)

    def prune(self, work: TrialWork, extra: Mapping[str, Any]) -> bool:
        """Record that a trial ended at its last rung, which uses the budget; returns whether that counts."""
        return self.end(work, extra, state=TrialState.PRUNED)

    def others_running(self) -> bool:
        """Whether a trial or a reference is unfinished, so that its failure could leave something to do."""
        return super().others_running() or self.reference_study.others_running()

    def write_reference(
        self, work: ReferenceWork, points: list[dict[str, Any]], seconds: float, error: str | None = None
    ) -> bool:
        """Record a reference's points, or why it failed; returns whether that counts."""
        counts = self.reference_study.write(work, points, seconds, error)
        if counts:
            self._write_file(work.name, points, error)
        return counts

    def references(self) -> dict[str, list[dict[str, Any]]]:
        """Every scored reference: its name, and its points."""
        return self.reference_study.points()

    def write_references(self) -> None:
        """Write a file for every scored reference that has none in this folder."""
        for name, points in self.references().items():
            if not self._reference_path(name).exists():
                self._write_file(name, points, None)

    def _write_file(self, name: str, points: list[dict[str, Any]], error: str | None) -> None:
        self.folder.write_json(self._reference_path(name), {"name": name, "points": points, "error": error})

    def _written_references(self) -> dict[str, list[dict[str, Any]]]:
        found = {path: read_object(path) for path in sorted(self.folder.references.glob("*.json"))}
        for path, content in found.items():
            check_content(content, ReferenceFile, path)
        return {path.stem: content["points"] for path, content in found.items() if content["points"]}

    def _reference_path(self, name: str) -> Path:
        return self.folder.references / f"{name}.json"


def open_ledger(laboratory: Laboratory, folder: RunFolder, execution: Execution | None = None) -> Ledger:
    """The ledger of a run, made or joined.

    Args:
        execution: where the study is kept; in the run folder unless given.

    Raises:
        RunError: the folder's study was made with other settings.
    """
    config, space = laboratory.config, laboratory.candidates
    proposer = Proposer(
        space=space,
        sampler=chosen_sampler(
            config.search.sampler,
            budget=config.search.budget,
            groups=len(space.groups),
            objectives=len(config.scoring.objectives),
        ),
        directions=tuple(
            "minimize" if direction(name) == "lower" else "maximize" for name in config.scoring.objectives
        ),
        seed=config.seed,
        logarithmic=tuple(map(is_fidelity, config.scoring.objectives)),
    )
    settings = config.search
    judgement = Judgement(settings.eta, settings.minimum, settings.margin)
    return Ledger(
        folder,
        proposer,
        identity=laboratory.identity,
        budget=settings.budget,
        judgement=judgement,
        execution=execution,
    )
