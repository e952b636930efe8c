"""A mask tuned at full length on some data, and what came of it saved for stock diffusers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Literal

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs

from memcontrol.cache import Cache, default_cache_folder
from memcontrol.config import DataConfig, TuningConfig, flattened
from memcontrol.data import load_dataset
from memcontrol.data.identity import dataset_fingerprint
from memcontrol.data.images import Dataset
from memcontrol.errors import MaskError
from memcontrol.finetuning import Step, check_division, training_batches
from memcontrol.finetuning.checkpoints import Checkpoint
from memcontrol.fingerprint import fingerprint
from memcontrol.mask import Mask
from memcontrol.mask_records import ModelIdentity
from memcontrol.methods import Resources, Tuning, tuned
from memcontrol.mitigations.plan import MitigationPlan
from memcontrol.monitoring import Monitor
from memcontrol.monitoring.config import MonitorConfig
from memcontrol.pipeline import FrozenPipeline, load_pipeline
from memcontrol.releasing.config import FinetuneConfig, all_given
from memcontrol.releasing.curve import check_tracker, tracking
from memcontrol.releasing.folder import ReleaseFolder
from memcontrol.releasing.notes import data_note, mitigation_notes
from memcontrol.releasing.saving import save as save_outcome
from memcontrol.releasing.session import Session, Told, checked_processes
from memcontrol.tracing import Traces

PATIENCE = timedelta(hours=6)
"""How long processes wait for the first one, which alone looks and saves."""


def finetune(
    mask: Mask,
    data: DataConfig,
    out: Path,
    *,
    model: str | None = None,
    tuning: TuningConfig | None = None,
    learning_rate: float | None = None,
    mitigations: Sequence[str] | None = None,
    monitor: MonitorConfig | None = None,
    checkpoint_every: int | None = None,
    save: Literal["pipeline", "tuned", "both"] = "both",
    seed: int = 0,
    overwrite: bool = False,
    on_note: Callable[[str], object] = bool,
    on_step: Callable[[Step], object] = bool,
) -> Path:
    """Tune a mask's parameters and save what came of it, with the mask beside it, in `out`: `release` in few words.

    Args:
        model: pipeline to tune; the mask's own unless given.
        tuning: what the mask was scored under, unless given.
        learning_rate: the mask's own unless given.
        mitigations: each as `load_mitigation` reads it; those that the mask was found under unless given.
        monitor, checkpoint_every, save: as in `FinetuneConfig`.
        overwrite: train anew where `out` holds a training of this program.
        on_note: told what was loaded, and which mitigations the training has.

    Raises:
        MemControlError: as `release`.
    """
    config = FinetuneConfig(
        data=data.model_copy(update={"source": data.source}),  # said by the caller, so not left to the mask
        model=model,
        tuning=FinetuneConfig().tuning if tuning is None else all_given(tuning),
        learning_rate=learning_rate,
        mitigations=None if mitigations is None else tuple(mitigations),
        monitor=monitor or MonitorConfig(),
        checkpoint_every=checkpoint_every,
        save=save,
        seed=seed,
    )
    return release(mask, config, out, overwrite=overwrite, told=Told(on_note, on_step))


def release(
    mask: Mask, config: FinetuneConfig, out: Path, *, overwrite: bool = False, told: Told | None = None
) -> Path:
    """Tune a mask's parameters and save what came of it, with the mask and a model card beside it, in `out`.

    Where `out` holds an unfinished training with the same settings, that goes on from its last checkpoint, to the same
    tensors, bit for bit on a CPU, as if it had never been broken off. What LoRA tuned is in the pipeline already, and
    once more alone in the folder `lora`, to be put on the base model. The folder `training` holds what is not to be
    published: the losses, the monitor's pictures, which show training images, and the mask and the settings with the
    paths in them. The mask beside the pipeline names no path.

    Where a look ends the training, the tensors of the last look at which no rule for stopping applied are saved.

    Under `accelerate launch` the processes share every batch, and the first one alone looks, writes and tells.

    Args:
        overwrite: train anew where `out` holds a training of this program.

    Raises:
        MaskError: the mask trains nothing, or does not fit the model.
        MemControlError: a mitigation that does not exist, or does not suit the model or the data.
        RunError: `out` holds something else, a finished training, or one with other settings, or cannot be written to;
            what this program did not write is never removed, with `overwrite` neither.
        DivergedError: the loss became NaN or infinite.
    """
    if mask.learning_rate is None:
        raise MaskError(f"mask {mask.name} trains nothing: pick one with a group that is on")
    config, folder = config.resolved(mask), ReleaseFolder(out)
    plan = MitigationPlan.of(config.mitigations or ())
    folder.check(overwrite=overwrite)
    check_tracker(config.tracker)
    accelerator = _accelerator(config, folder)
    told = (told or Told()).here(accelerator)
    config = checked_processes(config, plan, accelerator)
    plan.check_training(config.tuning, accelerator)
    if not plan.in_shards:  # of which each process has its own
        check_division(config.tuning, accelerator)
    with accelerator.main_process_first():  # what it encodes, the others read from the cache
        session, base = _session(mask, config, plan, folder, accelerator=accelerator, told=told)
    with _started(session, mask, overwrite) as saved, _tuned(session, mask) as tuning:
        outcome = session.run(tuning, config.learning_rate or mask.learning_rate, saved)
        if outcome is not None and accelerator.is_main_process:
            save_outcome(session, tuning, mask, base, outcome)
        accelerator.wait_for_everyone()
    return out


def _accelerator(config: FinetuneConfig, folder: ReleaseFolder) -> Accelerator:
    """The device and the processes; several processes without a GPU are found by accelerate only where it is told."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return Accelerator(
        cpu=several and not torch.accelerator.is_available(),
        mixed_precision=config.tuning.mixed_precision,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
        **tracking(folder.records, config.tracker),
    )


