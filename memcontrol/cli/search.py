"""`memcontrol search`."""

from __future__ import annotations

import json
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from memcontrol.cli.options import (
    AsJson,
    Batch,
    Budget,
    ConfigFile,
    Confirm,
    ConfirmMeasures,
    ConfirmTrainings,
    Data,
    Images,
    Mitigations,
    Model,
    Objectives,
    Out,
    Rates,
    Rungs,
    Sampler,
    Seed,
    Space,
    Steps,
    Weights,
    Workers,
    chosen_mitigations,
    exit_codes,
    overridden,
    worker_count,
)
from memcontrol.cli.planning import DryRun, Tflops, print_plan, refuse_without_dry_run
from memcontrol.cli.reading import Reading, with_reading_options
from memcontrol.cli.sharing import Sharing, cluster_of, execution_of, with_sharing_options
from memcontrol.config import RunConfig, load_config
from memcontrol.data import check_source

if TYPE_CHECKING:
    from memcontrol.study.cluster import Cluster
    from memcontrol.study.execution import Execution


@with_sharing_options
@with_reading_options
def search(
    data: Data = None,
    model: Model = None,
    space: Space = None,
    budget: Budget = None,
    learning_rate: Rates = None,
    objectives: Objectives = None,
    weights: Weights = None,
    mitigation: Mitigations = None,
    steps: Steps = None,
    batch: Batch = None,
    images: Images = None,
    sampler: Sampler = None,
    rungs: Rungs = None,
    seed: Seed = None,
    confirm: Confirm = None,
    confirm_trainings: ConfirmTrainings = None,
    confirm_measures: ConfirmMeasures = None,
    workers: Workers = "auto",
    out: Out = None,
    config: ConfigFile = None,
    dry_run: DryRun = False,
    tflops: Tflops = None,
    as_json: AsJson = False,
    *,
    reading: Reading,
    sharing: Sharing,
) -> None:
    """Search for masks: fine-tune many for a short time, score them, and train the Pareto front again to confirm it.

    Example: memcontrol search --data faces --budget 50 --out runs/faces
    """
    with exit_codes("what was finished is kept, the same command goes on"):
        settings = overridden(
            RunConfig() if config is None else load_config(config),
            {
                "": {
                    "model": model,
                    "space": space,
                    "seed": seed,
                    "learning_rate": learning_rate,
                    "mitigations": chosen_mitigations(mitigation),
                },
                "data": {
                    "source": data,
                    **reading,
                },
                "tuning": {"steps": steps, "batch": batch},
                "sampling": {"images": images},
                "scoring": {"objectives": objectives, "encoder_weights": weights or None},
                "search": {"budget": budget, "sampler": sampler, "rungs": rungs},
                "confirm": {"seeds": confirm, "trainings": confirm_trainings, "measures": confirm_measures},
            },
        )
        refuse_without_dry_run(dry_run, tflops)
        if dry_run:
            from memcontrol.planning import plan_search

            count = worker_count(workers)
            print_plan(lambda: plan_search(settings, out, workers=count, tflops=tflops), as_json=as_json)
            return
        execution, cluster = execution_of(sharing), cluster_of(sharing)
        _run_search(settings, out, worker_count(workers), as_json=as_json, execution=execution, cluster=cluster)


def _run_search(
    settings: RunConfig,
    out: Path | None,
    workers: int | None,
    *,
    as_json: bool,
    execution: Execution,
    cluster: Cluster | None,
) -> None:
    check_source(settings.data.source)  # a typing error is told before torch is loaded
    from memcontrol.cli.confirm import confirmation_lines, print_confirmed, run_confirm
    from memcontrol.report import write_report
    from memcontrol.report.closing import closing_json, closing_sentences, closing_table
    from memcontrol.report.live import JsonLines, LiveView
    from memcontrol.run import RunFolder
    from memcontrol.score import check_scoring
    from memcontrol.study.search import default_folder, search

    check_scoring(settings.confirm.measures or (), settings.scoring)
    console, folder = Console(), RunFolder(out or default_folder(settings, execution))
    searching = partial(search, settings, folder.path, workers=workers, execution=execution, cluster=cluster)
    try:
        if as_json:
            result = searching(listener=JsonLines(sys.stdout))
        else:
            with LiveView(settings, folder, console, confirms=not execution.shared) as view:
                result = searching(listener=view)
    except KeyboardInterrupt:
        if folder.front.exists():
            write_report(folder)
        raise
    write_report(folder)
    if not as_json:
        console.print(closing_table(result.front, folder, ascii_only=console.options.ascii_only))
        for sentence in closing_sentences(result.front, folder):
            console.print(sentence, highlight=False)
        if result.exhausted:
            console.print("The space is exhausted: every candidate in it has been tried.")
    confirms = settings.confirm.seeds and any(member["learning_rate"] for member in result.front["front"])
    if confirms and not execution.shared:
        listener = JsonLines(sys.stdout) if as_json else confirmation_lines(folder, console)
        run_confirm(folder, workers=workers, listener=listener)
    if as_json:
        sys.stdout.write(json.dumps({"event": "result"} | closing_json(folder.read_front(), folder)) + "\n")
        return
    if confirms and execution.shared:
        text = f"Other hosts end here too, so that none confirms: on one of them, memcontrol confirm {folder.path}"
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    print_confirmed(folder, console)
    named = shlex.quote(str(folder.path))
    text = f"Written to {folder.path}\nA page of it: memcontrol report {named}; a mask of it: memcontrol export {named}"
    console.print(text, markup=False, highlight=False, soft_wrap=True)
