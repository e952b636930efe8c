"""Owns a run folder: where each file lies, and writes that appear whole or not at all."""

from __future__ import annotations

import csv
import errno
import io
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from memcontrol.cache import whole_file
from memcontrol.errors import RunError, reason
from memcontrol.plain_files import load_json

if TYPE_CHECKING:
    from memcontrol.run_documents import Document

FRONT_SCHEMA = "memcontrol/front@1"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""Why nothing can be written any more, whatever it is."""


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write the whole of a file, or leave what is there as it is."""
    with whole_file(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


def is_full(error: BaseException) -> bool:
    """Whether an error says that the disk is full or read-only, which is no fault of what was to be written."""
    return any(isinstance(one, OSError) and one.errno in FULL for one in (error, error.__cause__))


def read_object(path: Path) -> dict[str, Any]:
    """The content of a JSON file that holds an object.

    Raises:
        RunError: it cannot be read, or holds none.
    """
    try:
        content: Any = load_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # bytes that are no text are a ValueError too
        raise RunError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise RunError(f"{path}: expected a JSON object with keys")
    return content


def read_document(path: Path, schema: str, kind: type[Document] | None = None) -> dict[str, Any]:
    """The content of a JSON file that this program wrote.

    Args:
        kind: what it must be made of; its schema alone is looked at unless given.

    Raises:
        RunError: it cannot be read, is not JSON, has another schema, or lacks what its readers need.
    """
    content = read_object(path)
    found = content.get("schema")
    if found != schema:
        raise RunError(f"{path}: expected schema {schema}, got {found!r}")
    if kind is not None:
        check_content(content, kind, path)
    return content


def check_content(content: Mapping[str, Any], kind: type[Document], path: Path) -> None:
    """Refuse a file's content that is not made as its readers need it.

    Raises:
        RunError: naming the first key that is missing or wrong.
    """
    from pydantic import ValidationError

    from memcontrol.space import validation_message

    try:
        kind.model_validate_json(json.dumps(content, allow_nan=False))
    except ValidationError as error:
        raise RunError(f"{path}: {validation_message(error)}; it was changed, or written by another version") from error
    except ValueError as error:  # NaN
        raise RunError(f"{path}: {error}; it was changed, or written by another version") from error


@dataclass(frozen=True)
class RunFolder:
    """The files of one search."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def study(self) -> Path:
        """Optuna's SQLite file."""
        return self.path / "study.db"

    @property
    def lock(self) -> Path:
        """Held while a worker claims work."""
        return self.path / ".claim.lock"

    @property
    def launch_lock(self) -> Path:
        """Held by the one process that launched the run's workers."""
        return self.path / ".run.lock"

    @property
    def trials(self) -> Path:
        """Every trial, as CSV."""
        return self.path / "trials.csv"

    @property
    def front(self) -> Path:
        """The Pareto front and the references."""
        return self.path / "front.json"

    @property
    def picture(self) -> Path:
        """The front, drawn."""
        return self.path / "front.png"

    @property
    def log(self) -> Path:
        """One JSON object a line: what happened when."""
        return self.path / "log.jsonl"

    @property
    def references(self) -> Path:
        """Scores of the untuned model and of full fine-tuning's trajectories."""
        return self.path / "references"

    @property
    def confirmation(self) -> Path:
        """Where what was on the front is trained again."""
        return self.path / "confirmation"

    def mask(self, number: int, at: int | None = None) -> Path:
        """The mask of a trial, or of its checkpoint after `at` steps."""
        return self.path / "masks" / f"{_trial_name(number, at)}.json"

    def samples(self, number: int, at: int | None = None) -> Path:
        """A trial's generated images above their nearest training images, at its end or at a checkpoint."""
        return self.path / "samples" / f"{_trial_name(number, at)}.png"

    def kept(self, name: str) -> Path:
        """What is kept of an unfinished trial's training, for whoever tries it again."""
        return self.path / "unfinished" / name.removeprefix("sha256:")

    def prepare(self) -> None:
        """Make the folder.

        Raises:
            RunError: it cannot be written to.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise RunError(f"cannot write to {self.path}: {reason(error)}; name another folder with --out") from error

    def read_front(self) -> dict[str, Any]:
        """The content of `front.json`.

        Raises:
            RunError: there is none, or it is not one of this program's.
        """
        if not self.front.is_file():
            raise RunError(f"no front.json in {self.path}: name the folder of a search that has finished a trial")
        from memcontrol.run_documents import FrontDocument

        return read_document(self.front, FRONT_SCHEMA, FrontDocument)

    def write_json(self, path: Path, content: Mapping[str, Any]) -> None:
        """Write indented JSON; NaN is refused."""
        write_atomically(path, json.dumps(content, indent=1, allow_nan=False) + "\n")

    def write_trials(self, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
        """Write `trials.csv`."""
        self.write_table(self.trials, columns, rows)

    def write_table(self, path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
        """Write a CSV; a row may leave out columns, and has no others."""
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(path, text.getvalue())

    def write_picture(self, path: Path, picture: Image.Image) -> None:
        """Write a PNG."""
        content = io.BytesIO()
        picture.save(content, format="PNG")
        write_atomically(path, content.getvalue())

    def append_log(self, entry: Mapping[str, Any]) -> None:
        """Add one line to `log.jsonl`; a line is one write, so several processes may append."""
        with self.log.open("a") as file:
            file.write(json.dumps(entry) + "\n")


def _trial_name(number: int, at: int | None) -> str:
    return f"trial-{number:03d}" if at is None else f"trial-{number:03d}-at-{at}"
