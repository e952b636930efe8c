"""A transfer's tables: scores of all rows, and each mask minus what it is compared with; terminal, Markdown, CSV."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from rich.box import ASCII, SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from memcontrol.report.comparison_table import (
    ARROWS,
    MISSING,
    WORDS,
    counts_text,
    difference_text,
    mean_text,
    notes_of,
)
from memcontrol.report.transfer_words import directions, joined, p_text, transfer_sentences
from memcontrol.report.wording import number_text, rate_text, short_names

CSV_COLUMNS = ("mask", "score", "better", "what", "mean", "low", "high", "n", "rank", "twins", "p", "case")
EXPLAINED = (
    "± 95 % intervals over seeds (Student), differences paired by seed; * excludes zero; p from ranks among random "
    "masks of the same size; nothing is corrected for many comparisons"
)
Lines = list[list[str]]
"""The head, then a line for each row: its name and a cell for each objective."""


def score_lines(document: Mapping[str, Any], arrows: Mapping[str, str]) -> Lines:
    """Scores of every row; the random masks of one mask share a line, with their least and largest mean."""
    names, better = document["objectives"], directions(document)
    short = short_names(names)
    lines = [["", *(f"{short[name]} {arrows[better[name]]}" for name in names)]]
    for row in sorted(document["cells"], key=lambda row: row["steps"] if row["role"] == "full" else 0):
        if row["role"] != "random":
            lines.append([row["name"], *(mean_text(row["scores"].get(name)) for name in names)])
    for mask in document["masks"]:
        twins = [row["scores"] for row in document["cells"] if row["of"] == mask["name"] and row["scores"]]
        if twins:
            lines.append([f"{len(twins)} random of {mask['name']}", *(_range_text(twins, name) for name in names)])
    return lines


def _range_text(twins: list[Mapping[str, Any]], name: str) -> str:
    means = [scores[name]["mean"] for scores in twins]
    low, middle, high = (number_text(float(one)) for one in (min(means), np.mean(means), max(means)))
    return f"{middle} ({low} to {high})"


def mask_lines(document: Mapping[str, Any], mask: Mapping[str, Any], arrows: Mapping[str, str]) -> Lines:
    """A mask minus each reference, full fine-tuning at equal fidelity, and its rank among random masks."""
    names, better = document["objectives"], directions(document)
    short = short_names(names)
    lines = [["minus", *(f"{short[name]} {arrows[better[name]]}" for name in names)]]
    for what, row in mask["rows"].items():
        lines.append([row, *(difference_text(mask["minus"][what].get(n)) for n in names)])
    equal = mask["equal_fidelity"]
    cases = {"equal": f"full at equal {short[names[0]]}", "beyond": "full at its best", "short": "full at its nearest"}
    for case, text in cases.items():
        found = {name: one for name, one in equal.items() if one and one["case"] == case}
        if found:
            lines.append([text, *(difference_text(found[n]["difference"]) if n in found else "" for n in names)])
    ranks = {name: mask["random"][name] for name in names if mask["random"][name]}
    if ranks:
        lines.append(["random, mean", *(difference_text(ranks[n]["difference"]) if n in ranks else "" for n in names)])
        cells = [
            f"{ranks[n]['rank']} of {1 + ranks[n]['twins']}, p {p_text(ranks[n]['p'])}" if n in ranks else MISSING
            for n in names
        ]
        lines.append(["rank among random", *cells])
    return lines


def _title(document: Mapping[str, Any], mask: Mapping[str, Any]) -> str:
    """A mask with its size and rate."""
    row = next(row for row in document["cells"] if row["name"] == mask["name"])
    percent = MISSING if row["percent"] is None else f"{row['percent']:.3g}"
    found = mask["found"].get("data", {}).get("name")
    origin = f", found on {found}" if found else ""
    return f"{mask['name']}: trains {percent} % at rate {rate_text(row['learning_rate'])}{origin}"


def tables_of(document: Mapping[str, Any], arrows: Mapping[str, str]) -> list[tuple[str, Lines]]:
    """Titles and lines: scores of all rows, then each mask minus what it is compared with."""
    masks = [(_title(document, mask), mask_lines(document, mask, arrows)) for mask in document["masks"]]
    return [("Scores", score_lines(document, arrows)), *masks]


def transfer_tables(document: Mapping[str, Any], *, ascii_only: bool = False) -> Group:
    """The tables for a terminal, and what they say.

    Args:
        document: the content of `transfer.json`.
        ascii_only: whether the terminal shows nothing else.
    """

    def shown(text: str) -> str:
        return text.replace("±", "+-").replace(MISSING, "-") if ascii_only else text

    parts: list[RenderableType] = []
    for title, (head, *lines) in tables_of(document, WORDS):
        table = Table(title=Text(title), title_justify="left", box=ASCII if ascii_only else SIMPLE_HEAD)
        table.add_column(head[0], overflow="fold")
        for name in head[1:]:
            table.add_column(name, justify="right")
        for line in lines:
            table.add_row(*map(shown, line), style="bold" if line[0] in _masks(document) else "")
        parts.append(table)
    parts.append(Text(shown(f"{counts_text(document)}; {EXPLAINED}\n"), "dim"))
    parts += [Text(shown(f"{sentence}\n")) for sentence in transfer_sentences(document)]
    return Group(*parts, *(Text(note, "yellow") for note in notes_of(document)))


def _masks(document: Mapping[str, Any]) -> set[str]:
    return {mask["name"] for mask in document["masks"]}


def transfer_markdown(document: Mapping[str, Any]) -> str:
    """The same as Markdown."""
    blocks = []
    for title, (head, *lines) in tables_of(document, ARROWS):
        table = [head, ["---"] * len(head), *lines]
        blocks.append(f"### {title}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in table))
    explained = EXPLAINED.replace("*", "\\*")
    blocks += [f"{counts_text(document)}; {explained}.", "### In words", joined(transfer_sentences(document))]
    blocks += [joined(notes_of(document))]
    return "\n\n".join(block for block in blocks if block) + "\n"


def transfer_lines(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A line of CSV for each mask, score and reference, of all scores, with the keys of `CSV_COLUMNS`."""
    better, rows = directions(document), {row["name"]: row for row in document["cells"]}
    for mask in document["masks"]:
        for name in better:
            line = {"mask": mask["name"], "score": name, "better": better[name]}
            if name in rows[mask["name"]]["scores"]:
                yield line | {"what": "value"} | rows[mask["name"]]["scores"][name]
            for what, row in mask["rows"].items():
                if name in mask["minus"][what]:
                    yield line | {"what": f"minus {row}"} | mask["minus"][what][name]
            rank, equal = mask["random"][name], mask["equal_fidelity"].get(name)
            if rank:
                kept = {key: rank[key] for key in ("rank", "twins", "p")}
                yield line | {"what": "minus random"} | rank["difference"] | kept
            if equal:
                yield line | {"what": "minus full at equal fidelity", "case": equal["case"]} | equal["difference"]
