"""The loss curve of a training: a table that a resumed training continues without a gap, and a tracker beside it."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration

from memcontrol.errors import MissingPackageError, RunError, reason
from memcontrol.finetuning import Step
from memcontrol.run import write_atomically

HEADER = "step,loss,learning_rate,kept"


class LossCurve:
    """`losses.csv`: one line for each step, written as soon as the step is done.

    Args:
        after: lines of later steps are dropped; 0 begins anew.

    Raises:
        RunError: it cannot be written.
    """

    def __init__(self, path: Path, *, after: int) -> None:
        self.path = path
        lines = path.read_text(encoding="utf-8").splitlines()[1:] if after and path.is_file() else []
        kept = [line for line in lines if _number(line) <= after]
        try:
            write_atomically(path, "".join(f"{line}\n" for line in (HEADER, *kept)))
            self._file: TextIO = path.open("a", encoding="utf-8", buffering=1)
        except OSError as error:
            raise RunError(f"cannot write {path}: {reason(error)}; name another folder with --out") from error

    def add(self, step: Step) -> None:
        """Write the line of a step.

        Raises:
            RunError: it cannot be written.
        """
        try:
            self._file.write(f"{step.number},{step.loss!r},{step.learning_rate!r},{step.kept}\n")
        except OSError as error:
            raise RunError(
                f"cannot write {self.path} ({reason(error)}): free space there and give the same command again"
            ) from error

    def close(self) -> None:
        """Write no more."""
        self._file.close()


def _number(line: str) -> float:
    """The step of a line; beyond all steps where a line was cut off."""
    first, comma, _ = line.partition(",")
    return int(first) if comma and first.isdigit() else float("inf")


def check_tracker(name: str | None) -> None:
    """Raises MissingPackageError where a tracker's package is not installed."""
    if name is not None and importlib.util.find_spec(name) is None:
        raise MissingPackageError(
            f'package {name} is not installed: install it with pip install -c constraints.txt -e ".[trackers]", or '
            "leave out --tracker"
        )


def tracking(folder: Path, tracker: str | None) -> dict[str, object]:
    """What an accelerator is made with for its tracker to write into that folder."""
    if tracker is None:
        return {}
    project = ProjectConfiguration(project_dir=str(folder), logging_dir=str(folder / tracker))
    return {"log_with": tracker, "project_config": project}


def start_tracker(
    accelerator: Accelerator, folder: Path, tracker: str | None, settings: Mapping[str, str], *, after: int
) -> None:
    """Begin to track.

    Args:
        after: what was tracked of later steps no longer counts, where the tracker can do that.
    """
    if tracker is not None:
        given = {"tensorboard": {"purge_step": after + 1}, "wandb": {"dir": str(folder)}}[tracker]
        accelerator.init_trackers("memcontrol", config=dict(settings), init_kwargs={tracker: given})
