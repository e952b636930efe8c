"""`memcontrol compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from memcontrol.cli.options import (
    AsJson,
    Batch,
    ConfigFile,
    Data,
    Images,
    Model,
    Objectives,
    Steps,
    Workers,
    configured,
    exit_codes,
    option,
    worker_count,
)
from memcontrol.cli.planning import DryRun, Tflops, print_plan, refuse_without_dry_run
from memcontrol.cli.reading import Reading, with_reading_options
from memcontrol.cli.tables import print_tables
from memcontrol.data import check_source

if TYPE_CHECKING:
    from memcontrol.comparison.config import ComparisonConfig

COMPARE_OPTIONS = {"data.source": "--data", "rates": "--rate", "grids.0.methods": "--methods"}
LISTS = "Several with commas, or the option again."


@with_reading_options
def compare(
    data: Data = None,
    model: Model = None,
    methods: Annotated[
        list[str] | None,
        option(
            f"freeze, full, attention, bias, norm, bitfit, difffit, svdiff, lora. {LISTS}",
            "freeze,full,difffit,attention,svdiff",
        ),
    ] = None,
    masks: Annotated[list[str] | None, option("A mask's JSON file; may be repeated.")] = None,
    mitigations: Annotated[
        list[str] | None, option(f"none, NAME or NAME:strength=value,..., joined by +. {LISTS}", "none")
    ] = None,
    seeds: Annotated[
        list[str] | None, option(f"5,6,7 or 5-12; each draws its own training set. {LISTS}", "5-7")
    ] = None,
    rate: Annotated[list[str] | None, option("METHOD=RATE; may be repeated.", "of each method")] = None,
    steps: Steps = None,
    batch: Batch = None,
    images: Images = None,
    objectives: Objectives = None,
    columns: Annotated[str | None, option("Scores that the tables show.", "all")] = None,
    workers: Workers = "auto",
    out: Annotated[
        Path | None,
        option("Folder; the same one resumes, and takes more rows and seeds.", "runs/comparison-DATA-MODEL"),
    ] = None,
    config: ConfigFile = None,
    dry_run: DryRun = False,
    tflops: Tflops = None,
    as_json: AsJson = False,
    *,
    reading: Reading,
) -> None:
    """Compare methods and masks under mitigations on fresh training sets, paired by seed: the papers' tables.

    Example: memcontrol compare --methods full,difffit --mitigations none,rwa --seeds 5-8 --out runs/table
    """
    with exit_codes("what was finished is kept, the same command goes on"):
        from memcontrol.comparison.config import ComparisonConfig, load_comparison

        grid = {"methods": methods, "masks": masks, "mitigations": mitigations}
        given = {key: value for key, value in grid.items() if value}
        file = ComparisonConfig() if config is None else load_comparison(config)
        changes: dict[str, dict[str, Any]] = {
            "": {
                "model": model,
                "grids": [_whole(given)] if given else None,
                "seeds": seeds or None,
                "rates": rate or None,
                "columns": columns,
            },
            "data": {
                "source": data,
                **reading,
            },
            "tuning": {"steps": steps, "batch": batch},
            "sampling": {"images": images},
            "scoring": {"objectives": objectives},
        }
        settings = configured(ComparisonConfig, file.model_dump(mode="json"), changes, COMPARE_OPTIONS)
        refuse_without_dry_run(dry_run, tflops)
        if dry_run:
            from memcontrol.planning import plan_comparison

            count = worker_count(workers)
            print_plan(lambda: plan_comparison(settings, out, workers=count, tflops=tflops), as_json=as_json)
            return
        _run_compare(settings, out, worker_count(workers), as_json=as_json)


def _whole(given: dict[str, list[str]]) -> dict[str, Any]:
    """A grid of the options that were given; the usual methods where neither methods nor masks were."""
    from memcontrol.comparison.config import ComparisonConfig

    usual = ComparisonConfig().grids[0].methods
    return given if "methods" in given or "masks" in given else {"methods": usual, **given}


def _run_compare(settings: ComparisonConfig, out: Path | None, workers: int | None, *, as_json: bool) -> None:
    check_source(settings.data.source)
    from memcontrol.comparison.comparing import compare as run
    from memcontrol.comparison.comparing import default_folder
    from memcontrol.comparison.results import ComparisonFolder
    from memcontrol.report.comparison import write_comparison
    from memcontrol.report.comparison_table import comparison_tables

    folder = ComparisonFolder(out or default_folder(settings))
    print_tables(
        folder,
        lambda listener: run(settings, folder.path, workers=workers, listener=listener).document,
        write=lambda: write_comparison(folder),
        tables=lambda document, console: comparison_tables(
            document, width=console.width, ascii_only=console.options.ascii_only
        ),
        as_json=as_json,
    )
