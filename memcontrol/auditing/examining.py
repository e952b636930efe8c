"""A whole audit: load, generate, measure with controls, attack, and write the document."""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from memcontrol.auditing.config import ALWAYS, AuditConfig
from memcontrol.auditing.document import AuditDocument, Duplicates, Measured, NotMeasured
from memcontrol.auditing.imaged import Found, image_findings
from memcontrol.auditing.keeping import AuditFolder, audit_digest
from memcontrol.auditing.modelled import ModelFound, model_findings
from memcontrol.auditing.nearest import Located, caption_facts, distance_histogram, nearest_triples
from memcontrol.auditing.plan import Plan, load_encoders, planned
from memcontrol.auditing.reading import reading_notes
from memcontrol.auditing.subject import Loaded, OnStep, Subject, examined, load_subject
from memcontrol.cache import Cache, default_cache_folder
from memcontrol.data.audited import one_after_another
from memcontrol.data.duplicates import duplicate_groups, overlap
from memcontrol.data.identity import images_fingerprint
from memcontrol.data.images import Dataset, ImageSet
from memcontrol.data.notes import counted
from memcontrol.encoders import Encoder
from memcontrol.errors import RunError
from memcontrol.score.features import encoded
from memcontrol.study.launching import sole_launch
from memcontrol.study.placement import take_device, worker_devices

VERSIONED = ("memcontrol", "torch", "diffusers", "numpy")
HISTOGRAM_STREAM = 403
"""Sets the histograms' random numbers apart from others of the same seed."""


def ignore_step(phase: str, done: int, total: int) -> None:
    """Listen to nothing."""


def audit(
    config: AuditConfig,
    out: Path,
    *,
    on_note: Callable[[str], object] = bool,
    on_step: OnStep = ignore_step,
    command: str | None = None,
) -> AuditDocument:
    """Examine a model, or a folder of images, for copies of its training images.

    Writes `audit.json` and the pictures it names to `out`, and `kept`, from which an interrupted audit goes on. With
    everything there already, the document is read and returned.

    Args:
        on_note: told what was loaded.
        on_step: told a phase, the step done and the number of steps.
        command: that repeats the audit, for the document.

    Raises:
        MemControlError: bad input, before anything is written; or a model that predicts NaN.
        RunError: `out` holds another audit, or another process is writing to it.
    """
    began = time.monotonic()
    _check_folder(out)
    device = worker_devices(1)[0]
    take_device(device)
    loaded = load_subject(config, cache=Cache(default_cache_folder()), device=device)
    for note in loaded.notes:
        on_note(note)
    folder, identity = AuditFolder(out), loaded.identity()
    versions = {name: importlib.metadata.version(name) for name in VERSIONED}
    digest = audit_digest(config, identity, versions)
    folder.files.prepare()
    with sole_launch(folder.files, "audit"):
        folder.claim(config, identity)
        known = folder.finished(digest)
        if known is not None:
            on_note(f"{folder.document} is finished already: nothing is measured again")
            return known
        loaded.about.update({"audit": digest} | ({} if command is None else {"command": command}))
        document = _examined(loaded, folder, versions=versions, began=began, on_note=on_note, on_step=on_step)
        folder.write(document)
        return document


