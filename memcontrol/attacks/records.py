"""Finished prompts of an attack, on disk one JSON line each, so that an interrupted attack goes on where it was."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from memcontrol.attacks.groups import SuspectGroup
from memcontrol.errors import RunError
from memcontrol.plain_files import load_json

SCHEMA = "memcontrol/extraction@1"


@dataclass(frozen=True)
class PromptResult:
    """What one prompt gave.

    Attributes:
        index: position among the prompts.
        prompt: None for an unconditional model.
        generations: how many images were generated.
        groups: near-identical ones among them; for an unconditional model, those nearest to one training image.
        smallest: smallest distance of any generation to a training image; unconditional: smallest ratio.
        close: generations as close to a training image as `rules.verification` (unconditional: `rules.ratio`) asks, in
            a group or not.
    """

    index: int
    prompt: str | None
    generations: int
    groups: tuple[SuspectGroup, ...]
    smallest: float
    close: int

    @property
    def extracted(self) -> tuple[int, ...]:
        """Positions of the training images that were given back, ascending."""
        return tuple(sorted({group.training for group in self.groups if group.extracted}))

    def to_json(self) -> dict[str, Any]:
        """JSON-ready content that `from_json` reads back."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> PromptResult:
        """A result from what `to_json` gave, before or after JSON."""
        groups = tuple(SuspectGroup(**{**group, "members": tuple(group["members"])}) for group in content["groups"])
        return cls(**{**content, "groups": groups})


@dataclass(frozen=True)
class AttackRecord:
    """A file of one attack's results; one process writes to it.

    Attributes:
        path: the file; made with its folder when there is something to write.
        fingerprint: of all that decides the results; stands in every line.
    """

    path: Path
    fingerprint: str

    def read(self) -> list[PromptResult]:
        """The finished prompts; a last line that was cut off is left out.

        Raises:
            RunError: a line of another attack, or one that is not a result.
        """
        return [self._result(number, line) for number, line in enumerate(self._whole().splitlines(), start=1)]

    def append(self, results: Sequence[PromptResult]) -> None:
        """Add results in one write, after what is whole."""
        if not results:
            return
        lines = [{"schema": SCHEMA, "fingerprint": self.fingerprint, **result.to_json()} for result in results]
        content = "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines).encode()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.truncate(len(self._whole()))
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    def _whole(self) -> bytes:
        """Every byte up to the last end of a line."""
        content = self.path.read_bytes() if self.path.is_file() else b""
        return content[: content.rfind(b"\n") + 1]

    def _result(self, number: int, line: bytes) -> PromptResult:
        try:
            content = load_json(line)
            schema, key = content.pop("schema"), content.pop("fingerprint")
            result = PromptResult.from_json(content)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(
                f"{self.path}, line {number}, is not a result of an extraction attack ({error}): name another file"
            ) from error
        if schema != SCHEMA or key != self.fingerprint:
            raise RunError(
                f"{self.path}, line {number}, belongs to another attack (other weights, prompts, training images, "
                "rules, sampling or seed): name another file, or delete this one"
            )
        return result
