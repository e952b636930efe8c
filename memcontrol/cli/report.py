"""`memcontrol report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from memcontrol.cli.options import exit_codes


def report(
    run: Annotated[Path, typer.Argument(help="Folder of a search, a comparison, a transfer or an audit.")],
    images: Annotated[
        bool, typer.Option(help="Put training and generated images in; who gets the page gets them.")
    ] = True,
    out: Annotated[
        Path | None, typer.Option(help="File to write.", show_default="report.html, or audit.html, in RUN")
    ] = None,
) -> None:
    """Write what came of a run as one web page, which opens from disk and fetches nothing.

    Example: memcontrol report runs/brain-tiny-stage-kinds --no-images
    """
    with exit_codes():
        from memcontrol.report.pages import page_of
        from memcontrol.run import write_atomically

        name, page = page_of(run, images=images)
        path = run / name if out is None else out
        write_atomically(path, page)
        console = Console()
        console.print(
            f"Written to {path} ({len(page.encode()) / 1e6:.1f} MB)", markup=False, highlight=False, soft_wrap=True
        )
        if "data:image/webp" in page or "data:image/png" in page:
            console.print("It holds images: who gets the page gets them; --no-images leaves them out.", highlight=False)
