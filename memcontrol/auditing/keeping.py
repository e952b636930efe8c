"""The folder of an audit: whose it is, what an interrupted one left, and the finished document."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import ValidationError

from memcontrol.auditing.config import AuditConfig
from memcontrol.auditing.document import AuditDocument
from memcontrol.auditing.nearest import pictures_of
from memcontrol.cache import Cache
from memcontrol.config import flattened
from memcontrol.errors import RunError
from memcontrol.fingerprint import fingerprint
from memcontrol.run import RunFolder, write_atomically

IDENTITY = "identity.json"
HASHED = ("what is audited", "data content")
"""Parts of an identity that are hashes, and say little to a reader."""


@dataclass(frozen=True)
class AuditFolder:
    """Where an audit is written."""

    path: Path

    @property
    def document(self) -> Path:
        """The document."""
        return self.path / "audit.json"

    @property
    def page(self) -> Path:
        """The document for people."""
        return self.path / "audit.html"

    @property
    def kept(self) -> Path:
        """Generated images and finished prompts, which the same audit does not make again."""
        return self.path / "kept"

    @property
    def files(self) -> RunFolder:
        """Writes that appear whole or not at all."""
        return RunFolder(self.path)

    @property
    def cache(self) -> Cache:
        """Arrays in `kept`."""
        return Cache(self.kept)

    def claim(self, config: AuditConfig, identity: Mapping[str, str]) -> None:
        """Make the folder this audit's own, or see that it is.

        Raises:
            RunError: it holds another audit (the message names the differences), or something else, or cannot be
                written to.
        """
        now = {**flattened(config.model_dump(mode="json")), **identity}
        known_file = self.kept / IDENTITY
        if not known_file.is_file():
            if self.path.exists() and any(not entry.name.startswith(".") for entry in self.path.iterdir()):
                raise RunError(f"{self.path} is not empty and holds no audit: name another folder with --out")
            self.files.write_json(known_file, now)
        try:
            known = dict(json.loads(known_file.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise RunError(f"{known_file} is not an audit's ({error}): name another folder with --out") from error
        different = [key for key in {**known, **now} if known.get(key) != now.get(key)]
        if different:
            raise RunError(
                f"{self.path} holds an audit made with other settings: {_told(different, known, now)}; use the same "
                "settings to go on with it, or another --out"
            )
        if not self.files.config.is_file():
            write_atomically(self.files.config, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))

    def finished(self, digest: str) -> AuditDocument | None:
        """The document of a finished audit, where it and its pictures are there; None otherwise.

        Args:
            digest: of what decides the document; one with another is not taken.
        """
        if not self.document.is_file():
            return None
        try:
            document = AuditDocument.model_validate_json(self.document.read_bytes())
        except ValidationError:
            return None
        whole = all(picture.is_file() for picture in pictures_of(self.path, document.nearest))
        return document if whole and document.subject.get("audit") == digest else None

    def write(self, document: AuditDocument) -> None:
        """Write the document; NaN is refused."""
        self.files.write_json(self.document, document.model_dump(mode="json", by_alias=True))


def audit_digest(config: AuditConfig, identity: Mapping[str, str], versions: Mapping[str, str]) -> str:
    """Hash of what decides a document."""
    return fingerprint(flattened(config.model_dump(mode="json")), dict(identity), dict(versions))


def _told(keys: list[str], known: Mapping[str, str], now: Mapping[str, str]) -> str:
    named = [key for key in keys if key not in HASHED] or keys
    return "; ".join(f"{key} was {known.get(key)}, now {now.get(key)}" for key in named)
