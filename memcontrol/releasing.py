"""A mask tuned at full length on some data, and the tuned pipeline saved for stock diffusers."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from memcontrol.cache import Cache, default_cache_folder
from memcontrol.config import DataConfig, TuningConfig
from memcontrol.data import load_dataset
from memcontrol.data.identity import dataset_fingerprint
from memcontrol.data.images import Dataset
from memcontrol.errors import MaskError, RunError
from memcontrol.finetuning import Step, finetune_pipeline, training_batches
from memcontrol.mask import FILE_NAME, Mask
from memcontrol.methods import Resources, Tuning, tuned
from memcontrol.pipeline import load_pipeline


def finetune(
    mask: Mask,
    data: DataConfig,
    out: Path,
    *,
    model: str | None = None,
    tuning: TuningConfig | None = None,
    learning_rate: float | None = None,
    seed: int = 0,
    on_note: Callable[[str], object] = bool,
    on_step: Callable[[Step], object] = bool,
) -> Path:
    """Tune a mask's parameters and save the whole pipeline, with the mask beside it, in `out`.

    What LoRA tuned is in the pipeline already, and once more alone in the folder `lora`, to be put on the base model.

    Args:
        model: pipeline to tune; the mask's own unless given.
        tuning: what the mask was scored under, unless given.
        learning_rate: the mask's own unless given.
        on_note: told what was loaded.

    Raises:
        MaskError: the mask trains nothing, or does not fit the model.
        RunError: `out` exists and is not empty, or cannot be written.
    """
    if mask.learning_rate is None:
        raise MaskError(f"mask {mask.name} trains nothing: pick one with a group that is on")
    rate = learning_rate or mask.learning_rate
    _check_out(out)
    settings = tuning or mask_tuning(mask)
    accelerator = Accelerator(mixed_precision=settings.mixed_precision)
    frozen = load_pipeline(model or mask.model.id, cache=Cache(default_cache_folder()), device=str(accelerator.device))
    mask.check(frozen.unet)
    dataset = load_dataset(data, resolution=frozen.resolution, seed=seed if data.seed is None else data.seed)
    for note in (*dataset.notes, *frozen.notes(dataset.training.captions), *_data_note(mask, dataset)):
        on_note(note)
    batches = training_batches(frozen, dataset, settings, seed=seed)
    _make(out)
    with tuned(frozen.unet, mask.trained, Resources(frozen.cache, seed)) as tuning_:
        last: Step | None = None
        for step in finetune_pipeline(
            frozen, tuning_.parameters, batches, learning_rate=rate, config=settings, accelerator=accelerator
        ):
            last = step
            on_step(step)
        if last is not None and accelerator.is_main_process:
            with last.averaged():
                _save(frozen.pipeline, tuning_, mask, out)
        accelerator.wait_for_everyone()
    return out


def mask_tuning(mask: Mask) -> TuningConfig:
    """The inner loop's settings that a mask was scored under; defaults where it does not say."""
    known = mask.provenance.get("settings", {}).get("tuning", {})
    return TuningConfig.model_validate({"steps": mask.provenance.get("steps", TuningConfig().steps)} | known)


def _check_out(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"{out} exists and is not an empty folder: name another with --out")


def _make(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot write to {out}: {error.strerror}; name another folder with --out") from error


def _data_note(mask: Mask, dataset: Dataset) -> list[str]:
    """A caution where the mask was found on other images."""
    found = mask.provenance.get("data", {})
    if not found or found.get("sha256") == dataset_fingerprint(dataset):
        return []
    return [f"mask {mask.name} was found on other images ({found.get('name')}): its scores do not hold for these"]


def _save(pipeline: Any, tuning: Tuning, mask: Mask, out: Path) -> None:
    """Save beside `out`, then move: an interrupted save leaves no half-written pipeline there."""
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        saved = Path(folder) / "pipeline"
        with tuning.folded():
            pipeline.save_pretrained(saved, safe_serialization=True)
        tuning.save(saved)
        mask.save(saved / FILE_NAME)
        out.rmdir()
        saved.rename(out)
