"""Workers are killed, stopped and cut off while they work on one study; what they find is what a quiet run finds.

`--work trivial` scores integers without torch; `--work tiny` trains masks on the shipped model. With `--adaptive` what
comes next depends on what was scored, so that only the accounting is compared. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import server as servers
import trivial
from optuna.trial import TrialState

from memcontrol.run import RunFolder
from memcontrol.study.execution import Execution

COUNTED = (TrialState.COMPLETE, TrialState.PRUNED)
ONE_REFERENCE = {"trajectory_rates": [1e-3], "trajectory_points": [1.0]}


@dataclass(frozen=True)
class Subject:
    """What the storm is about.

    Attributes:
        work: what each worker process runs.
        order: makes what it is given, of a study's name and a folder.
        prepare: makes the study, with its list of candidates queued where that is fixed.
        outcome: what is compared of a trial, as text.
    """

    work: Callable[..., None]
    order: Callable[[str, Path], Any]
    prepare: Callable[[Any], Any]
    outcome: Callable[[Any], str]


def trivial_subject(arguments: argparse.Namespace) -> Subject:
    def order(name: str, folder: Path) -> trivial.Order:
        execution = Execution(name, heartbeat_s=1, grace_s=arguments.grace)
        size = 10 * arguments.trials if arguments.adaptive else arguments.trials
        return trivial.Order(folder, arguments.trials, size, arguments.seconds, arguments.adaptive, execution)

    def prepare(made: trivial.Order) -> trivial.Integers:
        study = trivial.Integers(made)
        if not arguments.adaptive:
            study.enqueue([{"x": x} for x in range(arguments.trials)])
        return study

    return Subject(trivial.work, order, prepare, lambda trial: json.dumps([trial.params, trial.values]))


def tiny_subject(arguments: argparse.Namespace) -> Subject:
    from memcontrol.cache import Cache, default_cache_folder
    from memcontrol.config import validated
    from memcontrol.study.ledger import open_ledger
    from memcontrol.study.trial import Laboratory
    from memcontrol.study.worker import WorkOrder, run_worker

    content = {
        "data": {"train_size": 8, "fidelity": 32, "copying": 64, "confirmation": 16},
        "tuning": {"steps": arguments.steps, "batch": 4},
        "sampling": {"images": 24, "steps": 3},
        "scoring": {"objectives": ["fd@pixels", "copy_gap@pixels"], "reported": [], "permutations": 20},
        "search": {"budget": arguments.trials, "sampler": "tpe", **ONE_REFERENCE},
    }
    config = validated(content, where="storm")
    laboratory = Laboratory(config, cache=Cache(default_cache_folder()), device="cpu")

    def order(name: str, folder: Path) -> WorkOrder:
        execution = Execution(name, heartbeat_s=1, grace_s=arguments.grace)
        return WorkOrder(config, folder, default_cache_folder(), execution)

    def prepare(made: WorkOrder) -> Any:
        ledger = open_ledger(laboratory, RunFolder(made.folder), made.execution)
        if not arguments.adaptive:
            ledger.enqueue(
                [ledger.proposer.params(one) for one in fixed_masks(ledger.proposer.space, arguments.trials)]
            )
        return ledger

    def outcome(trial: Any) -> str:
        return json.dumps([trial.params, trial.values, trial.user_attrs["scores"]], sort_keys=True)

    return Subject(run_worker, order, prepare, outcome)


def fixed_masks(space: Any, count: int) -> list[Any]:
    """Different candidates, drawn with a seed."""
    rng, found = random.Random(0), dict.fromkeys(space.baselines()[:count])
    while len(found) < count:
        levels = [rng.randint(0, space.highest(group)) for group in space.groups]
        found[space.candidate(levels, rng.randint(space.rates.first, space.rates.last))] = None
    return list(found)


def unheard(event: object) -> None:
    """Nobody listens."""


def quiet_run(subject: Subject, name: str, folder: Path) -> Any:
    """One worker, undisturbed."""
    order = subject.order(name, folder)
    study = subject.prepare(order)
    subject.work(order, 0, "cpu", unheard)
    return study


def storm(subject: Subject, name: str, folder: Path, server: servers.Server, arguments: argparse.Namespace) -> Any:
    """Many workers, some killed, one stopped past its grace and continued, and the server restarted once."""
    order, rng = subject.order(name, folder), random.Random(arguments.seed)
    study = subject.prepare(order)
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=subject.work, args=(order, number, "cpu", unheard))
        for number in range(arguments.workers)
    ]
    for process in workers:
        process.start()
    victims = rng.sample(workers, arguments.kills + arguments.stops)
    stopped = []
    try:
        for place, process in enumerate(victims):
            wait_until(lambda pid=process.pid: pid in busy(study), arguments.patience)
            time.sleep(rng.uniform(0, 0.8 * arguments.seconds))
            os.kill(process.pid, signal.SIGKILL if place < arguments.kills else signal.SIGSTOP)
            stopped += [] if place < arguments.kills else [process.pid]
            if place == 0 and arguments.restarts:
                server.restart(down_s=1)
        wait_until(lambda: not busy(study) & set(stopped), arguments.patience)
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
        for process in workers:
            process.join(arguments.patience)
    finally:
        for process in workers:
            if process.is_alive():
                process.kill()
    return study, [process.exitcode for process in workers]


def busy(study: Any) -> set[int]:
    """The processes that have a trial."""
    claimed = [trial.user_attrs.get("claimed by") for trial in study.trials() if trial.state == TrialState.RUNNING]
    return {int(name.partition(":")[2]) for name in claimed if name}


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError(f"waited {seconds:g} s in vain")
        time.sleep(0.1)


def accounts(study: Any, subject: Subject) -> dict[str, Any]:
    """What is counted, and what of it is the same work."""
    trials = study.trials()
    counted = [trial for trial in trials if trial.state in COUNTED]
    states = [trial.state.name.lower() for trial in trials]
    front = sorted(subject.outcome(trial) for trial in study.study.best_trials)
    return {
        "trials": {state: states.count(state) for state in sorted(set(states))},
        "counted": len(counted),
        "different": len({study.work_of(trial) for trial in counted}),
        "outcomes": sorted(subject.outcome(trial) for trial in counted),
        "front": front,
    }


def compared(quiet: dict[str, Any], stormy: dict[str, Any], exits: Sequence[int], adaptive: bool) -> dict[str, Any]:
    """What the storm is judged by."""
    return {
        "exit codes": list(exits),
        "states": stormy["trials"],
        "budget exact": stormy["counted"] == quiet["counted"],
        "none twice": stormy["different"] == stormy["counted"],
        "scores the same": None if adaptive else stormy["outcomes"] == quiet["outcomes"],
        "front the same": None if adaptive else stormy["front"] == quiet["front"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", choices=("trivial", "tiny"), default="tiny")
    parser.add_argument("--adaptive", action="store_true")
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--stops", type=int, default=1)
    parser.add_argument("--restarts", type=int, default=1, choices=(0, 1))
    parser.add_argument("--steps", type=int, default=20, help="of a tiny trial")
    parser.add_argument("--seconds", type=float, default=1.0, help="of a trivial trial; how late a blow may come")
    parser.add_argument("--grace", type=int, default=10)
    parser.add_argument("--patience", type=float, default=1800, help="seconds after which the storm has failed")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with servers.running() as server, tempfile.TemporaryDirectory() as folder:
        os.environ["OPTUNA_STORAGE"] = server.url
        subject = trivial_subject(arguments) if arguments.work == "trivial" else tiny_subject(arguments)
        places = {name: RunFolder(Path(folder) / name) for name in ("quiet", "storm")}
        for place in places.values():
            place.prepare()
        quiet = accounts(quiet_run(subject, "quiet", places["quiet"].path), subject)
        began = time.monotonic()
        study, exits = storm(subject, "storm", places["storm"].path, server, arguments)
        found = compared(quiet, accounts(study, subject), exits, arguments.adaptive)
        print(json.dumps(vars(arguments) | found | {"seconds taken": round(time.monotonic() - began, 1)}, indent=1))
        if False in found.values():
            raise SystemExit(1)


if __name__ == "__main__":
    main()
