"""What an audit examines: generated images beside every real image they are compared with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from memcontrol.auditing.config import AuditConfig
from memcontrol.auditing.folder import examined_images, folder_resolution
from memcontrol.cache import Cache
from memcontrol.data.audited import load_audited
from memcontrol.data.duplicates import overlap
from memcontrol.data.identity import dataset_fingerprint, images_fingerprint
from memcontrol.data.images import Dataset, ImageSet, Pixels
from memcontrol.data.notes import counted
from memcontrol.errors import MemControlError
from memcontrol.fingerprint import fingerprint
from memcontrol.mask import FILE_NAME, Mask
from memcontrol.mask_records import ModelIdentity
from memcontrol.pipeline import FrozenPipeline, load_pipeline
from memcontrol.sampling import drawn_prompts, sample
from memcontrol.score import RealImages, raw_images, real_images

OnStep = Callable[[str, int, int], object]
"""Called with a phase, the step done, and the number of steps."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is examined.

    Attributes:
        kind: `model` or `images`.
        generated: `(N, H, W, 3)`.
        prompts: what each was generated from, or its caption; empty where nothing is known.
        keys: a name for each generated image.
        real: as the model's autoencoder gives them back, and raw; without a model both are as they are.
        control: `(C, H, W, 3)` held-out images that nothing else uses, as the autoencoder gives them back.
        frozen: the pipeline; None for a folder of images.
        about: for the document.
        notes: sentences for the user.
        takes_text: whether the model is told captions, be they empty.
    """

    kind: str
    generated: Pixels
    prompts: tuple[str, ...]
    keys: tuple[str, ...]
    dataset: Dataset
    real: RealImages
    control: Pixels
    frozen: FrozenPipeline | None
    about: dict[str, Any]
    notes: tuple[str, ...]
    takes_text: bool = False

    @property
    def has_text(self) -> bool:
        """Whether captions had a part in the generated images."""
        return any(self.prompts)


@dataclass(frozen=True)
class Loaded:
    """A subject before its images are generated or read.

    Attributes:
        images: what is examined where there is no model.
        about: for the document; `fingerprint` is of the model's weights, or of the images.
        device: where networks run.
    """

    config: AuditConfig
    dataset: Dataset
    frozen: FrozenPipeline | None
    images: ImageSet | None
    about: dict[str, Any]
    notes: tuple[str, ...]
    device: str

    def identity(self) -> dict[str, str]:
        """What must be the same for the folder of an audit to be gone on with, besides the settings."""
        return {"what is audited": self.about["fingerprint"], "data content": dataset_fingerprint(self.dataset)}


def load_subject(config: AuditConfig, *, cache: Cache, device: str) -> Loaded:
    """The model or folder, and the data.

    Raises:
        ModelError: a model that cannot be found or loaded.
        DataError: images that cannot be read, are too few, or are both trained on and held out.
    """
    if config.model is None:
        return _loaded_folder(config, device)
    frozen = load_pipeline(config.model, cache=cache, device=device)
    dataset = load_audited(config.train, config.holdout, resolution=frozen.resolution, seed=config.draw_seed)
    identity = ModelIdentity.of(frozen.unet, config.model)
    schedule = {name: str(value) for name, value in frozen.scheduler_config.items()}
    about = {
        "kind": "model",
        "name": config.model,
        "fingerprint": fingerprint(identity.weights, frozen.identity, schedule),
        "class": type(frozen.pipeline).__name__,
        "resolution": frozen.resolution,
        "sampling": {
            **config.sampling.model_dump(exclude={"batch"}),
            "scheduler": "DPM-Solver++",
            "prompts": "training captions, drawn with replacement",
        },
    }
    notes = (*dataset.notes, *frozen.notes(dataset.training.captions, config.sampling.guidance))
    return Loaded(config, dataset, frozen, None, about, (*notes, *_mask_notes(config, dataset)), device)


def _loaded_folder(config: AuditConfig, device: str) -> Loaded:
    folder = Path(str(config.images)).expanduser()
    resolution = config.resolution or folder_resolution(folder)
    images, said = examined_images(folder, config.train, resolution)
    dataset = load_audited(config.train, config.holdout, resolution=resolution, seed=config.draw_seed)
    about = {
        "kind": "images",
        "name": str(config.images),
        "fingerprint": images_fingerprint(images),
        "images": len(images),
        "resolution": resolution,
    }
    return Loaded(config, dataset, None, images, about, (*said, *dataset.notes), device)


def examined(loaded: Loaded, *, kept: Cache, on_step: OnStep) -> Subject:
    """Generate or read the images, and pass the real ones through the model's autoencoder.

    Args:
        kept: where generated images stay, so that an interrupted audit does not make them again.

    Raises:
        MemControlError: nothing was loaded.
    """
    if loaded.images is not None:
        return _examined_folder(loaded, loaded.images)
    if loaded.frozen is None:
        raise MemControlError("neither a model nor images were loaded: load one of them with load_subject")
    frozen, dataset, config = loaded.frozen, loaded.dataset, loaded.config
    prompts = drawn_prompts(dataset.training.captions, config.sampling.images, config.seed)

    def generate() -> Pixels:
        made: list[Pixels] = []
        for batch in sample(frozen, prompts, config.sampling, seed=config.seed):
            made.append(batch)
            on_step("sample", sum(map(len, made)), len(prompts))
        return np.concatenate(made)

    key = fingerprint(loaded.about["fingerprint"], prompts, config.sampling, config.seed)
    generated: Pixels = np.asarray(kept.computed("generated", key, generate))
    on_step("encode", 0, 1)
    takes_text = frozen.text_embeddings(dataset.training.captions[:1]) is not None
    return Subject(
        kind="model",
        generated=generated,
        prompts=tuple(prompts) if takes_text else (),
        keys=tuple(f"generated-{i:04d}" for i in range(len(prompts))),
        dataset=dataset,
        real=real_images(frozen, dataset),
        control=frozen.reconstruct(dataset.heldout.confirmation),
        frozen=frozen,
        about=loaded.about,
        notes=loaded.notes,
        takes_text=takes_text,
    )


def _examined_folder(loaded: Loaded, images: ImageSet) -> Subject:
    dataset = loaded.dataset
    pairs = overlap(dataset.training, images)
    exact = f"{counted(len(pairs), 'image is', 'images are')} a training image pixel for pixel"
    notes = (f"{exact}: {_listed(f'{key} = {training}' for training, key in pairs)}",) if pairs else ()
    return Subject(
        kind="images",
        generated=images.pixels(),
        prompts=images.captions if any(images.captions) else (),
        keys=images.keys,
        dataset=dataset,
        real=raw_images(dataset),
        control=dataset.heldout.confirmation.pixels(),
        frozen=None,
        about=loaded.about,
        notes=(*loaded.notes, *notes),
    )


def _listed(texts: Iterable[str], most: int = 5) -> str:
    shown = list(texts)
    return ", ".join(shown[:most]) + (f" and {len(shown) - most:,} more" if len(shown) > most else "")


def _mask_notes(config: AuditConfig, dataset: Dataset) -> tuple[str, ...]:
    """A caution where the mask saved beside the model was found on other images than these."""
    folder = Path(str(config.model))
    if config.holdout is not None or not (folder / FILE_NAME).is_file():
        return ()
    try:
        found = Mask.from_pretrained(folder / FILE_NAME).provenance.get("data", {})
    except MemControlError as error:
        return (f"{folder / FILE_NAME} says nothing of the training images: {error}",)
    if not found or found.get("sha256") == dataset_fingerprint(dataset):
        return ()
    return (
        f"the mask in {folder} was found on other images ({found.get('name')}, {found.get('n')} of them) than "
        f"{dataset.name} with these options: check that --train, --train-size and --seed give the images that this "
        "model was tuned on, or the audit looks for the wrong ones",
    )
