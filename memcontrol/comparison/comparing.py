"""The whole comparison: check every row, let workers train them with every seed, and write down what came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna

from memcontrol.cache import Cache, default_cache_folder
from memcontrol.comparison.cells import Cell, cells_of
from memcontrol.comparison.config import ComparisonConfig, RowsConfig
from memcontrol.comparison.ledger import CellLedger
from memcontrol.comparison.methods import METHODS
from memcontrol.comparison.results import ComparisonFolder, Told, document_of, shown_columns, write_results
from memcontrol.comparison.worker import CellOrder, CellWorker, run_cell_worker
from memcontrol.config import RunConfig, flattened
from memcontrol.run import RunFolder, write_atomically
from memcontrol.study.events import Event, Finished, Listener, Note, ignore
from memcontrol.study.launching import sole_launch
from memcontrol.study.placement import take_device, worker_devices
from memcontrol.study.processes import run_processes
from memcontrol.study.trial import Laboratory

SHARED = ("data", "model", "tuning", "sampling", "scoring")
"""Sections that must be the same for rows and seeds to be added to what a folder has."""


@dataclass(frozen=True)
class ComparisonResult:
    """A finished (or interrupted) comparison.

    Attributes:
        document: the content of `comparison.json`.
    """

    folder: ComparisonFolder
    document: dict[str, Any]


def default_folder(config: RowsConfig, what: str = "comparison") -> Path:
    """`runs/<what>-<data>-<model>`, so that the same command resumes."""
    names = (Path(part).stem or "data" for part in (config.data.source, config.model))
    return Path("runs") / "-".join((what, *names))


def compare(
    config: ComparisonConfig, out: Path | None = None, *, workers: int | None = None, listener: Listener = ignore
) -> ComparisonResult:
    """Train every row with every seed, or what is left of that, and compare them.

    Rows and seeds that an earlier command in the folder did not ask for are added to it.

    Args:
        out: run folder; `default_folder` unless given.
        workers: processes; None for one per GPU, or one per core where there is none.
        listener: told what happens as it happens.

    Raises:
        MemControlError: bad input, before anything is trained; or a comparison that cannot go on, its scores kept.
        KeyboardInterrupt: after every worker has stopped and the results so far are written.
    """
    cells = cells_of(config)
    laboratory, devices = opened(config, workers)
    for cell in cells:
        cell.check(laboratory.frozen, laboratory.dataset)
    shown_columns(config, laboratory.score_names)
    folder = ComparisonFolder(out or default_folder(config))
    folder.prepare()
    with sole_launch(folder, "comparison"):
        order = cell_order(config, cells, laboratory, folder)
        ledger, told = order.ledger(), told_of(laboratory)
        write_atomically(folder.config, config.to_yaml())

        def write() -> None:
            write_results(ledger, cells, told, folder)

        try:
            notes = (*laboratory.notes, *cautions(config, cells))
            train_cells(order, ledger, laboratory, devices=devices, listener=listener, notes=notes, write=write)
        finally:
            columns = {"columns": list(shown_columns(config, told.names))}
            document = document_of(config, ledger, cells, told) | columns
            folder.write_json(folder.document, document)
    return ComparisonResult(folder, document)


def opened(config: RowsConfig, workers: int | None) -> tuple[Laboratory, list[str]]:
    """What all rows of the first seed share, and the devices that workers take.

    Args:
        workers: processes; None for one per GPU, or one per core where there is none.
    """
    devices = prepared_devices(workers)
    cache = Cache(default_cache_folder())
    return Laboratory(config.run(config.seeds[0]), cache=cache, device=devices[0]), devices


def prepared_devices(workers: int | None) -> list[str]:
    """The devices that workers take, with this process set up to train on the first of them.

    Args:
        workers: processes; None for one per GPU, or one per core where there is none.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    devices = worker_devices(workers)
    take_device(devices[0])
    return devices


def cell_order(config: RowsConfig, cells: tuple[Cell, ...], laboratory: Laboratory, folder: RunFolder) -> CellOrder:
    """What the workers of these rows need to know."""
    return CellOrder(config, cells, identity_of(config, laboratory), folder.path, laboratory.frozen.cache.folder)


def train_cells(
    order: CellOrder,
    ledger: CellLedger,
    laboratory: Laboratory,
    *,
    devices: Sequence[str],
    listener: Listener,
    notes: Sequence[str],
    write: Callable[[], None],
) -> None:
    """Train every row with every seed, or what is left of that.

    Args:
        ledger: the order's.
        laboratory: of the first seed.
        notes: told before the first training.
        write: writes the lines so far; called after every training, and at the end, whatever ended it.

    Raises:
        RunError: every training failed, or a worker died.
        KeyboardInterrupt: after every worker has stopped.
    """
    done = ledger.enqueue()
    for text in (*notes, _plan(ledger, done, len(devices))):
        listener(Note(text))

    def watch(event: Event) -> None:
        if isinstance(event, Finished):
            write()
        listener(event)

    try:
        if len(devices) == 1:
            CellWorker(order, 0, devices[0], watch, laboratory).run()
        else:
            run_processes(run_cell_worker, order, list(devices), watch)
    finally:
        write()


def identity_of(config: RowsConfig | RunConfig, laboratory: Laboratory) -> dict[str, str]:
    """What must be the same for rows and seeds to be added, each by a name that a user knows."""
    content = config.model_dump(mode="json", include=set(SHARED))
    return flattened(content) | {
        "architecture": laboratory.model.architecture,
        "weights": laboratory.model.weights,
    }


def told_of(laboratory: Laboratory) -> Told:
    """What the results say besides scores."""
    return Told(
        names=laboratory.score_names,
        unet_numel=sum(parameter.numel() for parameter in laboratory.frozen.unet.parameters()),
        data={"name": laboratory.dataset.name, "n": len(laboratory.dataset.training)},
    )


def cautions(config: RowsConfig, cells: Sequence[Cell]) -> list[str]:
    """What a reader should know of learning rates and lengths that were not chosen for this comparison."""
    own = {cell.recipe.name for cell in cells if cell.recipe.space is not None} - set(config.rates)
    notes = []
    if own and (config.model != "tiny" or config.tuning.steps != 300):
        rates = ", ".join(f"{name} {METHODS[name].rate:g}" for name in METHODS if name in own)
        notes.append(f"learning rates that suit model tiny at 300 steps: {rates}; give others with --rate METHOD=RATE")
    for recipe in {cell.recipe.name: cell.recipe for cell in cells if cell.recipe.mask is not None}.values():
        steps = recipe.mask.provenance.get("steps") if recipe.mask is not None else None
        if steps not in (None, config.tuning.steps):
            notes.append(f"mask {recipe.name} was found at {steps} steps, and trains for {config.tuning.steps} here")
    return notes


def _plan(ledger: CellLedger, done: int, workers: int) -> str:
    seeds = f"{len(ledger.seeds)} seed{'s' if len(ledger.seeds) > 1 else ''}"
    resumed = f"{done} of {len(ledger.keys)} trainings are done already; " if done else ""
    return (
        f"{resumed}{len(ledger.cells)} rows x {seeds} = {len(ledger.keys)} trainings, "
        f"{workers} worker{'s' if workers > 1 else ''}"
    )
