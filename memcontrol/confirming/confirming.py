"""The whole confirmation of a run: choose rows, train them with fresh seeds, and write scores beside the search's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memcontrol.cache import Cache, default_cache_folder
from memcontrol.comparison.comparing import identity_of, prepared_devices, told_of, train_cells
from memcontrol.comparison.results import ComparisonFolder, write_results
from memcontrol.comparison.worker import CellOrder
from memcontrol.config import ConfirmConfig, RunConfig, load_config
from memcontrol.confirming.document import write_confirmed
from memcontrol.confirming.rows import Chosen, chosen_rows
from memcontrol.confirming.settings import Fresh, check_fresh, fresh_seeds, judged_on, other_measures
from memcontrol.errors import MemControlError, RunError
from memcontrol.measures import full_name
from memcontrol.pipeline import load_pipeline
from memcontrol.run import RunFolder
from memcontrol.score.assembling import check_scoring
from memcontrol.study.confirmed import read_confirmation
from memcontrol.study.events import Listener, ignore
from memcontrol.study.launching import sole_launch
from memcontrol.study.trial import Laboratory, drawn_dataset


@dataclass(frozen=True)
class ConfirmationResult:
    """A finished confirmation.

    Attributes:
        folder: of the run.
        front: the content of `front.json`, confirmed.
    """

    folder: RunFolder
    front: dict[str, Any]


def confirm(
    run: str | Path,
    *,
    seeds: Sequence[int] | None = None,
    trainings: int | None = None,
    measures: Sequence[str] | None = None,
    workers: int | None = None,
    listener: Listener = ignore,
) -> ConfirmationResult:
    """Train what a search found again, or what is left of that, and write confirmed scores beside the search's.

    Args:
        run: folder of a search.
        seeds: fresh ones; from 101 on, as many as the run's configuration says, unless given.
        trainings: at most; as the run's configuration says unless given.
        measures: scored besides the objectives; those of an earlier confirmation, else the objectives on another
            encoder, unless given.
        workers: processes; None for one per GPU, or one per core where there is none.
        listener: told what happens as it happens.

    Raises:
        MemControlError: bad input, before anything is trained; or a confirmation that cannot go on, its scores kept.
        KeyboardInterrupt: after every worker has stopped and the results so far are written.
    """
    folder = RunFolder(Path(run))
    front, config = folder.read_front(), load_config(folder.config)
    asked = config.confirm
    given = tuple(fresh_seeds(asked.seeds or ConfirmConfig().seeds, config) if seeds is None else seeds)
    check_fresh(given, config)
    most = asked.trainings if trainings is None else trainings
    if most < len(given):
        raise MemControlError(
            f"{most} trainings for {len(given)} seeds: ask for at least one training a seed, or for fewer seeds"
        )
    chosen = chosen_rows(front, folder, config, most // len(given))
    named = asked.measures if measures is None else tuple(map(full_name, measures))
    with sole_launch(folder, "search or confirmation", elsewhere=""):  # a confirmation has no other place
        return _confirm(folder, config, chosen, seeds=given, measures=named, workers=workers, listener=listener)


def _confirm(
    folder: RunFolder,
    config: RunConfig,
    chosen: Chosen,
    *,
    seeds: tuple[int, ...],
    measures: tuple[str, ...] | None,
    workers: int | None,
    listener: Listener,
) -> ConfirmationResult:
    if measures is None:
        measures = _earlier_measures(folder)
    check_scoring(measures or (), config.scoring)
    devices = prepared_devices(workers)
    fresh, laboratory, notes = _opened(config, seeds=seeds, measures=measures, device=devices[0])
    _check_same(chosen, laboratory, folder)
    inner = ComparisonFolder(folder.confirmation)
    inner.prepare()
    identity, elsewhere = identity_of(laboratory.config, laboratory), f"move {inner.path} away to confirm anew"
    order = CellOrder(fresh, chosen.cells, identity, inner.path, laboratory.frozen.cache.folder, elsewhere)
    ledger, told = order.ledger(), told_of(laboratory)

    def write() -> None:
        write_results(ledger, chosen.cells, told, inner)
        write_confirmed(chosen.rows, ledger, fresh, laboratory, folder)

    notes = (*chosen.notes, *notes, _plan(fresh, laboratory))
    train_cells(order, ledger, laboratory, devices=devices, listener=listener, notes=notes, write=write)
    return ConfirmationResult(folder, folder.read_front())


def _opened(
    config: RunConfig, *, seeds: tuple[int, ...], measures: tuple[str, ...] | None, device: str
) -> tuple[Fresh, Laboratory, tuple[str, ...]]:
    """How rows are trained again, what those of the first seed share, and sentences on what they are judged by.

    Args:
        measures: besides the objectives; the objectives on another encoder where None.
    """
    cache = Cache(default_cache_folder())
    frozen = load_pipeline(config.model, cache=cache, device=device)
    dataset = drawn_dataset(config, frozen)
    if measures is None:
        measures = other_measures(config, has_autoencoder=frozen.has_autoencoder)
    fresh, notes = judged_on(Fresh(config, seeds, measures), dataset)
    return fresh, Laboratory(fresh.run(seeds[0]), cache=cache, device=device, frozen=frozen, dataset=dataset), notes


def _earlier_measures(folder: RunFolder) -> tuple[str, ...] | None:
    known = read_confirmation(folder)
    if known is None:
        return None
    if "measures" in known:
        return tuple(known["measures"])
    # Of a confirmation written before; the twin that `copy_gap` has where data have subjects comes of itself.
    names = [score["name"] for score in known["scores"] if not score["objective"]]
    return tuple(name for name in names if not name.startswith("copy_gap_same_subjects@"))


def _check_same(chosen: Chosen, laboratory: Laboratory, folder: RunFolder) -> None:
    """Refuse a model or data that are no longer those of the search."""
    for row in chosen.rows:
        row.cell.check(laboratory.frozen, laboratory.dataset)
        mask = row.cell.recipe.mask
        if mask is None or row.kind != "front":
            continue
        known = mask.provenance.get("data", {}).get("sha256", laboratory.data_fingerprint)
        if known != laboratory.data_fingerprint:
            raise RunError(f"the data changed since {folder.path} was searched: confirm it on the same data")
        if mask.model.weights != laboratory.model.weights:
            raise RunError(f"the weights of {mask.model.id} changed since {folder.path} was searched: use the same")


def _plan(fresh: Fresh, laboratory: Laboratory) -> str:
    heldout = laboratory.dataset.heldout
    judged = f"{len(heldout.confirmation)} held-out images that the search did not use"
    if fresh.held_out == "search":
        judged = "the search's held-out images"
    others = f", and by {', '.join(fresh.measures)}" if fresh.measures else ""
    return f"confirming on seeds {', '.join(map(str, fresh.seeds))}, on {judged}{others}"
