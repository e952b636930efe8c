"""An audit in the terminal: scores with their controls, the nearest images, and how much was not measured."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import ASCII, SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from memcontrol.auditing.document import AuditDocument, Duplicates
from memcontrol.report.audit_reading import Reading, check_finite, readings
from memcontrol.report.audit_words import GROUP_TITLES
from memcontrol.report.wording import counted_text, interval_text, signed_text

NARROW = 96
"""Columns below which n and the direction are left out, and intervals broken."""
LONG = 26
"""Letters from which a score's name is broken at its `@` in any case."""
MOST_KEYS = 3


def audit_tables(document: AuditDocument, *, width: int = 100, triples: int = 5, ascii_only: bool = False) -> Group:
    """Duplicates first, then the scores, the generated images nearest to training, and what is missing.

    Args:
        width: columns of the terminal; made for 60 and more.
        triples: how many of the document's nearest images are named.
        ascii_only: whether the terminal shows nothing else.
    Raises:
        MemControlError: a NaN or infinite number, or content that is not a score.
    """
    check_finite(document)
    parts: list[RenderableType] = list(_duplicates(document.duplicates))
    for kind, title in (("fidelity", "Fidelity"), ("memorization", "Memorization"), ("other", "Other measures")):
        rows = readings(document, kind)
        if rows:
            parts.append(_scores(rows, title, controls=kind == "memorization", width=width, ascii_only=ascii_only))
        if rows and kind == "memorization":
            parts += _summary(rows)
    if document.nearest and triples:
        parts.append(_nearest(document, triples, width=width, ascii_only=ascii_only))
    parts += _extracted(document)
    return Group(*parts, Text(_missing(document)))


def _duplicates(duplicates: Duplicates) -> list[Text]:
    told = []
    if duplicates.heldout:
        count, keys = len(duplicates.heldout), _some([" = ".join(pair) for pair in duplicates.heldout])
        pairs = counted_text(count, "pair")
        told.append(Text(f"Overlap: {pairs} of identical training and held-out images ({keys}).", "bold"))
    if duplicates.training:
        count, keys = len(duplicates.training), _some([" = ".join(group) for group in duplicates.training])
        told.append(Text(f"Duplicates: {counted_text(count, 'group')} of identical training images ({keys}).", "bold"))
    return told


def _some(texts: Sequence[str]) -> str:
    rest = len(texts) - MOST_KEYS
    return ", ".join(texts[:MOST_KEYS]) + (f" and {rest:,} more" if rest > 0 else "")


def _table(title: str, ascii_only: bool) -> Table:
    box = ASCII if ascii_only else SIMPLE_HEAD
    return Table(title=Text(title), title_justify="left", box=box, padding=(0, 1, 0, 0), show_edge=False)


def _scores(rows: Sequence[Reading], title: str, *, controls: bool, width: int, ascii_only: bool) -> Table:
    """One row a score; a second line holds the interval, and a further one what the control leaves open."""
    wide = width >= NARROW
    table = _table(title, ascii_only)
    table.add_column("measure", overflow="fold")
    table.add_column("value,\n95 % interval", justify="right", no_wrap=True)
    if wide:
        table.add_column("n", justify="right")
        table.add_column("better")
    if controls:
        for head in ("held-out", "planted") if wide else ("held-out,\nplanted",):
            table.add_column(head, justify="right", no_wrap=True)
        table.add_column("copies", no_wrap=True)
    for row in rows:
        value = f"{signed_text(row.score.value)}\n{interval_text(row.score)}"
        cells = [_name(row.name, wide), _ascii(value if wide else value.replace(" to ", " to\n"), ascii_only)]
        cells += [Text(f"{row.score.n:,}"), Text(row.score.better)] if wide else []
        if controls:
            ends = ["–" if end is None else signed_text(end.value) for end in (row.floor, row.ceiling)]
            cells += [_ascii(text, ascii_only) for text in (ends if wide else ["\n".join(ends)])]
            cells.append(_flag(row))
        table.add_row(*cells)
    return table


def _name(name: str, wide: bool) -> Text:
    return Text(name if wide and len(name) < LONG else name.replace("@", "@\n"))


def _flag(row: Reading) -> Text:
    word = "-" if row.flagged is None else row.flag_word
    return Text(word + ("" if row.believable else "\ncannot tell"), "bold" if row.group == "flagged" else "")


def _summary(rows: Sequence[Reading]) -> list[Text]:
    """How many measures say what."""
    counts = {key: sum(row.group == key for row in rows) for key in GROUP_TITLES}
    told = [
        Text(f"{title}: {counts[key]}" + (f" ({more})" if more else ""))
        for key, (title, more) in GROUP_TITLES.items()
        if counts[key]
    ]
    return [*told, Text()]


def _nearest(document: AuditDocument, most: int, *, width: int, ascii_only: bool) -> Table:
    """The first triples in words."""
    table = _table("Generated images nearest to training", ascii_only)
    for head in ("generated", "nearest training", "nearest held-out"):
        table.add_column(head, overflow="fold")
    if width >= NARROW:
        table.add_column("under", overflow="fold")
    for triple in document.nearest[:most]:
        cells = [Text(triple.generated.key)]
        for fact in (triple.training, triple.heldout):
            cells.append(Text(fact.key + ("" if fact.distance is None else f"\n{signed_text(fact.distance)}")))
        table.add_row(*cells, *([Text(triple.encoder)] if width >= NARROW else []))
    if len(document.nearest) > most:
        table.caption = f"{len(document.nearest) - most:,} more in the page"
    return table


def _extracted(document: AuditDocument) -> list[Text]:
    return [
        Text(
            f"Extraction ({rules}): {counted_text(len(keys), 'training image')} given back"
            + (f" ({_some(keys)})." if keys else ".")
        )
        for rules, keys in document.extracted.items()
    ]


def _missing(document: AuditDocument) -> str:
    names = [missing.name for missing in document.not_measured]
    if not names:
        return "Not measured: nothing that was asked for."
    return f"Not measured: {len(names):,} ({_some(names)}); the reasons are in the page."


def _ascii(text: str, ascii_only: bool) -> Text:
    return Text(text.replace("−", "-").replace("–", "-") if ascii_only else text)