def _check_folder(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise RunError(f"{out} is a file: name a folder with --out")


def _examined(
    loaded: Loaded,
    folder: AuditFolder,
    *,
    versions: dict[str, str],
    began: float,
    on_note: Callable[[str], object],
    on_step: OnStep,
) -> AuditDocument:
    config = loaded.config
    duplicates = found_duplicates(loaded.dataset)
    for note in duplicate_notes(duplicates):
        on_note(note)
    encoders = load_encoders(loaded.frozen, config.scoring, device=loaded.device)
    subject = examined(loaded, kept=folder.cache, on_step=on_step)
    for note in subject.notes[len(loaded.notes) :]:
        on_note(note)
    plan = planned(subject, config.scoring, encoders)
    cache = Cache(default_cache_folder())
    images = image_findings(subject, plan, config, cache=cache, on_step=on_step)
    model = model_findings(subject, plan, config, kept=folder.kept, on_step=on_step)
    located = {name: _located(subject, encoder) for name, encoder in _drawn(plan).items()}
    rng = np.random.default_rng([config.seed, HISTOGRAM_STREAM])
    return AuditDocument(
        subject=subject.about,
        data=described(subject.dataset),
        duplicates=duplicates,
        scores=_measured(images) | _measured(model.found),
        controls={**images.controls, **model.found.controls},
        not_measured=_not_measured(plan, images, model),
        encoders={name: _about(name, encoder, subject, config) for name, encoder in plan.encoders.items()},
        extracted={name: list(keys) for name, keys in model.extracted.items()},
        nearest=nearest_triples(located[ALWAYS], subject, folder.files),
        histograms=[distance_histogram(part, rng=rng) for part in located.values()],
        captions=caption_facts(located[ALWAYS], subject, model.magnitudes),
        notes=[*subject.notes, *duplicate_notes(duplicates), *reading_notes(subject)],
        seed=config.seed,
        seconds=round(time.monotonic() - began, 1),
        versions=versions,
    )


def found_duplicates(dataset: Dataset) -> Duplicates:
    """Identical images inside the training set, and between it and the held-out sets.

    Images of the training set's subjects in the held-out source count as held out.
    """
    held, same = dataset.heldout, dataset.same_subjects
    sets = [held.fidelity, held.copying, held.confirmation, *([] if same is None else [same])]
    keys, captions = ([item for images in sets for item in getattr(images, name)] for name in ("keys", "captions"))
    unseen = ImageSet(tuple(keys), tuple(captions), None, one_after_another(*sets))
    return Duplicates(
        training=[list(group) for group in duplicate_groups(dataset.training)],
        heldout=overlap(dataset.training, unseen),
    )


def duplicate_notes(duplicates: Duplicates) -> list[str]:
    """A sentence for each kind of duplicate that was found."""
    notes = []
    if duplicates.training:
        inside = counted(len(duplicates.training), "group")
        notes.append(f"{inside} of identical training images: models give duplicated images back first")
    if duplicates.heldout:
        pairs = counted(len(duplicates.heldout), "held-out image is", "held-out images are")
        notes.append(f"{pairs} identical with a training image: every measure looks less copied than it is")
    return notes


def described(dataset: Dataset) -> dict[str, Any]:
    """A data set for the document."""
    counts = dict(dataset.counts())
    return {
        "name": dataset.name,
        "resolution": dataset.resolution,
        "training": {"n": counts.pop("training"), "sha256": images_fingerprint(dataset.training)},
        "heldout": counts,
        "notes": list(dataset.notes),
    }


def _measured(found: Found) -> dict[str, Measured]:
    return {name: Measured(score=score.to_json(), flagged=found.flags[name]) for name, score in found.scores.items()}


def _not_measured(plan: Plan, images: Found, model: ModelFound) -> list[NotMeasured]:
    reasons = {**images.missing, **model.found.missing, **plan.missing}
    return [NotMeasured(name=name, reason=reason) for name, reason in reasons.items()]


def _drawn(plan: Plan) -> dict[str, Encoder]:
    """The encoders whose distances are drawn: pixels first, then the first of the deep ones."""
    deep = [name for name in plan.encoders if name not in (ALWAYS, "latents")][:1]
    return {name: plan.encoders[name] for name in (ALWAYS, *deep)}


def _located(subject: Subject, encoder: Encoder) -> Located:
    real = subject.real
    sets = (subject.generated, real.training, real.copying, subject.control)
    return Located(encoder.name, *(encoded(encoder, np.asarray(images)) for images in sets))


def _about(name: str, encoder: Encoder, subject: Subject, config: AuditConfig) -> dict[str, str]:
    """An encoder for the document: its class, where its weights come from, and the hash of what decides features."""
    own = "" if subject.frozen is None else subject.frozen.identity
    weights = config.scoring.encoder_weights.get(name, "the model's" if name == "latents" else "its own or none")
    return {"class": type(encoder).__name__, "weights": weights, "sha256": encoder.identity or own}
