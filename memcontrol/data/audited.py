"""The data of an audit: what a model was trained on, and what it never saw, in one source or in two."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from memcontrol.config import DataConfig
from memcontrol.data import SOURCES, load_dataset, source_pool
from memcontrol.data.duplicates import overlap
from memcontrol.data.images import Dataset, ImageSet, Indices, Pixels
from memcontrol.data.notes import content_notes, counted
from memcontrol.data.pool import Pool
from memcontrol.data.splitting import split_pool
from memcontrol.errors import DataError, listed


def load_audited(train: DataConfig, holdout: str | None, *, resolution: int, seed: int) -> Dataset:
    """Training and held-out images of an audit.

    Without `holdout` it is the data set that tuning with the same configuration and seed has. With it, all images of
    `train` are training images, whatever their source says of splits, and the images of `holdout` are held out: those
    of subjects in training become `same_subjects`, the others are divided by subject as `split_pool` does.

    Args:
        train: what was trained on; its columns also hold for `holdout`.
        holdout: a source of images that the model never saw: a folder, a table, a MedMNIST archive or `hf:NAME`.
        resolution: height and width of every image, in pixels.
        seed: draws the training set where there is no `holdout`, and divides the held-out images.
    Raises:
        DataError: a source that cannot be read or is too small, a named source beside `holdout` or as one, or images
            that are in both.
        MissingPackageError: a source needs a package that is not installed.
    """
    if holdout is None:
        dataset = load_dataset(train, resolution=resolution, seed=seed)
        note = "no --holdout: held out is what memcontrol finetune with the same data options and seed never sees"
        return replace(dataset, notes=(*dataset.notes, note))
    _refuse_named(train.source, holdout)
    ours, theirs = (
        _decoded(source_pool(train.model_copy(update={"source": source}), resolution), train)
        for source in (train.source, holdout)
    )
    _refuse_overlap(ours, theirs, holdout)
    asked = train.model_copy(update={"train_size": len(ours.images)})
    return _with_note(split_pool(_joined(ours, theirs), asked, resolution=resolution, seed=seed))


def _refuse_named(source: str, holdout: str) -> None:
    if source in SOURCES:
        raise DataError(f"{source} brings its own held-out images: drop --holdout {holdout}")
    if holdout in SOURCES:
        raise DataError(
            f"--holdout {holdout} is an embedded source of other images than {source}: give held-out images of the "
            "same kind (a folder, a CSV, XLSX or .npz file, or hf:NAME), or drop --holdout"
        )


def _refuse_overlap(ours: Pool, theirs: Pool, holdout: str) -> None:
    pairs = overlap(ours.images, theirs.images)
    if pairs:
        named = listed([f"{first} = {second}" for first, second in pairs])
        raise DataError(
            f"{counted(len(pairs), 'held-out image is', 'held-out images are')} in the training set too (training = "
            f"held-out: {named}): remove them from {holdout}, or from --train where the model never saw them"
        )


def _decoded(pool: Pool, config: DataConfig) -> Pool:
    """The pool without images that do not decode, where these are to be skipped."""
    if config.bad_images == "error":
        return pool
    decodes = [_decodes(pool, i) for i in range(len(pool.images))]
    good = [i for i, does in enumerate(decodes) if does]
    bad = [key for key, does in zip(pool.images.keys, decodes, strict=True) if not does]
    if not good:
        raise DataError(f"{pool.name}: none of {counted(len(pool.images), 'image')} decodes: repair them")
    if not bad:
        return pool
    note = f"{pool.name}: skipped {counted(len(bad), 'image')} that did not decode, the first {bad[0]}"
    return replace(
        pool, images=pool.images.take(good), digest=lambda i: pool.digest(good[i]), notes=(*pool.notes, note)
    )


def _decodes(pool: Pool, position: int) -> bool:
    try:
        pool.digest(position)
    except DataError:
        return False
    return True


def _joined(ours: Pool, theirs: Pool) -> Pool:
    """Both pools as one, `train` and `validation` by where an image comes from."""
    first, second, count = ours.images, theirs.images, len(ours.images)
    images = ImageSet(
        keys=first.keys + second.keys,
        captions=first.captions + second.captions,
        subjects=_subjects(first, second),
        read=one_after_another(first, second),
    )
    sources = [f"{role} {text}" for role, pool in (("training", ours), ("held-out", theirs)) for text in _found(pool)]
    return Pool(
        ours.name,
        images,
        digest=lambda i: ours.digest(i) if i < count else theirs.digest(i - count),
        splits=("train",) * count + ("validation",) * len(second),
        notes=_subject_notes(first, second),
        sources=tuple(sources),
    )


def _found(pool: Pool) -> list[str]:
    ignored = [] if pool.splits is None else ["its column or archive of splits is not used, all images count"]
    return [*content_notes(pool.name, pool.images), *pool.notes, *ignored]


def _subjects(first: ImageSet, second: ImageSet) -> tuple[str, ...] | None:
    """Subjects of both; an image without one is its own subject, in its own source."""
    if first.subjects is None and second.subjects is None:
        return None
    named: list[str] = []
    for role, images in (("training", first), ("held-out", second)):
        subjects: Sequence[str] = images.keys if images.subjects is None else images.subjects
        # A source names an image without a subject by its key, and the two may use the same keys.
        named += [
            f"{role} image {key}" if subject == key else subject
            for key, subject in zip(images.keys, subjects, strict=True)
        ]
    return tuple(named)


def _subject_notes(first: ImageSet, second: ImageSet) -> tuple[str, ...]:
    if (first.subjects is None) == (second.subjects is None):
        return ()
    with_, without = ("training", "held-out") if second.subjects is None else ("held-out", "training")
    return (
        f"the {with_} images have subjects, the {without} ones have none: training subjects among the held-out images "
        "cannot be told",
    )


def one_after_another(*sets: ImageSet) -> Callable[[Indices], Pixels]:
    """A reader of several sets of images of one size as one, each after the other."""
    ends = np.cumsum([len(images) for images in sets])

    def read(positions: Indices) -> Pixels:
        where = np.searchsorted(ends, positions, side="right")
        parts = [
            (where == i, images.pixels(positions[where == i] - (ends[i] - len(images))))
            for i, images in enumerate(sets)
        ]
        pixels: Pixels = np.empty((len(positions), *parts[0][1].shape[1:]), dtype=np.uint8)
        for inside, part in parts:
            pixels[inside] = part
        return pixels

    return read


def _with_note(dataset: Dataset) -> Dataset:
    """The data set, with a sentence on held-out images of training subjects."""
    if dataset.same_subjects is None:
        return dataset
    count = counted(len(dataset.same_subjects), "held-out image is", "held-out images are")
    note = f"{count} of training subjects: compared apart, in scores that end in _same_subjects"
    return replace(dataset, notes=(*dataset.notes, note))
