"""Every real image that generated ones are compared with, as a model's autoencoder gives it back and as it came."""

from __future__ import annotations

from dataclasses import dataclass, replace

from memcontrol.data.images import Dataset, Pixels
from memcontrol.pipeline import FrozenPipeline


@dataclass(frozen=True)
class RealImages:
    """Every real image that generated ones are compared with, `(N, H, W, 3)` uint8 each.

    Without an autoencoder the images are what the U-Net sees of them, and the `_raw` ones are the same.

    Attributes:
        training: what the model was tuned on, through its autoencoder, else the autoencoder's blur hides copies.
        fidelity: held-out images for `fd` and `kid`, and to calibrate `nn_ratio_share`, through the autoencoder.
        copying: held-out images for copying measures, through the autoencoder.
        training_raw, fidelity_raw, copying_raw: the same images as they came.
        same_subjects, same_subjects_raw: other images of the training set's subjects, where the data has them.
    """

    training: Pixels
    fidelity: Pixels
    copying: Pixels
    training_raw: Pixels
    fidelity_raw: Pixels
    copying_raw: Pixels
    same_subjects: Pixels | None = None
    same_subjects_raw: Pixels | None = None


def real_images(frozen: FrozenPipeline, dataset: Dataset) -> RealImages:
    """The real images that a model's images are compared with; without an autoencoder, as its U-Net sees them."""
    heldout, same = dataset.heldout, dataset.same_subjects
    sets = (dataset.training, heldout.fidelity, heldout.copying)
    training, fidelity, copying = (frozen.reconstruct(images) for images in sets)
    same_subjects = None if same is None else frozen.reconstruct(same)
    seen = RealImages(training, fidelity, copying, training, fidelity, copying, same_subjects, same_subjects)
    if not frozen.has_autoencoder:
        return seen
    raw = raw_images(dataset)
    return replace(
        seen,
        training_raw=raw.training,
        fidelity_raw=raw.fidelity,
        copying_raw=raw.copying,
        same_subjects_raw=raw.same_subjects,
    )


def raw_images(dataset: Dataset) -> RealImages:
    """The real images as they came, for generated images of which no model is known."""
    heldout, same = dataset.heldout, dataset.same_subjects
    training, fidelity, copying = (images.pixels() for images in (dataset.training, heldout.fidelity, heldout.copying))
    same_subjects = None if same is None else same.pixels()
    return RealImages(training, fidelity, copying, training, fidelity, copying, same_subjects, same_subjects)
