"""The options that say where a study is kept and who works on it, declared once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.console import Console

from memcontrol.cli.options import option as plain_option
from memcontrol.cli.options import with_options
from memcontrol.errors import MemControlError

if TYPE_CHECKING:
    from memcontrol.study.cluster import Cluster
    from memcontrol.study.execution import Execution

option = functools.partial(plain_option, panel="Many machines (docs/distributed.md)")
Sharing = Mapping[str, Any]
"""The options' values; None where one was not given."""
PLACE: Mapping[str, Any] = {
    "study": Annotated[str | None, option("Name of a study that several hosts work on.")],
    "storage": Annotated[str | None, option("PostgreSQL URL of that study.", "$OPTUNA_STORAGE")],
    "storage_file": Annotated[Path | None, option("File that holds the URL.")],
}
OPTIONS: Mapping[str, Any] = {
    **PLACE,
    "artifacts": Annotated[str | None, option("Where pictures of trials are kept too: a folder, or s3://BUCKET.")],
    "trial_timeout": Annotated[float | None, option("Seconds after which a trial fails.")],
    "checkpoint_every": Annotated[
        float | None, option("Seconds between checkpoints of a trial in the run folder, for whoever tries it again.")
    ],
    "grace": Annotated[int | None, option("Seconds after which a silent worker is taken for lost.", 90)],
    "cluster": Annotated[str | None, option("slurm, local or debug: workers are submitted there.")],
    "cluster_option": Annotated[
        list[str] | None, option("NAME=VALUE of submitit, such as slurm_partition=gpu; may be repeated.")
    ],
}


def with_sharing_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command with these options in place of its keyword `sharing`, a `Sharing` of what they were given."""
    return with_options(command, "sharing", OPTIONS)


def named_study(given: Sharing) -> str | None:
    """The study that hosts share, its storage in `OPTUNA_STORAGE` for all that is started from here; None for none.

    Raises:
        MemControlError: a storage without a study, or a study without a storage.
    """
    study, storage, file = given["study"], given["storage"], given["storage_file"]
    if study is None:
        if storage is not None or file is not None:
            raise MemControlError("a storage without a study: name the study with --study, the same on every host")
        return None
    from memcontrol.study.storage import VARIABLE, has_password, name_storage

    if storage is not None and has_password(storage):
        text = f"a password in --storage can be read by other users with ps: set {VARIABLE}, or give --storage-file"
        Console(stderr=True, soft_wrap=True).print(f"memcontrol: {text}", markup=False, highlight=False)
    name_storage(storage, file)
    return str(study)


def execution_of(given: Sharing) -> Execution:
    """How a study is worked through.

    Raises:
        MemControlError: a value that is not allowed, by the name of its option.
    """
    from memcontrol.study.execution import Execution

    study, grace = named_study(given), given["grace"]
    if grace is not None and grace < 2:
        raise MemControlError(f"--grace {grace}: expected seconds, 2 or more")
    beating = {} if grace is None else {"grace_s": grace, "heartbeat_s": max(1, grace // 6)}
    return Execution(study, given["artifacts"], given["trial_timeout"], given["checkpoint_every"], **beating)


def cluster_of(given: Sharing) -> Cluster | None:
    """Where workers are submitted; None for here.

    Raises:
        MemControlError: no such cluster, an option without one, or a queue without a storage that its hosts share.
    """
    from memcontrol.study.cluster import Cluster

    kind, options = given["cluster"], given["cluster_option"] or []
    if kind is None:
        if options:
            raise MemControlError("--cluster-option without --cluster: give --cluster slurm")
        return None
    if kind == "slurm" and given["study"] is None:
        raise MemControlError("--cluster slurm needs a study that hosts can share: give --study and --storage")
    return Cluster.named(kind, options)
