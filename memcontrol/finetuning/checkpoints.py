"""Checkpoints: all that an unfinished training needs to go on as if it had not been broken off, whole or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from accelerate import Accelerator
from accelerate.utils import gather_object
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError

from memcontrol.errors import RunError, reason
from memcontrol.finetuning.state_files import file_sha256, read_state, state_names, write_state
from memcontrol.space import validation_message

SCHEMA = "memcontrol/checkpoint@1"
KEPT = 2
"""So many stay: the newest, and one to fall back on."""
MANIFEST = "checkpoint.json"
PARTIAL = ".partial"
HASHED = 4 << 30
"""Bytes up to which a file is known by its hash; larger ones, by their size alone."""

Found = TypeVar("Found")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read.

    Attributes:
        step: after which it was written.
        content: by the name of each part.
    """

    step: int
    content: dict[str, Any]


def _plain_name(name: str) -> str:
    if Path(name).name != name:
        raise ValueError("expected the name of a file beside this one")
    return name


class _Manifest(BaseModel):
    """What a checkpoint says of itself: whose it is, and of what size its files are."""

    model_config = ConfigDict(strict=True, extra="ignore")
    schema_: Annotated[Literal["memcontrol/checkpoint@1"], Field(alias="schema")]
    step: Annotated[int, Field(ge=0, lt=2**63)]
    identity: dict[str, str]
    bytes: dict[Annotated[str, AfterValidator(_plain_name)], int]
    sha256: dict[str, str | None]


class Checkpoints:
    """The checkpoints of one training, in a folder of their own.

    Every process writes and reads what is its own beside what is shared; the first one does all else.

    Args:
        identity: what must be the same for a training to go on, each by a name that a user knows.
    """

    def __init__(self, folder: Path, identity: Mapping[str, str], accelerator: Accelerator) -> None:
        self.folder, self.identity, self.accelerator = folder, dict(identity), accelerator

    def save(self, step: int, content: Mapping[str, Any]) -> None:
        """Write a checkpoint, then drop those that are no longer needed.

        Args:
            content: of this process, as `write_state` takes it, in the first one with all that is shared.

        Raises:
            RunError: it cannot be written; those before stay.
        """
        unfinished, final = self.folder / PARTIAL, self.folder / f"step-{step:08d}"
        main = self.accelerator.is_main_process
        try:
            if main:
                shutil.rmtree(unfinished, ignore_errors=True)
                unfinished.mkdir(parents=True)
            self.accelerator.wait_for_everyone()
            write_state(unfinished, self._name, content)
            self.accelerator.wait_for_everyone()
            if main:
                self._complete(unfinished, final, step)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise RunError(
                f"cannot write checkpoint {final} ({reason(error)}): those before it are kept; free space there and "
                "give the same command again"
            ) from error
        except (TypeError, ValueError) as error:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise RunError(
                f"cannot write checkpoint {final} ({reason(error)}): expected tensors, arrays, numbers and text alone; "
                "--checkpoint-every 0 trains without checkpoints"
            ) from error

    def latest(self, on_note: Callable[[str], object]) -> Checkpoint | None:
        """The newest checkpoint that is whole for every process, the same one in all of them; None where there is none.

        Args:
            on_note: told of checkpoints that are not whole.

        Raises:
            RunError: it was written under another identity (the message names the differences).
        """
        for name in self._listed():
            folder = self.folder / name
            manifest = self._everywhere(folder, self._manifest, on_note)
            if manifest is None:
                continue
            self._check_identity(manifest["identity"])
            content = self._everywhere(folder, partial(self._content, manifest["sha256"]), on_note)
            if content is not None:
                return Checkpoint(int(manifest["step"]), content)
        return None

    def clear(self) -> None:
        """Remove all of them."""
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def _name(self) -> str:
        return _name(self.accelerator.process_index)

    def _listed(self) -> list[str]:
        """The folders that the first process sees, the newest first."""
        names = sorted((folder.name for folder in self.folder.glob("step-*")), reverse=True)
        if self.accelerator.num_processes == 1:
            return names
        mine = names if self.accelerator.is_main_process else []
        listed: list[str] = gather_object(mine)
        return listed

    def _everywhere(
        self, folder: Path, read: Callable[[Path], Found], on_note: Callable[[str], object]
    ) -> Found | None:
        """What `read` finds, unless it fails in any process."""
        found, failures = None, list[str]()
        try:
            found = read(folder)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            failures.append(reason(error))
        if self.accelerator.num_processes > 1:
            failures = gather_object(failures)
        if failures:
            on_note(f"checkpoint {folder} is not whole ({failures[0]}) and is passed over")
            return None
        return found

    def _manifest(self, folder: Path) -> Mapping[str, Any]:
        """What a checkpoint says of itself, with files of the size that it says."""
        try:
            manifest = _Manifest.model_validate_json((folder / MANIFEST).read_bytes()).model_dump(by_alias=True)
        except ValidationError as error:
            raise ValueError(f"{MANIFEST}: {validation_message(error)}") from error
        for name, size in manifest["bytes"].items():
            found = (folder / name).stat().st_size
            if found != size:
                raise ValueError(f"{name} has {found:,} bytes of {size:,}")
        return manifest

    def _content(self, hashes: Mapping[str, str | None], folder: Path) -> dict[str, Any]:
        """What is shared, with what is this process's own in its place."""
        shared = _state(folder, _name(0), hashes)
        if self.accelerator.is_main_process:
            return shared
        own = _state(folder, self._name, hashes)
        return shared | {name: {**shared.get(name, {}), **part} for name, part in own.items()}

    def _complete(self, unfinished: Path, final: Path, step: int) -> None:
        sizes = {file.name: file.stat().st_size for file in sorted(unfinished.iterdir())}
        hashes = {name: file_sha256(unfinished / name) if size <= HASHED else None for name, size in sizes.items()}
        manifest = {"schema": SCHEMA, "step": step, "identity": self.identity, "bytes": sizes, "sha256": hashes}
        (unfinished / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        shutil.rmtree(final, ignore_errors=True)
        unfinished.rename(final)
        for old in sorted(self.folder.glob("step-*"))[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)

    def _check_identity(self, known: Mapping[str, str]) -> None:
        names = sorted(known.keys() | self.identity)
        different = [
            f"{name} was {known.get(name)}, now {self.identity.get(name)}"
            for name in names
            if known.get(name) != self.identity.get(name)
        ]
        if different:
            raise RunError(
                f"{self.folder.parents[1]} holds an unfinished training with other settings: {'; '.join(different)}; "
                "use the same settings to go on, another --out, or --overwrite to train anew"
            )


def _state(folder: Path, name: str, hashes: Mapping[str, str | None]) -> dict[str, Any]:
    for file in state_names(name):
        if hashes[file] is not None and file_sha256(folder / file) != hashes[file]:
            raise ValueError(f"{file} is not what was written")
    return read_state(folder, name)


def _name(process: int) -> str:
    return f"process-{process}" if process else "shared"
