"""What a transfer's folder has for people: tables, what they say, and a picture."""

from __future__ import annotations

from memcontrol.report.transfer_picture import transfer_picture
from memcontrol.report.transfer_table import CSV_COLUMNS, transfer_lines, transfer_markdown
from memcontrol.run import write_atomically
from memcontrol.transferring.results import TransferFolder


def write_transfer(folder: TransferFolder) -> None:
    """Write `transfer.csv`, `transfer.md` and, where two objectives can be drawn, `transfer.png` from `transfer.json`.

    Raises:
        RunError: the folder holds no transfer.
    """
    document = folder.read()
    folder.write_table(folder.table, CSV_COLUMNS, list(transfer_lines(document)))
    write_atomically(folder.markdown, transfer_markdown(document))
    if not transfer_picture(document, folder.chart):
        folder.chart.unlink(missing_ok=True)  # an earlier command's, which had other objectives
