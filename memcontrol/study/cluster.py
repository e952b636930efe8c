"""Workers that a cluster's queue starts, through submitit: identical ones, which find their study by its name."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from memcontrol.errors import MemControlError, MissingPackageError, RunError
from memcontrol.study.events import Event, Finished, Listener, Note
from memcontrol.study.processes import Work

Kind = Literal["slurm", "local", "debug"]
KINDS: tuple[Kind, ...] = get_args(Kind)
LOOK_S = 2.0
MINUTES = 60 * 24
"""What a job may take where nothing is said."""
FOLDER = "cluster"


@dataclass(frozen=True)
class Cluster:
    """Where workers are submitted.

    Attributes:
        kind: `slurm`; `local` for processes of this host, or `debug` for this process, to try things out.
        options: of submitit's executor, such as `timeout_min`, `gpus_per_node` or `slurm_partition`.
    """

    kind: Kind
    options: Mapping[str, int | str] = field(default_factory=dict)

    @classmethod
    def named(cls, kind: str, options: Sequence[str] = ()) -> Cluster:
        """A cluster as the command line names it.

        Args:
            options: each `NAME=VALUE`.

        Raises:
            MemControlError: no such kind, or an option without a value.
        """
        if kind not in KINDS:
            raise MemControlError(f"--cluster {kind}: expected {', '.join(KINDS[:-1])} or {KINDS[-1]}")
        pairs = [option.partition("=") for option in options]
        for name, separator, value in pairs:
            if not (name and separator and value):
                raise MemControlError(f"--cluster-option {name}: expected NAME=VALUE, such as slurm_partition=gpu")
        return cls(kind, {name: int(value) if value.isdecimal() else value for name, _, value in pairs})


@dataclass(frozen=True)
class ClusterWorker:
    """One worker as a job: what a queue stores, so nothing in it is secret, and starts again after preemption."""

    work: Work
    order: Any
    number: int

    def __call__(self) -> str | None:
        """Work until there is none left; returns why that ended with an error, if it did."""
        try:
            self.work(self.order, self.number, job_device(), _unheard)
        except MemControlError as error:
            return str(error)
        return None

    def checkpoint(self) -> Any:
        """The same job again: its trial is given to whoever asks first, and goes on from its checkpoint."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def job_device() -> str:
    """The device of a job: the GPU that the queue gave it, where it gave one."""
    import torch

    return "cuda:0" if torch.cuda.is_available() else "cpu"


def run_on_cluster(cluster: Cluster, work: Work, order: Any, count: int, listener: Listener) -> None:
    """Submit `count` workers, and wait until all have ended.

    Args:
        order: a `WorkOrder` or the like, whose `folder` holds the jobs' logs.
        listener: told how many run, as that changes.

    Raises:
        RunError: a worker ended with an error, or all died. KeyboardInterrupt passes through once jobs are cancelled.
        MissingPackageError: no submitit.
        MemControlError: an option that submitit does not know.
    """
    executor = _executor(cluster, order.folder / FOLDER)
    with executor.batch():
        jobs = [executor.submit(ClusterWorker(work, order, number)) for number in range(count)]
    names = ", ".join(str(job.job_id) for job in jobs)
    listener(Note(f"submitted {count} workers to {cluster.kind}: {names}; their logs are in {order.folder / FOLDER}"))
    try:
        _watch(jobs, order.folder, listener)
    except BaseException:
        for job in jobs:
            job.cancel(check=False)
        raise


def _executor(cluster: Cluster, folder: Path) -> Any:
    try:
        import submitit
    except ImportError as error:
        raise MissingPackageError('--cluster needs submitit: pip install -c constraints.txt -e ".[slurm]"') from error
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=cluster.kind)
        executor.update_parameters(**{"name": "memcontrol", "timeout_min": MINUTES, **cluster.options})
    except (NameError, TypeError, ValueError, RuntimeError) as error:
        said = " ".join(str(error).split())
        raise MemControlError(f"--cluster {cluster.kind}: {said}") from error
    return executor


def _watch(jobs: Sequence[Any], folder: Path, listener: Listener) -> None:
    log = _Log(folder / "log.jsonl")
    while not all(job.done() for job in jobs):
        log.tell(listener)
        time.sleep(LOOK_S)
    log.tell(listener)
    died = []
    for job in jobs:
        try:
            stopped = job.result()
        except Exception as error:  # noqa: BLE001 - what a job died of is whatever it died of
            said = str(error).strip() or type(error).__name__
            died.append(f"job {job.job_id} died: {said.splitlines()[-1]}")
            listener(Note(died[-1]))
            continue
        if stopped is not None:
            raise RunError(stopped)
    if len(died) == len(jobs):
        raise RunError(f"{died[-1]}; finished trials are kept: run the same command again to go on")


class _Log:
    """What workers of any host write to the run folder's log, from now on."""

    def __init__(self, path: Path) -> None:
        self._path, self._read = path, path.stat().st_size if path.exists() else 0

    def tell(self, listener: Listener) -> None:
        """Tell what was finished since the last time."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._read)
            added = file.read()
        whole = added[: added.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            one = json.loads(line)
            name = one["work"].removeprefix("trial ")
            trial = int(name) if name.isdecimal() else None
            pruned = one.get("pruned")
            listener(Finished(one["worker"], one["work"], trial, one["seconds"], one["error"], pruned=pruned))


def _unheard(event: Event) -> None:
    """Nobody listens to a job: what it finishes is in the log and in the study."""
