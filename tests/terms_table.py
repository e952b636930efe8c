"""The tables of terms in docs/data.md; `python tests/terms_table.py` writes them anew."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from generated_part import GeneratedPart

from memcontrol.terms import DATA, ENCODERS, MODELS, Terms

PART = GeneratedPart(Path(__file__).parents[1] / "docs" / "data.md", "tests/terms_table.py")


def text() -> str:
    """Data, models and encoders, each with where it comes from and its terms."""
    titles = {"Embedded data": DATA, "Embedded models": MODELS, "Encoders": ENCODERS}
    return "\n\n".join(f"**{title}**\n\n{table(told)}" for title, told in titles.items())


def table(told: Mapping[str, Terms]) -> str:
    """A table in Markdown."""
    rows = [f"| `{name}` | {one.what} | {one.comes_with} | {one.terms} |" for name, one in told.items()]
    return "\n".join(["| name | what it is | comes with | terms |", "|---|---|---|---|", *rows])


if __name__ == "__main__":
    PART.write(text())
