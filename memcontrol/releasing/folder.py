"""The folder of one full-length training: what is to be published, and apart from it the training's own records."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError

from memcontrol.errors import RunError, reason
from memcontrol.mask import FILE_NAME, Mask
from memcontrol.run import write_atomically

RECORDS = "training"
RELEASED = "released.json"
OWN = frozenset(
    (
        FILE_NAME,
        RELEASED,
        "config.yaml",
        "losses.csv",
        "checkpoints",
        "monitor.csv",
        "monitor.png",
        "samples",
        "tensorboard",
        "wandb",
    )
)
"""What this program writes among a training's records."""
PARTIAL = ".saving-"
LISTED = 3


@dataclass(frozen=True)
class ReleaseFolder:
    """The files of one full-length training.

    What is released lies at the top. `training/` holds the training's own records, which do not belong in a
    publication: pictures that show training images, and paths of this machine. Entries whose names begin with a dot
    are nobody's business here.
    """

    path: Path

    @property
    def records(self) -> Path:
        """What is not to be published."""
        return self.path / RECORDS

    @property
    def mask(self) -> Path:
        """The mask as it was given; the released one names no path."""
        return self.records / FILE_NAME

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.records / "config.yaml"

    @property
    def losses(self) -> Path:
        """Every step, as CSV."""
        return self.records / "losses.csv"

    @property
    def checkpoints(self) -> Path:
        """Where an unfinished training can be taken up again."""
        return self.records / "checkpoints"

    @property
    def finished(self) -> bool:
        """Whether something was released here: the mask comes last."""
        return (self.path / FILE_NAME).is_file()

    def check(self, *, overwrite: bool) -> None:
        """Refuse a folder that is neither new nor that of an unfinished training.

        Args:
            overwrite: allow that of a finished one.

        Raises:
            RunError: it holds something else.
        """
        if not self.path.exists() or (self.path.is_dir() and not _visible(self.path)):
            return
        taken = f"{self.path} exists and is not an empty folder"
        if not self.mask.is_file():
            raise RunError(f"{taken}: name another with --out")
        if self.finished and not overwrite:
            raise RunError(
                f"{taken}, it holds a finished training: name another with --out, or train anew in it with --overwrite"
            )
        others = [name for name in _visible(self.path) if name not in {RECORDS, *self._released()}]
        others += [f"{RECORDS}/{name}" for name in _visible(self.records) if name not in OWN]
        if others:
            raise RunError(
                f"{taken}: besides a training it holds {', '.join(others[:LISTED])}{' ...' if others[LISTED:] else ''}"
                ", which this program did not write: move that away, or name another folder with --out"
            )

    def make(self, config: str, mask: Mask, *, anew: bool) -> None:
        """Make the folder, with the configuration and the mask as it was given.

        Args:
            anew: remove all that an earlier training left, and not only what of a release was left half done.

        Raises:
            RunError: it cannot be written to.
        """
        try:
            # What says that a training is finished goes first, and what says whose the folder is goes last.
            for name in sorted(self._released(), key=lambda name: name != FILE_NAME):
                _remove(self.path / name)
            for name in sorted(OWN - {FILE_NAME}) if anew else ():
                _remove(self.records / name)
            for entry in self.path.glob(f"{PARTIAL}*"):
                _remove(entry)
            write_atomically(self.mask, mask.to_json())
            write_atomically(self.config, config)
        except OSError as error:
            raise RunError(f"cannot write to {self.path}: {reason(error)}; name another folder with --out") from error

    @contextmanager
    def released(self) -> Iterator[Path]:
        """Inside, a folder to write to; what is in it then comes into this one, each entry whole, the mask last.

        Raises:
            RunError: nothing more can be written, or something is in the way; checkpoints stay, and what is in the way
                does too.
        """
        try:
            with tempfile.TemporaryDirectory(dir=self.path, prefix=PARTIAL) as partial:
                yield Path(partial)
                entries = sorted(Path(partial).iterdir(), key=lambda entry: entry.name == FILE_NAME)
                self._check_free([entry.name for entry in entries])
                # Written before anything comes, so that a kill in between leaves nothing that seems to be another's.
                write_atomically(self.records / RELEASED, json.dumps([entry.name for entry in entries]) + "\n")
                for entry in entries:
                    entry.rename(self.path / entry.name)
        except (OSError, SafetensorError) as error:
            raise RunError(
                f"cannot save to {self.path} ({reason(error)}): free space there and give the same command again, "
                "which goes on from the last checkpoint"
            ) from error

    def _check_free(self, names: list[str]) -> None:
        taken = [name for name in names if (self.path / name).exists() or (self.path / name).is_symlink()]
        if taken:
            raise RunError(
                f"cannot save to {self.path}: {', '.join(taken[:LISTED])} came into it during training and is in the "
                "way: move that away and give the same command again, which goes on from the last checkpoint"
            )

    def _released(self) -> frozenset[str]:
        """Names at the top that a release wrote, or was about to write."""
        try:
            names = json.loads((self.records / RELEASED).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return frozenset()
        listed = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
        # The list is a file that anyone can change: it leads to nothing but entries of this folder.
        return frozenset(
            name
            for name in listed
            if Path(name).name == name and name not in ("", RECORDS) and not name.startswith(".")
        )


def _visible(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))


def _remove(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry)
    else:
        entry.unlink(missing_ok=True)
