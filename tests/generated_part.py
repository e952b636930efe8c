"""A part of a page that a program writes, between two comments."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

END = "<!-- end of what is generated -->"


@dataclass(frozen=True)
class GeneratedPart:
    """Where a program writes.

    Attributes:
        page: holds the two comments.
        program: path of what writes it, from the project's root.
    """

    page: Path
    program: str

    @property
    def begin(self) -> str:
        """The comment before it."""
        return f"<!-- generated: python {self.program} -->"

    def write(self, text: str) -> None:
        """Put the text between the two comments."""
        before, begin, rest = self.page.read_text(encoding="utf-8").partition(self.begin)
        _, end, after = rest.partition(END)
        if not (begin and end):
            raise ValueError(f"{self.page} lacks {self.begin} or {END}: put both where the text belongs")
        self.page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", encoding="utf-8")

    def read(self) -> str:
        """What stands between them."""
        return self.page.read_text(encoding="utf-8").partition(self.begin)[2].partition(END)[0].strip()
