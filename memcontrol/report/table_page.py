"""A comparison or a transfer as one HTML page: its tables, a picture with intervals, and what stayed open."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memcontrol.errors import RunError
from memcontrol.measures import FIDELITY, MEASURES, MEMORIZATION
from memcontrol.report.comparison_table import ARROWS, counts_text, notes_of
from memcontrol.report.comparison_table import tables_of as comparison_tables
from memcontrol.report.front_chart import Key
from memcontrol.report.page import page_environment, rendered
from memcontrol.report.run_words import LIMITS, missing_families
from memcontrol.report.scatter import HEIGHT, WIDTH, Axis, Mark, Plot, shape, whiskers, with_labels, x_axis, y_axis
from memcontrol.report.transfer_table import EXPLAINED
from memcontrol.report.transfer_table import tables_of as transfer_tables
from memcontrol.report.transfer_words import transfer_sentences
from memcontrol.report.wording import signed_text
from memcontrol.run import read_document

Document = Mapping[str, Any]
SCHEMAS = {"comparison": "memcontrol/comparison@1", "transfer": "memcontrol/transfer@1"}
ROLES = {
    "freeze": ("untuned", "star", "untuned model"),
    "full": ("full full-1", "diamond", "full fine-tuning"),
    "mask": ("front", "triangle", "mask"),
    "target": ("full full-2", "pentagon", "mask found on the target"),
    "random": ("trial", "dot", "random mask of equal size"),
    "other": ("full full-0", "dot", "other rows"),
}
"""What a row is -> kind and shape of its mark, and its words in the legend."""


def table_page(path: Path) -> str:
    """The page of a comparison's or a transfer's folder; it holds no images of either kind.

    Raises:
        RunError: the folder has no such document, or not one of this program's.
    """
    command = next((name for name in ("transfer", "comparison") if (path / f"{name}.json").is_file()), None)
    if command is None:
        raise RunError(f"neither transfer.json nor comparison.json in {path}: name the folder of one that has begun")
    document = read_document(path / f"{command}.json", SCHEMAS[command])
    environment = page_environment()
    environment.globals |= {"plot_size": (WIDTH, HEIGHT)}
    return rendered(
        environment,
        "table.html",
        _content(path, command, document),
        styles=["report.css"],
        scripts=["sorting.js", "report.js"],
    )


def _content(path: Path, command: str, document: Document) -> dict[str, Any]:
    transfer = command == "transfer"
    tables = (
        [(title, lines, EXPLAINED) for title, lines in transfer_tables(document, ARROWS)]
        if transfer
        else comparison_tables(document)
    )
    plot, keys = row_plot(document)
    config, run = path / "config.yaml", shlex.quote(str(path))
    again = shlex.quote(f"{path}-again")
    verb = "transfer" if transfer else "compare"
    return {
        "title": f"{'Transfer' if transfer else 'Comparison'} {path.resolve().name}",
        "counts": counts_text(document),
        "sentences": transfer_sentences(document) if transfer else [],
        "tables": tables,
        "notes": notes_of(document),
        "plots": [plot] if plot else [],
        "keys": keys,
        "limits": LIMITS[2:],
        "not_measured": missing_families([score["name"] for score in document["scores"]]),
        "commands": [
            f"memcontrol {verb} --config {shlex.quote(str(config))} --out {again}",
            f"memcontrol report {run}",
        ],
        "config": config.read_text(encoding="utf-8") if config.is_file() else "",
        "document": f"{command}.json",
    }


def _drawn(document: Document) -> tuple[str, str] | None:
    """The first score of fidelity and the first of memorization; None where there are not both."""
    families = {name: MEASURES[name.partition("@")[0]].family for name in document["columns"] if _known(name)}
    first = next((name for name, family in families.items() if family in FIDELITY), None)
    other = next((name for name, family in families.items() if family in MEMORIZATION), None)
    return None if first is None or other is None else (first, other)


def _known(name: str) -> bool:
    return name.partition("@")[0] in MEASURES


def role_of(row: Document, document: Document) -> str:
    """What a row is, a key of `ROLES`."""
    if row.get("role") in ROLES:
        return str(row["role"])
    if row["method"] == "freeze":
        return "freeze"
    if row["name"] == document["reference"]:
        return "full"
    return "mask" if row["is_mask"] else "other"


def row_plot(document: Document) -> tuple[Plot | None, list[Key]]:
    """Means over seeds with their intervals, a mark for each row; None where there are not two scores to draw."""
    names, rows = _drawn(document), [row for row in document["cells"] if row["scores"]]
    if names is None or not rows:
        return None, []
    # The untuned model may lie far away, so it is not counted.
    near = [row for row in rows if role_of(row, document) != "freeze"] or rows
    axes = []
    for name, axis in zip(names, (x_axis, y_axis), strict=True):
        scores = [row["scores"][name] for row in near]
        ends = [float(score[end]) for score in scores for end in ("mean", "low", "high") if score[end] is not None]
        axes.append(axis(ends, may_log=name == names[0]))
    # The last labels find their places first, and the edge has the fewest.
    ordered = sorted(rows, key=lambda row: role_of(row, document) == "freeze")
    marks = [_mark(row, role_of(row, document), axes[0], axes[1], names) for row in ordered]
    better = {score["name"]: score["better"] for score in document["scores"]}
    titles = [f"{name} ({better[name]} is better)" for name in names]
    roles = dict.fromkeys(role_of(row, document) for row in rows)
    keys = [Key(ROLES[role][0], shape(ROLES[role][1], 17, 7, 5), ROLES[role][2]) for role in roles]
    return Plot(axes[0], axes[1], titles[0], titles[1], with_labels(marks, ())), keys


def _mark(row: Document, role: str, x: Axis, y: Axis, names: tuple[str, str]) -> Mark:
    kind, form, _ = ROLES[role]
    scores = [row["scores"][name] for name in names]
    value = (float(scores[0]["mean"]), float(scores[1]["mean"]))
    at = (x.at(x.clipped(value[0])), y.at(y.clipped(value[1])))
    inside = x.holds(value[0]) and y.holds(value[1])
    ends = [None if score["low"] is None else (float(score["low"]), float(score["high"])) for score in scores]
    words = [
        f"{name} {signed_text(score['mean'])}"
        + ("" if score["low"] is None else f" ({signed_text(score['low'])} to {signed_text(score['high'])})")
        for name, score in zip(names, scores, strict=True)
    ]
    title = f"{row['name']}, n = {scores[0]['n']} seeds: {', '.join(words)}"
    return Mark(
        kind,
        *at,
        shape(form, *at, 4 if role == "random" else 6),
        title,
        whiskers=whiskers(x, y, value, ends[0], ends[1]) if inside and role != "random" else "",
        text="" if role == "random" else row["name"] + ("" if inside else " (outside)"),
    )
