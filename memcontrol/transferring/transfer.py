"""The whole transfer: carry the masks, train every row with every seed, and write down what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memcontrol.carrying import mapping_text
from memcontrol.comparison.comparing import cautions, cell_order, default_folder, opened, told_of, train_cells
from memcontrol.comparison.results import write_results
from memcontrol.random_masks import size_notes
from memcontrol.run import write_atomically
from memcontrol.study.events import Listener, ignore
from memcontrol.study.launching import sole_launch
from memcontrol.study.trial import Laboratory
from memcontrol.transferring.config import ENOUGH, TransferConfig
from memcontrol.transferring.results import TransferFolder, transfer_document
from memcontrol.transferring.rows import Rows, given_masks, rows_of


@dataclass(frozen=True)
class TransferResult:
    """A finished transfer.

    Attributes:
        document: the content of `transfer.json`.
    """

    folder: TransferFolder
    document: dict[str, Any]


def transfer_folder(config: TransferConfig) -> Path:
    """`runs/transfer-<data>-<model>`, so that the same command resumes."""
    return default_folder(config, "transfer")


def transfer(
    config: TransferConfig, out: Path | None = None, *, workers: int | None = None, listener: Listener = ignore
) -> TransferResult:
    """Train masks on a target with every seed, beside all that they are compared with, or what is left of that.

    Masks and seeds that an earlier command in the folder did not ask for are added to it.

    Args:
        out: run folder; `transfer_folder` unless given.
        workers: processes; None for one per GPU, or one per core where there is none.
        listener: told what happens as it happens.

    Raises:
        MemControlError: bad input, before anything is trained; or a transfer that cannot go on, its scores kept.
        KeyboardInterrupt: after every worker has stopped and the results so far are written.
    """
    given_masks(config)  # what is wrong with them is said before data and model are loaded, which may take minutes
    laboratory, devices = opened(config, workers)
    rows = rows_of(config, laboratory.frozen.unet, laboratory.model)
    for cell in rows.cells:
        cell.check(laboratory.frozen, laboratory.dataset)
    folder = TransferFolder(out or transfer_folder(config))
    folder.prepare()
    with sole_launch(folder, "transfer"):
        order = cell_order(config, rows.cells, laboratory, folder)
        ledger, told = order.ledger(), told_of(laboratory)
        _write_plan(config, rows, folder)

        def write() -> None:
            write_results(ledger, rows.cells, told, folder)

        try:
            notes = (*laboratory.notes, *_carried_notes(rows), *_notes(config, rows, laboratory))
            train_cells(order, ledger, laboratory, devices=devices, listener=listener, notes=notes, write=write)
        finally:
            document = transfer_document(config, rows, ledger, told)
            folder.write_json(folder.document, document)
    return TransferResult(folder, document)


def _write_plan(config: TransferConfig, rows: Rows, folder: TransferFolder) -> None:
    """The configuration, and the masks as they fit the target."""
    write_atomically(folder.config, config.to_yaml())
    for name, carried in rows.carried.items():
        carried.mask.save(folder.carried_mask(name))


def _carried_notes(rows: Rows) -> list[str]:
    """How the bits of each mask got to another U-Net; masks that agree are named together."""
    found: dict[str, list[str]] = {}
    for name, carried in rows.carried.items():
        if carried.how != "unchanged":
            found.setdefault(f"carried by {carried.how}: {mapping_text(carried)}", []).append(name)
    return [f"{', '.join(names)} {text}" for text, names in found.items()]


def _notes(config: TransferConfig, rows: Rows, laboratory: Laboratory) -> list[str]:
    """What a reader should know of how these masks were found, and of what so few random masks can say."""
    notes, target = cautions(config, rows.cells), laboratory.dataset.name
    for role, names in (("mask", rows.named("mask")), ("target", rows.named("target"))):
        for name in names:
            notes += _origin(name, rows, role=role, target=target)
    masks = {row.name: row.recipe.mask for row in rows.rows}
    for name in rows.named("mask"):
        twins = [twin for one in rows.named("random", of=name) if (twin := masks[one]) is not None]
        notes += size_notes(name, rows.carried[name].mask, twins)
    moved = [name for name, carried in rows.carried.items() if carried.how != "unchanged"]
    if moved:
        notes.append(f"the learning rates of {', '.join(moved)} were found on another model")
    if config.random < ENOUGH:
        least = 1 / (1 + config.random)
        notes.append(f"{config.random} random masks give no p below {least:.2g}: {ENOUGH} are needed for .05")
    return notes


def _origin(name: str, rows: Rows, *, role: str, target: str) -> Sequence[str]:
    found = rows.carried[name].mask.provenance
    data = found.get("data", {}).get("name")
    notes = []
    if role == "mask" and data == target:
        notes.append(f"mask {name} was found on {data}, the target: it is no transfer to other data")
    if role == "target" and data not in (None, target):
        notes.append(f"the target's own mask {name} was found on {data}, and the target is {target}")
    mitigations = found.get("settings", {}).get("mitigations")
    if mitigations:
        notes.append(f"mask {name} was found under {', '.join(map(str, mitigations))}, and trains without here")
    return notes
