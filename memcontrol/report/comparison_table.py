"""A comparison's tables: means over seeds, and paired differences to full fine-tuning, for terminals and for papers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.box import ASCII, SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from memcontrol.report.wording import number_text, rate_text, short_names

MISSING = "–"
NAME_WIDTH = 16
"""Columns of a terminal that names of rows have at least."""
LONG = 10
"""Letters from which a column's head is broken."""
ARROWS = {"lower": "↓", "higher": "↑"}
WORDS = {"lower": "lower", "higher": "higher"}
CSV_COLUMNS = (
    *("cell", "score", "better", "mean", "low", "high", "n"),
    *("minus_full", "minus_full_low", "minus_full_high", "minus_full_n"),
)
Cell = Callable[[Mapping[str, Any] | None], str]


def mean_text(summary: Mapping[str, Any] | None) -> str:
    """A mean with half its interval's width; a dash where there is no mean."""
    if summary is None:
        return MISSING
    return number_text(summary["mean"]) + _half_text(summary)


def difference_text(summary: Mapping[str, Any] | None) -> str:
    """The same with the mean's sign; an asterisk where the interval excludes zero."""
    if summary is None:
        return MISSING
    sign = "+" if summary["mean"] > 0 else ""
    excluded = summary["low"] is not None and (summary["low"] > 0 or summary["high"] < 0)
    return f"{sign}{number_text(summary['mean'])}{_half_text(summary)}{' *' if excluded else ''}"


def _half_text(summary: Mapping[str, Any]) -> str:
    return "" if summary["high"] is None else f" ± {number_text(summary['high'] - summary['mean'])}"


def heads(document: Mapping[str, Any], arrows: Mapping[str, str]) -> dict[str, str]:
    """The columns' scores with what tells which direction is better."""
    better = {score["name"]: score["better"] for score in document["scores"]}
    short = short_names(document["columns"])
    return {name: f"{short[name]} {arrows[better[name]]}" for name in document["columns"]}


def counts_text(document: Mapping[str, Any]) -> str:
    """What every number was measured on: data, model, seeds, images, steps, encoders."""
    data, seeds = document["data"], document["seeds"]
    anew = "drawn anew for each seed" if data["drawn_anew"] else "the same for every seed"
    means = ", ".join(name.replace("@", " on ") for name in document["columns"])
    return (
        f"{data['name']}, {data['n']} training images, {anew}; model {document['model']}; n = {len(seeds)} "
        f"seed{'s' if len(seeds) > 1 else ''} ({seeds_text(seeds)}); {document['steps']:,} steps, "
        f"{document['images']:,} images a training; {means}"
    )


def seeds_text(seeds: Sequence[int]) -> str:
    """Seeds as a range where they are one."""
    whole = len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[0] + len(seeds)))
    return f"{seeds[0]} to {seeds[-1]}" if whole else ", ".join(map(str, seeds))


def reading_text(*, difference: bool) -> str:
    """How the numbers of a table are to be read."""
    if difference:
        return "paired by seed; ± 95 % interval (Student); * excludes zero, without correction for many comparisons"
    return "mean over seeds ± 95 % interval (Student)"


def notes_of(document: Mapping[str, Any]) -> list[str]:
    """What failed, what is not finished, and masks that were chosen on images they are scored on."""
    notes = []
    for row in document["cells"]:
        for failure in row["failed"]:
            notes.append(f"failed: {row['name']}, seed {failure['seed']}: {failure['error'].splitlines()[0]}")
        left = len(document["seeds"]) - len(row["seeds"]) - len(row["failed"])
        if left:
            notes.append(f"not finished: {row['name']}, {left} of {len(document['seeds'])} seeds")
        if row["found_on"]:
            notes.append(
                f"mask {row['method']} was found on the images of seed {seeds_text(row['found_on'])}: its scores there "
                "are better than on others"
            )
    return list(dict.fromkeys(notes))


