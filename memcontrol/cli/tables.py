"""What `compare` and `transfer` share: rows that are trained under a listener, and then the tables of all of them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType

if TYPE_CHECKING:
    from memcontrol.comparison.results import ComparisonFolder
    from memcontrol.study.events import Listener


def print_tables(
    folder: ComparisonFolder,
    train: Callable[[Listener], Mapping[str, Any]],
    *,
    write: Callable[[], None],
    tables: Callable[[Mapping[str, Any], Console], RenderableType],
    as_json: bool,
) -> None:
    """Train with a line for each training, then print the tables, or each event and the document as JSON lines.

    Args:
        train: gives the document.
        write: the tables and pictures of what is in the folder, also where training is interrupted.
        tables: the document's, for a terminal.

    Raises:
        KeyboardInterrupt: it was interrupted; what is done is written.
    """
    from memcontrol.report.comparison import ComparisonLines
    from memcontrol.report.live import JsonLines

    console = Console()
    listener: Listener = JsonLines(sys.stdout) if as_json else ComparisonLines(folder, console)
    try:
        document = train(listener)
    except KeyboardInterrupt:
        if folder.document.exists():
            write()
        raise
    write()
    if as_json:
        sys.stdout.write(json.dumps({"event": "result"} | dict(document)) + "\n")
        return
    console.print(tables(document, console))
    console.print(f"Written to {folder.path}", markup=False, highlight=False, soft_wrap=True)
