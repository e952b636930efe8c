"""How far a study is: trials by state, workers that are heard of, the front so far, and how long the rest takes."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from memcontrol.errors import RunError
from memcontrol.run import RunFolder
from memcontrol.study.budget import BUDGET, COUNTED, SEARCH
from memcontrol.study.execution import Execution
from memcontrol.study.reference_study import references_of
from memcontrol.study.shared import CLAIMED_BY, was_interrupted
from memcontrol.study.storage import StudyDatabase, quiet


@dataclass(frozen=True)
class Working:
    """A worker that has a trial.

    Attributes:
        worker: `HOST:PROCESS`.
        silent_s: since it was heard of.
        lost: whether that is longer than a live worker is silent.
    """

    worker: str
    trial: int
    silent_s: float
    lost: bool


@dataclass(frozen=True)
class Status:
    """How far a study is.

    Attributes:
        place: where it is kept, without secrets.
        budget: None for a study that has none yet.
        trials: how many are in each state.
        references: how many of those are.
        objectives: their names.
        front: each member's trial and its values, in the order of the objectives.
        trials_an_hour: by the workers that are heard of; None where none finished, or none is.
    """

    study: str
    place: str
    budget: int | None
    trials: Mapping[str, int]
    references: Mapping[str, int]
    workers: tuple[Working, ...]
    objectives: tuple[str, ...]
    front: tuple[tuple[int, tuple[float, ...]], ...]
    trials_an_hour: float | None
    seconds_left: float | None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def status_of(folder: RunFolder, execution: Execution) -> Status:
    """How far the study of a run folder is, or the one that hosts share; nothing of it is changed.

    Raises:
        RunError: there is none.
    """
    if not execution.shared and not folder.study.is_file():
        raise RunError(f"no study in {folder.path}: name the folder of a search, or --study and its storage")
    database, name = StudyDatabase(folder, execution), execution.study or SEARCH
    try:
        return database.patiently(lambda: _read(database, name))
    finally:
        database.rest()


def _read(database: StudyDatabase, name: str) -> Status:
    known = optuna.get_all_study_names(storage=database.storage)
    if name not in known:
        apart = {references_of(one) for one in known}
        named = [one for one in known if one not in apart]
        raise RunError(f"no study {name} in {database.shown} (studies: {', '.join(named) or 'none'})")
    study = optuna.load_study(study_name=name, storage=database.storage)
    trials = study.get_trials(deepcopy=False)
    references = references_of(name)
    scored = optuna.load_study(study_name=references, storage=database.storage) if references in known else None
    workers = _workers(database, [*trials, *(scored.get_trials(deepcopy=False) if scored else [])])
    budget = study.user_attrs.get(BUDGET)
    done = [trial for trial in trials if trial.state in COUNTED]
    seconds = [float(trial.user_attrs["seconds"]) for trial in done if "seconds" in trial.user_attrs]
    alive, typical = sum(not one.lost for one in workers), statistics.median(seconds) if seconds else 0.0
    left = None if budget is None else max(0, budget - len(done))
    with quiet():
        names = study.metric_names or []
    return Status(
        study=name,
        place=database.shown,
        budget=budget,
        trials=_states(trials),
        references=_states(scored.get_trials(deepcopy=False)) if scored else {},
        workers=workers,
        objectives=tuple(names),
        front=tuple((trial.number, tuple(trial.values)) for trial in study.best_trials),
        trials_an_hour=round(3600 * alive / typical, 2) if alive and typical else None,
        seconds_left=0.0 if left == 0 else math.ceil(left / alive) * typical if left and alive and typical else None,
    )


def _states(trials: Sequence[FrozenTrial]) -> dict[str, int]:
    named = ("interrupted" if was_interrupted(trial) else trial.state.name.lower() for trial in trials)
    return dict(sorted(Counter(named).items()))


def _workers(database: StudyDatabase, trials: Sequence[FrozenTrial]) -> tuple[Working, ...]:
    """Those whose trials run."""
    silent = database.silences()
    found = []
    for trial in trials:
        if trial.state == TrialState.RUNNING:
            silent_s = silent.get(trial._trial_id, 0.0)
            lost = silent_s > database.execution.grace_s
            found.append(Working(str(trial.user_attrs.get(CLAIMED_BY, "?")), trial.number, round(silent_s, 1), lost))
    return tuple(found)
