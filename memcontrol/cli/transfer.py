"""`memcontrol transfer`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memcontrol.cli.options import (
    AsJson,
    Batch,
    ConfigFile,
    Images,
    Model,
    Objectives,
    Steps,
    Workers,
    configured,
    exit_codes,
    option,
    starting,
    worker_count,
)
from memcontrol.cli.planning import DryRun, Tflops, print_plan, refuse_without_dry_run
from memcontrol.cli.reading import Reading, with_reading_options
from memcontrol.cli.tables import print_tables
from memcontrol.data import check_source
from memcontrol.terms import DATA

if TYPE_CHECKING:
    from memcontrol.transferring.config import TransferConfig

TRANSFER_OPTIONS = {"data.source": "--data", "rates": "--rate", "masks": "--mask", "target_masks": "--target-mask"}


@with_reading_options
def transfer(
    mask: Annotated[list[str] | None, option("A mask's JSON file, or a search's folder; may be repeated.")] = None,
    data: Annotated[
        str | None,
        option(
            "The target: brain, faces, digits, a folder, a CSV, XLSX or .npz file, or hf:NAME.",
            "faces",
            complete=starting(DATA),
        ),
    ] = None,
    model: Model = None,
    target_mask: Annotated[
        list[str] | None,
        typer.Option(
            "--target-mask",
            "--target-run",
            help="The same, of a search on the target itself; may be repeated.",
            show_default=False,
        ),
    ] = None,
    pick: Annotated[
        str | None, option("Of a search's front: knee, best-fidelity, least-copied or all.", "knee")
    ] = None,
    map_: Annotated[
        str | None,
        typer.Option("--map", help="To another U-Net: groups by name, or by relative position.", show_default="name"),
    ] = None,
    random: Annotated[int | None, option("Random masks of each mask's size; 19 can show p = .05.", 19)] = None,
    seeds: Annotated[
        list[str] | None, option("5,6,7 or 5-12; each draws its own training set; may be repeated.", "5-7")
    ] = None,
    rate: Annotated[list[str] | None, option("full=RATE; masks bring their own.", "full=3e-3")] = None,
    steps: Steps = None,
    batch: Batch = None,
    images: Images = None,
    objectives: Objectives = None,
    workers: Workers = "auto",
    out: Annotated[
        Path | None, option("Folder; the same one resumes, and takes more masks and seeds.", "runs/transfer-DATA-MODEL")
    ] = None,
    config: ConfigFile = None,
    dry_run: DryRun = False,
    tflops: Tflops = None,
    as_json: AsJson = False,
    *,
    reading: Reading,
) -> None:
    """Train masks on other data or another model, beside full fine-tuning and random masks of their size.

    Example: memcontrol transfer --mask runs/brain-tiny-stage-kinds --data faces --seeds 5-12
    """
    with exit_codes("what was finished is kept, the same command goes on"):
        from memcontrol.transferring.config import TransferConfig, load_transfer

        file = TransferConfig() if config is None else load_transfer(config)
        changes: dict[str, dict[str, Any]] = {
            "": {
                "model": model,
                "masks": mask or None,
                "target_masks": target_mask or None,
                "pick": pick,
                "map": map_,
                "random": random,
                "seeds": seeds or None,
                "rates": rate or None,
            },
            "data": {
                "source": data,
                **reading,
            },
            "tuning": {"steps": steps, "batch": batch},
            "sampling": {"images": images},
            "scoring": {"objectives": objectives},
        }
        settings = configured(TransferConfig, file.model_dump(mode="json"), changes, TRANSFER_OPTIONS)
        refuse_without_dry_run(dry_run, tflops)
        if dry_run:
            from memcontrol.planning import plan_transfer

            count = worker_count(workers)
            print_plan(lambda: plan_transfer(settings, out, workers=count, tflops=tflops), as_json=as_json)
            return
        _run_transfer(settings, out, worker_count(workers), as_json=as_json)


def _run_transfer(settings: TransferConfig, out: Path | None, workers: int | None, *, as_json: bool) -> None:
    check_source(settings.data.source)
    from memcontrol.report.transfer import write_transfer
    from memcontrol.report.transfer_table import transfer_tables
    from memcontrol.transferring.results import TransferFolder
    from memcontrol.transferring.transfer import transfer as run
    from memcontrol.transferring.transfer import transfer_folder

    folder = TransferFolder(out or transfer_folder(settings))
    print_tables(
        folder,
        lambda listener: run(settings, folder.path, workers=workers, listener=listener).document,
        write=lambda: write_transfer(folder),
        tables=lambda document, console: transfer_tables(document, ascii_only=console.options.ascii_only),
        as_json=as_json,
    )
