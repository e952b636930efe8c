"""The page of a run's folder, whichever command wrote it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from memcontrol.errors import RunError
from memcontrol.run import RunFolder

Writer = Callable[..., str]
WITHOUT_IMAGES = "Images were left out of this page."


def page_of(path: Path, *, images: bool = True) -> tuple[str, str]:
    """The name of a folder's page, and the page.

    Args:
        images: whether pictures of generated and training images are put in.
    Raises:
        RunError: the folder is of no command that has a page, or has not begun.
        MemControlError: a file in it cannot be read.
    """
    for file, (name, write) in PAGES.items():
        if (path / file).is_file():
            return name, write(path, images=images)
    raise RunError(
        f"{path} has none of {', '.join(PAGES)}: name the folder of a search, comparison, transfer or audit that has "
        "finished something"
    )


def _search_page(path: Path, *, images: bool) -> str:
    from memcontrol.report.run_page import run_page

    return run_page(RunFolder(path), images=images)


def _table_page(path: Path, *, images: bool) -> str:  # noqa: ARG001
    from memcontrol.report.table_page import table_page

    return table_page(path)


def _audit_page(path: Path, *, images: bool) -> str:
    from pydantic import ValidationError

    from memcontrol.auditing.document import AuditDocument
    from memcontrol.report.audit_page import audit_page

    try:
        document = AuditDocument.model_validate_json((path / "audit.json").read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise RunError(
            f"{path / 'audit.json'} is no audit of this version ({key}: {first['msg']}): audit again"
        ) from error
    if not images:
        document = document.model_copy(update={"nearest": [], "notes": [*document.notes, WITHOUT_IMAGES]})
    return audit_page(document, path)


PAGES: Mapping[str, tuple[str, Writer]] = {
    "audit.json": ("audit.html", _audit_page),
    "transfer.json": ("report.html", _table_page),
    "comparison.json": ("report.html", _table_page),
    "front.json": ("report.html", _search_page),
}
"""What tells a folder apart -> the name of its page, and what writes it."""
