"""Sentences that say what a source holds and how it was split, shown before any work starts."""

from __future__ import annotations

from collections.abc import Sequence

from memcontrol.data.images import ImageSet

COPYING_FACTOR = 8
"""The copying set should have this many images for each training image, so that random subsets of it differ."""


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun: `1 image`, `2 images`, `1,000 images`."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def content_notes(name: str, images: ImageSet) -> list[str]:
    """How many images, captions and subjects a source holds."""
    captions = set(images.captions) - {""}
    empty = sum(caption == "" for caption in images.captions)
    subjects = "no subjects" if images.subjects is None else counted(len(set(images.subjects)), "subject")
    said = counted(len(captions), "distinct caption") if captions else "no captions"
    found = f"{name}: {counted(len(images), 'image')}, {said}, {subjects}"
    some = captions and empty
    return [found] + ([f"{counted(empty, 'image has', 'images have')} an empty caption"] if some else [])


def split_notes(how: str, training: int, got: Sequence[int], asked: Sequence[int], same_subjects: int) -> list[str]:
    """How many images went to each set, and where that is fewer than asked or advised.

    Args:
        how: what was kept apart, such as `by subject`.
        got: sizes of the fidelity, copying and confirmation sets.
        asked: the sizes that the configuration asks for.
    """
    held = "held out: {} fidelity, {} copying, {} confirmation".format(*got)
    fewer = "" if tuple(got) == tuple(asked) else " (wanted: {}, {}, {})".format(*asked)
    other = f"; {counted(same_subjects, 'other image')} of training subjects" if same_subjects else ""
    return [f"split {how}: {training} training; {held}{fewer}{other}", *copying_notes(got[1], training)]


def copying_notes(copying: int, training: int) -> list[str]:
    """A caution where the copying set is under eight times the training set."""
    if copying >= COPYING_FACTOR * training:
        return []
    advised = COPYING_FACTOR * training
    return [
        f"the copying set has {copying:,} images: {advised:,} or more, {COPYING_FACTOR} a training image, are advised; "
        "add images, or train on fewer"
    ]


def exclusion_notes(bad: Sequence[str], copies: int, duplicates: int) -> list[str]:
    """What was left out, and how many training images are exact duplicates of another.

    Args:
        bad: names of skipped images.
        copies: exact copies of training images that were kept out of the held-out sets.
    """
    notes = []
    if bad:
        notes.append(f"skipped {counted(len(bad), 'image')} that did not decode, the first {bad[0]}")
    if copies:
        what = counted(copies, "exact copy", "exact copies")
        notes.append(f"kept {what} of training images out of the held-out sets")
    inside = counted(duplicates, "exact duplicate") if duplicates else "no exact duplicates"
    return [*notes, f"{inside} within the training set"]


def repeat_notes(repeats: Sequence[int]) -> list[str]:
    """How many training images are repeated, and how often."""
    often = [times for times in repeats if times > 1]
    return [f"{counted(len(often), 'training image')} repeated {often[0]} times"] if often else []
