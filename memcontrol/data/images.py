"""The two types that every data source gives: a set of images, and a data set split for tuning and scoring."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""`(N, H, W, 3)` RGB images, 0 to 255."""

Indices = NDArray[np.intp]


@dataclass(frozen=True)
class ImageSet:
    """Images with captions; pixels are read when asked for, so that large sets need no memory.

    Attributes:
        keys: a name for each image (file name, or draw), unique within the source.
        captions: one caption for each image.
        subjects: whose image it is, or None where the source has no subjects.
        read: positions in this set -> `(len(positions), H, W, 3)` uint8.
    """

    keys: tuple[str, ...]
    captions: tuple[str, ...]
    subjects: tuple[str, ...] | None
    read: Callable[[Indices], Pixels] = field(repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.keys)

    def pixels(self, positions: Sequence[int] | Indices | None = None) -> Pixels:
        """The images at `positions` (default all), `(N, H, W, 3)` uint8."""
        chosen = np.arange(len(self)) if positions is None else np.asarray(positions, dtype=np.intp)
        return self.read(chosen)

    def take(self, positions: Sequence[int] | Indices) -> ImageSet:
        """The subset at `positions`, in that order."""
        chosen = np.asarray(positions, dtype=np.intp)
        return ImageSet(
            keys=tuple(self.keys[i] for i in chosen),
            captions=tuple(self.captions[i] for i in chosen),
            subjects=None if self.subjects is None else tuple(self.subjects[i] for i in chosen),
            read=lambda inner: self.read(chosen[inner]),
        )

    def with_captions(self, how: Literal["column", "class-names", "none"]) -> ImageSet:
        """The same images with their captions, or with empty ones, as `DataConfig.captions` says."""
        return replace(self, captions=("",) * len(self)) if how == "none" else self


def images_from_array(
    pixels: Pixels, captions: Sequence[str], *, keys: Sequence[str], subjects: Sequence[str] | None = None
) -> ImageSet:
    """An `ImageSet` over images already in memory, `(N, H, W, 3)` uint8."""
    return ImageSet(
        keys=tuple(keys),
        captions=tuple(captions),
        subjects=None if subjects is None else tuple(subjects),
        read=lambda positions: pixels[positions],
    )


@dataclass(frozen=True)
class HeldOut:
    """Three disjoint held-out sets: one for fidelity, one for copying, one for confirmation."""

    fidelity: ImageSet
    copying: ImageSet
    confirmation: ImageSet


@dataclass(frozen=True)
class Dataset:
    """A data set ready for tuning and scoring.

    Attributes:
        name: short name, used in run folders.
        resolution: height and width of every image, in pixels.
        training: distinct training images.
        repeats: `(len(training),)` int, how many times each training image stands in an epoch.
        heldout: images that no tuning sees.
        same_subjects: other images of the training set's own subjects, where the source has them: a second kind of
            held-out set, since splitting by subject confounds identity with copying.
        notes: sentences for the user: what was found, how it was split, what was skipped.
    """

    name: str
    resolution: int
    training: ImageSet
    repeats: NDArray[np.int64]
    heldout: HeldOut
    same_subjects: ImageSet | None = None
    notes: tuple[str, ...] = ()

    def on_confirmation(self) -> Dataset:
        """The same data set with the third held-out set in the place of those for fidelity and for copying."""
        third = self.heldout.confirmation
        return replace(self, heldout=HeldOut(third, third, third))

    def counts(self) -> Mapping[str, int]:
        """How many images each part has."""
        parts = {
            "training": len(self.training),
            "fidelity": len(self.heldout.fidelity),
            "copying": len(self.heldout.copying),
            "confirmation": len(self.heldout.confirmation),
        }
        return parts | ({} if self.same_subjects is None else {"same_subjects": len(self.same_subjects)})