def comparison_tables(document: Mapping[str, Any], *, width: int = 100, ascii_only: bool = False) -> Group:
    """Both tables for a terminal, in as many parts as its columns need, and what failed.

    Args:
        document: the content of `comparison.json`.
        width: columns of the terminal.
        ascii_only: whether the terminal shows nothing else.
    """
    parts: list[RenderableType] = []
    for title, key, text, rows in _tables(document):
        columns = {
            name: [*_broken_head(head), *(_broken(text(row[key].get(name)), ascii_only=ascii_only) for row in rows)]
            for name, head in heads(document, WORDS).items()
        }
        for names in _fitting(columns, width - NAME_WIDTH - 4):
            table = Table(title=Text(title), title_justify="left", box=ASCII if ascii_only else SIMPLE_HEAD)
            table.add_column("", overflow="fold", min_width=NAME_WIDTH)
            for name in names:
                table.add_column(columns[name][0], justify="right", no_wrap=True)
            for place, row in enumerate(rows):
                style = "bold" if row["name"] == document["reference"] else ""
                table.add_row(row["name"], *(columns[name][1 + place] for name in names), style=style)
            parts.append(table)
        parts.append(Text(f"{counts_text(document)}; {reading_text(difference=key == 'against_full')}\n", "dim"))
    return Group(*parts, *(Text(note, "yellow") for note in notes_of(document)))


def _broken_head(head: str) -> list[str]:
    """A column's head on lines of its own: its measure, in two where it is long, and the direction."""
    name, _, better = head.rpartition(" ")
    if len(name) > LONG:
        name = name.replace("@", "@\n").replace("_", "_\n", 1)
    return [f"{name}\n{better}"]


def _broken(cell: str, *, ascii_only: bool) -> str:
    """A number above its interval."""
    cell = cell.replace(" ±", "\n±")
    return cell.replace("±", "+-").replace(MISSING, "-") if ascii_only else cell


def _fitting(columns: Mapping[str, Sequence[str]], width: int) -> list[list[str]]:
    """Names of columns, divided so that each part fits; a part has one at least."""
    parts: list[list[str]] = []
    left = 0
    for name, cells in columns.items():
        needed = 3 + max(len(line) for cell in cells for line in cell.splitlines())
        if not parts or needed > left:
            parts.append([])
            left = width
        parts[-1].append(name)
        left -= needed
    return parts


def comparison_markdown(document: Mapping[str, Any]) -> str:
    """Both tables as Markdown."""
    lines: list[str] = []
    for title, (head, *rows), reading in tables_of(document):
        lines += [f"### {title}", "", f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
        lines += [f"| {' | '.join(row)} |" for row in rows]
        escaped = reading.replace("*", "\\*")
        lines += ["", f"{counts_text(document)}; {escaped}.", ""]
    lines += [f"- {note}" for note in notes_of(document)]
    return "\n".join(lines).rstrip() + "\n"


def tables_of(document: Mapping[str, Any]) -> list[tuple[str, list[list[str]], str]]:
    """Title of both tables, their lines with the head first, and how their numbers are to be read."""
    facts, found = ("seeds", "rate", "trained %"), []
    for title, key, text, rows in _tables(document):
        lines = [["", *(facts if key == "scores" else facts[:1]), *heads(document, ARROWS).values()]]
        for row in rows:
            cells = [row["name"], _seed_count(row, key, document["columns"])]
            if key == "scores":
                percent = MISSING if row["percent"] is None else f"{row['percent']:.3g}"
                cells += [rate_text(row["learning_rate"]), percent]
            lines.append(cells + [text(row[key].get(name)) for name in document["columns"]])
        found.append((title, lines, reading_text(difference=key == "against_full")))
    return found


def comparison_lines(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A line of CSV for each row and score, of all scores, with the keys of `CSV_COLUMNS`."""
    for row in document["cells"]:
        for score in document["scores"]:
            own, difference = row["scores"].get(score["name"]), row["against_full"].get(score["name"])
            line = {"cell": row["name"], "score": score["name"], "better": score["better"]}
            line |= dict(own or {})
            if difference is not None:
                line |= {
                    "minus_full": difference["mean"],
                    **{f"minus_full_{part}": difference[part] for part in ("low", "high", "n")},
                }
            yield line


def _tables(document: Mapping[str, Any]) -> list[tuple[str, str, Cell, list[Mapping[str, Any]]]]:
    """Title, key, text of a cell, and rows of each table."""
    rows = list(document["cells"])
    reference = document["reference"]
    tables: list[tuple[str, str, Cell, list[Mapping[str, Any]]]] = [("Scores", "scores", mean_text, rows)]
    others = [row for row in rows if row["name"] != reference]
    if any(row["against_full"] for row in others):
        title = f"Difference to plain {reference} fine-tuning of the same seed"
        tables.append((title, "against_full", difference_text, others))
    return tables


def _seed_count(row: Mapping[str, Any], key: str, columns: Sequence[str]) -> str:
    """Of how many seeds a row's numbers are."""
    counts = [row[key][name]["n"] for name in columns if name in row[key]]
    return str(max(counts, default=0))
