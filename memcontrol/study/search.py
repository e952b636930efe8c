"""The whole search: load, check, let workers run the budget, and write down what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from memcontrol.cache import Cache, default_cache_folder
from memcontrol.config import RunConfig, validated
from memcontrol.run import RunFolder, write_atomically
from memcontrol.study.artifacts import artifact_store
from memcontrol.study.cluster import Cluster, run_on_cluster
from memcontrol.study.events import Event, Finished, Listener, Note, ignore
from memcontrol.study.execution import Execution
from memcontrol.study.launching import sole_launch
from memcontrol.study.ledger import Ledger, open_ledger
from memcontrol.study.placement import take_device, worker_devices
from memcontrol.study.processes import run_processes
from memcontrol.study.results import write_results, write_trials
from memcontrol.study.shared import RETRIES
from memcontrol.study.trial import Laboratory
from memcontrol.study.worker import Worker, WorkOrder, run_worker


@dataclass(frozen=True)
class SearchResult:
    """A finished (or interrupted) search.

    Attributes:
        folder: where everything is written.
        front: the content of `front.json`.
        exhausted: whether the space ended before the budget.
    """

    folder: RunFolder
    front: dict[str, Any]
    exhausted: bool


def default_folder(config: RunConfig, execution: Execution | None = None) -> Path:
    """`runs/<data>-<model>-<space>`, then the mitigations' names, so that the same command resumes.

    Args:
        execution: whose study, where hosts share it, names the folder.
    """
    if execution is not None and execution.study is not None:
        return Path("runs") / execution.study
    names = [Path(part).stem or "data" for part in (config.data.source, config.model, config.space)]
    return Path("runs") / "-".join([*names, *(text.partition(":")[0] for text in config.mitigations)])


def search(
    config: RunConfig | None = None,
    out: str | Path | None = None,
    *,
    data: str | None = None,
    model: str | None = None,
    space: str | None = None,
    budget: int | None = None,
    seed: int | None = None,
    workers: int | None = None,
    study: str | None = None,
    execution: Execution | None = None,
    cluster: Cluster | None = None,
    listener: Listener = ignore,
) -> SearchResult:
    """Run or resume a search to its total budget; its front stays unconfirmed until `memcontrol.confirm`.

    Args:
        config: every setting; all have defaults.
        out: run folder; `default_folder` unless given.
        data, model, space, budget, seed: instead of the configuration's own `data.source`, `model`, `space`,
            `search.budget` and `seed`.
        workers: processes; None for one per GPU, or one per core where there is none.
        study: its name in the storage that the environment variable `OPTUNA_STORAGE` names, which other hosts may work
            on too; SQLite in the run folder unless given.
        execution: how the study is worked through, where more than its name is to be said.
        cluster: where workers are submitted to instead of being started here.
        listener: told what happens as it happens.

    Raises:
        MemControlError: bad input, before anything is written; or a study that cannot go on, its trials kept.
        KeyboardInterrupt: after every worker has stopped and the results so far are written.
    """
    sections: dict[str, dict[str, object]] = {
        "": {"model": model, "space": space, "seed": seed},
        "data": {"source": data},
        "search": {"budget": budget},
    }
    config = _changed(config or RunConfig(), sections)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    devices = worker_devices(workers)
    take_device(devices[0])
    cache = Cache(default_cache_folder())
    laboratory = Laboratory(config, cache=cache, device=devices[0])
    execution = execution or Execution(study)
    folder = RunFolder(Path(out or default_folder(config, execution)))
    folder.prepare()
    if execution.artifacts is not None:
        artifact_store(execution.artifacts)
    # Where hosts share a study, each writes what the study says; none is the only one.
    with nullcontext() if execution.shared else sole_launch(folder, "search"):
        return _search(laboratory, folder, devices=devices, execution=execution, cluster=cluster, listener=listener)


def _changed(config: RunConfig, sections: dict[str, dict[str, object]]) -> RunConfig:
    """The configuration with what is not None of its sections ("" for the top level); itself where nothing is given."""
    given = {
        name: {key: value for key, value in values.items() if value is not None} for name, values in sections.items()
    }
    if not any(given.values()):
        return config
    content = config.model_dump(mode="json")
    for name, values in given.items():
        (content[name] if name else content).update(values)
    return validated(content, where="search")


def _search(
    laboratory: Laboratory,
    folder: RunFolder,
    *,
    devices: Sequence[str],
    execution: Execution,
    cluster: Cluster | None,
    listener: Listener,
) -> SearchResult:
    ledger = open_ledger(laboratory, folder, execution)
    ledger.release_stale()
    ledger.announce(laboratory.config.scoring.objectives)
    write_atomically(folder.config, laboratory.config.to_yaml())
    for text in (*laboratory.notes, _plan(laboratory, ledger, len(devices))):
        listener(Note(text))

    def watch(event: Event) -> None:
        listener(event)
        if isinstance(event, Finished):
            write_trials(laboratory, ledger, folder)

    try:
        order = WorkOrder(laboratory.config, folder.path, laboratory.frozen.cache.folder, execution)
        if cluster is not None:
            run_on_cluster(cluster, run_worker, order, len(devices), watch)
        elif len(devices) == 1 and execution.trial_timeout_s is None:
            Worker(laboratory, folder, 0, watch, execution).run()
        else:
            run_processes(run_worker, order, list(devices), watch, replacements=RETRIES)
    finally:
        ledger.write_references()
        front = write_results(laboratory, ledger, folder)
        exhausted = len(ledger.counted()) < ledger.budget
        ledger.database.rest()
    return SearchResult(folder, front, exhausted)


def _plan(laboratory: Laboratory, ledger: Ledger, workers: int) -> str:
    space, done = ledger.proposer.space, len(ledger.counted())
    failed = sum(trial.state == TrialState.FAIL for trial in ledger.trials())
    resumed = (
        f"{done} of {ledger.budget} candidates are done already{f', {failed} failed' if failed else ''}; "
        if done
        else ""
    )
    return (
        f"{resumed}budget {ledger.budget} candidates of {space.size:,} ({len(space.groups)} groups, "
        f"{space.rates.last - space.rates.first + 1} learning rates), sampler {ledger.proposer.sampler}, "
        f"{workers} worker{'s' if workers > 1 else ''}, seed {laboratory.config.seed}"
    )
