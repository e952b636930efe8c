"""What people see: tables, progress, plots and pages."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from memcontrol.run import RunFolder


def read_trials(folder: RunFolder) -> list[dict[str, str]]:
    """The rows of `trials.csv`; none where no trial has ended yet."""
    if not folder.trials.is_file():
        return []
    with folder.trials.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_report(folder: RunFolder) -> None:
    """Draw `front.png` and `samples/front.png` from `front.json` and `trials.csv`.

    Raises:
        RunError: the folder holds no `front.json`.
    """
    from memcontrol.report.plots import front_picture
    from memcontrol.report.samples import samples_sheet, sheet_path

    front = folder.read_front()
    if front["front"] or front["references"]:
        front_picture(front, read_trials(folder), folder.picture)
    if front["front"]:
        folder.write_picture(sheet_path(folder), samples_sheet(folder, front))
