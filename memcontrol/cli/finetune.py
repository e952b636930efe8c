"""`memcontrol finetune`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from memcontrol.cli.options import (
    DATA_NAMES,
    DATA_SOURCES,
    Batch,
    ConfigFile,
    Seed,
    Weights,
    chosen_mitigations,
    configured,
    exit_codes,
    first_process,
    option,
)
from memcontrol.cli.planning import DryRun, PlanJson, Tflops, print_plan, refuse_without_dry_run
from memcontrol.cli.reading import Reading, with_reading_options
from memcontrol.data import check_source
from memcontrol.errors import MemControlError

if TYPE_CHECKING:
    from memcontrol.finetuning import Step
    from memcontrol.monitoring import Look
    from memcontrol.releasing import FinetuneConfig

FINETUNE_OPTIONS = {
    "data.source": "--data",
    "mitigations": "--mitigation",
    "scoring.encoder_weights": "--weights",
    "tuning.gradient_checkpointing": "--gradient-checkpointing",
    "tuning.min_snr_gamma": "--min-snr",
    "monitor.every": "--monitor-every",
    "monitor.images": "--monitor-images",
    "monitor.measures": "--monitor-scores",
    "monitor.stop_above_null": "--stop-above-null",
}
RESUMES = "checkpoints are kept, the same command goes on"


@with_reading_options
def finetune(
    mask: Annotated[Path, typer.Option(help="A mask's JSON file.")],
    out: Annotated[Path, typer.Option(help="Folder for what is tuned; the same one resumes what was broken off.")],
    data: Annotated[
        str | None, option(DATA_SOURCES, "the mask's own, where that is a name", complete=DATA_NAMES)
    ] = None,
    model: Annotated[str | None, option("Pipeline to tune.", "the mask's own")] = None,
    learning_rate: Annotated[float | None, option("Peak rate.", "the mask's own")] = None,
    schedule: Annotated[str | None, option("cosine or constant, after the rate's rise.", "the mask's own")] = None,
    steps: Annotated[int | None, option("Optimizer steps.", "the mask's own")] = None,
    batch: Batch = None,
    accumulation: Annotated[
        int | None, option("Micro-batches that each process divides its share of a batch into.", "1")
    ] = None,
    mixed_precision: Annotated[str | None, option("no, fp16 or bf16.", "the mask's own")] = None,
    gradient_checkpointing: Annotated[
        bool | None, option("Compute activations again instead of keeping them.", "no")
    ] = None,
    min_snr: Annotated[float | None, option("Gamma of min-SNR loss weights, such as 5.", "none")] = None,
    mitigation: Annotated[
        list[str] | None,
        option("NAME or NAME:STRENGTH=VALUE,...; may be repeated; none for none.", "the mask's own"),
    ] = None,
    monitor_every: Annotated[int | None, option("Look at images and scores after every so many steps.")] = None,
    monitor_images: Annotated[int | None, option("Images of a look.", "64")] = None,
    monitor_scores: Annotated[str | None, option("Scores of a look, or a preset.", "the default objectives")] = None,
    stop_copy_gap: Annotated[
        float | None, option("Stop once the whole interval of copy_gap is above this at looks in a row.")
    ] = None,
    stop_above_null: Annotated[
        bool | None, option("Stop once copy_gap is above its null band at looks in a row.", "no")
    ] = None,
    patience: Annotated[int | None, option("So many looks in a row.", "2")] = None,
    weights: Weights = None,
    checkpoint_every: Annotated[
        int | None, option("Steps between checkpoints; 0 for none.", "a tenth of 100 steps or more")
    ] = None,
    tracker: Annotated[str | None, option("tensorboard or wandb, besides losses.csv.", "none")] = None,
    save: Annotated[str | None, option("pipeline, tuned (the tuned tensors alone), or both.", "both")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Train anew where --out holds a training.")] = False,
    seed: Seed = None,
    config: ConfigFile = None,
    dry_run: DryRun = False,
    tflops: Tflops = None,
    as_json: PlanJson = False,
    *,
    reading: Reading,
) -> None:
    """Fine-tune a mask's parameters and save a pipeline that stock diffusers loads.

    The folder training in --out is not to be published: it has pictures of training images, and local paths.

    Example: memcontrol finetune --mask masks/brain-stage-kinds-017.json --steps 1000 --out tuned

    In several processes, with or without GPUs: accelerate launch --multi_gpu --num_processes 2 -m memcontrol.cli
    finetune ...
    """
    with exit_codes(interrupted=RESUMES):
        if learning_rate is not None and not 0 < learning_rate < math.inf:
            raise MemControlError(f"--learning-rate {learning_rate:g}: expected a rate above 0, such as 1e-3")
        changes: dict[str, dict[str, Any]] = {
            "": {
                "model": model,
                "learning_rate": learning_rate,
                "mitigations": chosen_mitigations(mitigation),
                "checkpoint_every": checkpoint_every,
                "tracker": tracker,
                "save": save,
                "seed": seed,
            },
            "data": {
                "source": data,
                **reading,
            },
            "tuning": {
                "steps": steps,
                "batch": batch,
                "schedule": schedule,
                "accumulation": accumulation,
                "mixed_precision": mixed_precision,
                "gradient_checkpointing": gradient_checkpointing,
                "min_snr_gamma": min_snr,
            },
            "monitor": {
                "every": monitor_every,
                "images": monitor_images,
                "measures": monitor_scores,
                "stop_copy_gap": stop_copy_gap,
                "stop_above_null": stop_above_null,
                "patience": patience,
            },
            "scoring": {"encoder_weights": weights},
        }
        if data is not None and not dry_run:
            check_source(data)  # a typing error is told before torch is loaded
        settings = _settings(config, changes)
        refuse_without_dry_run(dry_run, tflops, as_json)
        if dry_run:
            from memcontrol.mask import Mask
            from memcontrol.planning import plan_finetune

            found = Mask.from_pretrained(mask)
            print_plan(lambda: plan_finetune(found, settings, out, tflops=tflops), as_json=as_json)
            return
        _run_finetune(mask, settings, out, overwrite=overwrite)


def _settings(file: Path | None, changes: dict[str, dict[str, Any]]) -> FinetuneConfig:
    """What the file says, changed by options; what neither says is left to the mask."""
    from memcontrol.comparison.config import read_settings
    from memcontrol.releasing.config import FinetuneConfig

    content = read_settings(file, FinetuneConfig).model_dump(mode="json", exclude_unset=True) if file else {}
    return configured(FinetuneConfig, content, changes, FINETUNE_OPTIONS)


def _run_finetune(mask_file: Path, settings: FinetuneConfig, out: Path, *, overwrite: bool) -> None:
    from memcontrol.mask import Mask
    from memcontrol.releasing import ReleaseFolder, Told, release
    from memcontrol.report.monitor_picture import monitor_picture
    from memcontrol.report.steps import step_progress
    from memcontrol.report.wording import number_text

    mask = Mask.from_pretrained(mask_file)
    main = first_process()
    console, done, looked, records = Console(quiet=not main), list[int](), list[bool](), ReleaseFolder(out).records

    def on_note(text: str) -> None:
        console.print(text, highlight=False, markup=False)

    def on_look(look: Look) -> None:
        found = ", ".join(f"{name} {number_text(score.value)}" for name, score in look.scores.items())
        looked.append(True)
        on_note(f"look at step {look.step:,}: {found}")

    tuning = settings.resolved(mask).tuning
    with step_progress(console, tuning.stop or tuning.steps) as show:

        def on_step(step: Step) -> None:
            done.append(step.number)
            show(step)

        try:
            release(mask, settings, out, overwrite=overwrite, told=Told(on_note, on_step, on_look))
            looked.append(settings.monitor.every is not None)
        finally:
            if main and any(looked):
                monitor_picture(records)
    steps = f", {max(done):,} steps" if done else ""
    console.print(f"saved {out}: {mask.trainable.numel:,} tuned parameters{steps}", highlight=False)
    pictures = "training images beside samples, and " if any(looked) else ""
    on_note(f"{records} holds {pictures}paths of this machine: it does not belong in a publication")