def _session(
    mask: Mask,
    config: FinetuneConfig,
    plan: MitigationPlan,
    folder: ReleaseFolder,
    *,
    accelerator: Accelerator,
    told: Told,
) -> tuple[Session, ModelIdentity]:
    """All that a training needs, with everything refused that cannot be; and the base model's identity."""
    model, seed = config.model or mask.model.id, config.seed
    frozen = load_pipeline(model, cache=Cache(default_cache_folder()), device=str(accelerator.device))
    mask.check(frozen.unet)
    dataset = load_dataset(
        config.data, resolution=frozen.resolution, seed=seed if config.data.seed is None else config.data.seed
    )
    chosen = config.mitigations or ()
    notes = (*dataset.notes, *frozen.notes(dataset.training.captions))
    for note in (*notes, *mitigation_notes(mask, chosen), *data_note(mask, dataset)):
        told.note(note)
    plan.check(frozen, dataset)
    kept = plan.dataset(dataset)
    base = ModelIdentity.of(frozen.unet, model)
    session = Session(
        config=config,
        plan=plan,
        frozen=frozen,
        dataset=dataset,
        kept=kept,
        batches=training_batches(frozen, kept, config.tuning, seed=seed),
        accelerator=accelerator,
        folder=folder,
        identity=_identity(mask, config, base, dataset, accelerator),
        told=told,
        monitor=_monitor(config, frozen, dataset, folder) if accelerator.is_main_process else None,
    )
    return session, base


def _identity(
    mask: Mask, config: FinetuneConfig, base: ModelIdentity, dataset: Dataset, accelerator: Accelerator
) -> Mapping[str, str]:
    return flattened(config.decisive) | {
        "mask": mask.name,
        "mask content": fingerprint(mask.to_json()),
        "architecture": base.architecture,
        "weights": base.weights,
        "data content": dataset_fingerprint(dataset),
        "processes": str(accelerator.num_processes),
        "device": accelerator.device.type,
    }


def _monitor(config: FinetuneConfig, frozen: FrozenPipeline, dataset: Dataset, folder: ReleaseFolder) -> Monitor | None:
    if config.monitor.every is None:
        return None
    return Monitor(
        frozen,
        dataset,
        folder=folder.records,
        config=config.monitor,
        sampling=config.sampling,
        scoring=config.scoring,
        seed=config.seed,
    )


@contextmanager
def _started(session: Session, mask: Mask, overwrite: bool) -> Iterator[Checkpoint | None]:
    """Inside, the folder is this training's; yields where it goes on from. Checkpoints go once it is finished."""
    folder, accelerator = session.folder, session.accelerator
    anew = overwrite and folder.path.exists()
    saved = None if anew else session.checkpoints.latest(session.told.note)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        folder.make(session.config.to_yaml(), mask, anew=anew)
    accelerator.wait_for_everyone()
    yield saved
    if accelerator.is_main_process and folder.finished:
        session.checkpoints.clear()
    accelerator.end_training()


@contextmanager
def _tuned(session: Session, mask: Mask) -> Iterator[Tuning]:
    """Inside, the mask trains; one process replays the U-Net as trials do, to the same bits."""
    unet, resources = session.frozen.unet, Resources(session.frozen.cache, session.config.seed)
    traces = Traces(unet)
    with tuned(unet, mask.trained, resources) as tuning:
        alone = session.accelerator.num_processes == 1
        with traces.replayed(tuning.tensors) if alone else nullcontext():
            yield tuning
