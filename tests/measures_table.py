"""The tables of docs/measures.md; `python tests/measures_table.py` writes them anew."""

from __future__ import annotations

from pathlib import Path

from generated_part import GeneratedPart

from memcontrol.measures import COPYING, FIDELITY, OTHERS, VARIANTS, Measure
from memcontrol.report.audit_words import ENDINGS, MEANINGS

PAGE = Path(__file__).parents[1] / "docs" / "measures.md"
PART = GeneratedPart(PAGE, "tests/measures_table.py")
FAMILIES = {
    "Fidelity, and how images fit their captions": FIDELITY | {"alignment"},
    "Memorization, from generated images": {"copying"},
    "Memorization, from the model": {"noise", "membership", "extraction"},
}


def tables() -> str:
    """Every measure with its direction and sources, by family, and the endings of copying measures."""
    known = OTHERS | COPYING
    lines = []
    for title, families in FAMILIES.items():
        lines += [f"### {title}\n", "| measure | better | measured on | what it is |", "|---|---|---|---|"]
        lines += [row(name, measure) for name, measure in known.items() if measure.family in families]
        lines.append("")
    lines += ["Endings of the measures from generated images:\n", "| ending | what it changes |", "|---|---|"]
    lines += [f"| `{ending}` | {words} |" for ending, words in ENDINGS.items() if ending in VARIANTS]
    return "\n".join(lines)


def row(name: str, measure: Measure) -> str:
    """One measure; its usual source stands first."""
    named = measure.sources and ", ".join(f"`{source}`" for source in measure.sources if source != measure.source)
    others = "any other encoder" if measure.sources is None else named
    on = f"`{measure.source}`" + (f", {others}" if others else "")
    return f"| `{name}` | {measure.better} | {on} | {MEANINGS[name]} |"


if __name__ == "__main__":
    PART.write(tables())
