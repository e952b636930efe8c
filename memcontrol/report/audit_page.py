"""An audit as one HTML page that holds its own images, styles and script, and fetches nothing."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from memcontrol.auditing.document import AuditDocument
from memcontrol.errors import MemControlError
from memcontrol.report import audit_charts
from memcontrol.report.audit_reading import (
    Reading,
    check_finite,
    generated_count,
    ranked_captions,
    readings,
)
from memcontrol.report.audit_words import CONTROLS_EXPLAINED, GROUP_TITLES, SET_NAMES, limits
from memcontrol.report.facts import facts
from memcontrol.report.page import data_address, page_environment, rendered
from memcontrol.report.wording import duration_text, number_text, plain_text

if TYPE_CHECKING:
    from jinja2 import Environment

PARTS = ("generated", "training", "heldout")
"""The images of a triple."""
MOST_CAPTIONS = 50
MOST_DUPLICATES = 20
LARGEST_SIDE = 320
"""Pixels to which larger images are reduced."""
COMMAND = "command"
"""Key of the subject under which the command that repeats the audit stands."""


def audit_page(document: AuditDocument, folder: Path) -> str:
    """The whole page: what was measured, with its controls, and what was not, without a verdict.

    Captions and names are shown as text whatever they hold, and the page's own policy lets it load nothing from
    elsewhere. Images are reduced to at most 320 pixels a side and lose their metadata.

    Args:
        folder: where the document's image files lie.
    Raises:
        MemControlError: a NaN or infinite number, content that is not a score, a histogram that does not fit its
            edges, or an image that is missing, unreadable or outside `folder`.
    """
    check_finite(document)
    content = _content(document) | {"triples": _triples(document, folder)}
    return rendered(_environment(), "audit.html", content, styles=["audit.css"], scripts=["sorting.js"])


def _environment() -> Environment:
    """The pages' templates, with the fixed words and pictures of this one."""
    environment = page_environment()
    environment.filters |= {"bar": audit_charts.bar}
    environment.globals |= {
        "chart_size": (audit_charts.WIDTH, audit_charts.HEIGHT),
        "plot": (audit_charts.LEFT, audit_charts.WIDTH - audit_charts.RIGHT, audit_charts.HEIGHT - audit_charts.BOTTOM),
        "group_titles": GROUP_TITLES,
        "set_names": SET_NAMES,
        "controls_explained": CONTROLS_EXPLAINED,
        "most_duplicates": MOST_DUPLICATES,
    }
    return environment


def _content(document: AuditDocument) -> dict[str, Any]:
    """Everything on the page but images, as the template names it."""
    rows = {kind: readings(document, kind) for kind in ("fidelity", "memorization", "other")}
    flagging = rows["memorization"]
    captions = ranked_captions(document)
    subject = document.subject
    return {
        "document": document,
        "name": plain_text(subject.get("name", "unnamed")),
        "subject": facts(subject, without=("kind", "name", COMMAND)),
        "data": facts(document.data),
        "versions": facts(document.versions),
        "took": duration_text(document.seconds),
        "command": subject.get(COMMAND),
        "rows": rows,
        "groups": _groups(flagging),
        "counts": sorted({row.score.n for row in flagging}),
        "explained": {row.name: row.meaning for kind in rows.values() for row in kind if row.meaning},
        "charts": [(histogram, audit_charts.chart(histogram)) for histogram in document.histograms],
        "captions": captions[:MOST_CAPTIONS],
        "more_captions": len(captions) - len(captions[:MOST_CAPTIONS]),
        "noise_magnitudes": any(fact.noise_magnitude is not None for fact in captions),
        "encoders": {name: facts(about) for name, about in document.encoders.items()},
        "limits": limits(generated_count(flagging)),
    }


def _groups(rows: Iterable[Reading]) -> list[tuple[str, list[Reading]]]:
    """The summary's groups that hold anything, in order."""
    held = list(rows)
    groups = [(key, [row for row in held if row.group == key]) for key in GROUP_TITLES]
    return [group for group in groups if group[1]]


def _triples(document: AuditDocument, folder: Path) -> list[tuple[str, list[dict[str, Any]]]]:
    """Encoder -> its triples in the document's order, each as three pictures."""
    ordered = sorted(document.nearest, key=lambda triple: triple.encoder)
    return [
        (encoder, [{part: _picture(getattr(triple, part), folder) for part in PARTS} for triple in group])
        for encoder, group in groupby(ordered, key=lambda triple: triple.encoder)
    ]


def _picture(fact: Any, folder: Path) -> dict[str, str]:
    distance = "" if fact.distance is None else number_text(fact.distance)
    return {"source": embedded(folder, fact.file), "key": fact.key, "caption": fact.caption, "distance": distance}


def embedded(folder: Path, file: str) -> str:
    """An image file as a `data:` address of a PNG, reduced to at most `LARGEST_SIDE` and without metadata.

    Args:
        file: path relative to `folder`, and inside it.
    Raises:
        MemControlError: a file that is missing, no image, or outside the folder.
    """
    path = (folder / file).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise MemControlError(f"image {file} of the audit lies outside {folder}: its images must lie in its own folder")
    try:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
    except OSError as error:
        raise MemControlError(
            f"image {file} of the audit cannot be read in {folder} ({error}): run the audit again, or restore the file"
        ) from error
    image.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    return data_address(image, "PNG", optimize=True)
