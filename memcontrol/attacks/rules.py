"""When generations of one prompt count as one image given back again and again, and when as a training image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from memcontrol.data.images import Pixels
from memcontrol.errors import MemControlError, TooFewImages
from memcontrol.metrics.tiles import Float64, tile_distances

CALIBRATION_LIMIT = 2048
"""Held-out images that distances are calibrated on; the first of them."""
LEAST_PAIRS = 200
"""With fewer pairs of held-out images of one caption, pairs of any captions stand for them."""
TRAINING_BLOCK = 4096


@dataclass(frozen=True)
class ExtractionRules:
    """One published way, or our own, of telling that a prompt gives a training image back.

    Attributes:
        name: what reports call it.
        generations: images for each prompt.
        least_group: how many near-identical generations make a group.
        cliques: whether all of a group must be near each other; else each needs one other (connected component).
        edge: two generations are near each other below this tile distance; None until calibrated.
        verification: a group's medoid is a training image up to this distance from it; None until calibrated.
        tiles: tiles along each side in the distance between generations.
        normalised: whether that distance is a root mean square; else a root sum of squares.
        reference_side: side in pixels of the images for which an un-normalised `edge` was published; distances are
            scaled to it. None takes them as they are.
        verification_tiles: tiles along each side in the distance to training images; 1 compares whole images.
        mirrored: whether training images are also compared mirrored.
        ratio: an unconditional generation is a training image below this ratio of distances; None until calibrated.
        neighbours: nearest training images in the ratio's denominator; all, where there are fewer.
    """

    name: str
    generations: int
    least_group: int
    cliques: bool
    edge: float | None
    verification: float | None
    tiles: int = 4
    normalised: bool = True
    reference_side: int | None = None
    verification_tiles: int = 1
    mirrored: bool = False
    ratio: float | None = 1.0
    neighbours: int = 50

    def thresholds(self) -> Thresholds:
        """Edge, verification and ratio.

        Raises:
            MemControlError: they have not been calibrated.
        """
        if self.edge is None or self.verification is None or self.ratio is None:
            raise MemControlError(
                f"rules {self.name} have no distances yet: calibrate them on training and held-out images first"
            )
        return Thresholds(self.edge, self.verification, self.ratio)


class Thresholds(NamedTuple):
    """Distances that decide."""

    edge: float
    verification: float
    ratio: float


RULES: Mapping[str, ExtractionRules] = {
    rules.name: rules
    for rules in (
        # An edge distance of its own is not known to us; that of the verification is assumed.
        ExtractionRules("carlini-2023", 500, 10, cliques=True, edge=0.15, verification=0.15),
        # Pixels in 0 to 1, images of 512 pixels, and Carlini's verification are assumed.
        ExtractionRules(
            "memcontrol-2024",
            50,
            3,
            cliques=False,
            edge=20.0,
            verification=0.15,
            normalised=False,
            reference_side=512,
        ),
        ExtractionRules(
            "calibrated",
            64,
            10,
            cliques=True,
            edge=None,
            verification=None,
            verification_tiles=4,
            mirrored=True,
            ratio=None,
        ),
    )
}
"""By name. `carlini-2023`: Carlini et al. 2023 (USENIX Security, arXiv 2301.13188), section 4.2; `memcontrol-2024`: the
variant in the code of Dutt et al. 2025 (arXiv 2405.19458); `calibrated`: Carlini's procedure with distances from
`calibrate`, since fixed ones do not carry over: three quarters of honest brain slices lie within 0.15 of a training
slice."""


def generation_distances(images: Pixels, rules: ExtractionRules) -> Float64:
    """Tile distances among generations `(N, H, W, 3)`, `(N, N)`, in the unit of `rules.edge`."""
    distances = tile_distances(images, images, tiles=rules.tiles, normalised=rules.normalised)
    if rules.normalised or rules.reference_side is None:
        return distances
    side = float(np.sqrt(images.shape[1] * images.shape[2]))
    return distances * (rules.reference_side / side)


def training_distances(images: Pixels, training: Pixels, rules: ExtractionRules) -> Float64:
    """Distances `(N, M)` to training images, or to their mirror images where those are nearer and the rules say so."""
    distances = tile_distances(images, training, tiles=rules.verification_tiles)
    if not rules.mirrored:
        return distances
    return np.minimum(distances, tile_distances(images[:, :, ::-1], training, tiles=rules.verification_tiles))


def nearest_training(images: Pixels, training: Pixels, rules: ExtractionRules) -> tuple[Float64, NDArray[np.intp]]:
    """Distance to the nearest training image, `(N,)`, and its position, `(N,)`; a block of the training set at a time.

    Raises:
        TooFewImages: there is no training image.
    """
    if not len(training):
        raise TooFewImages("the extraction attack needs training images to verify against, got none")
    distances, positions = np.full(len(images), np.inf), np.zeros(len(images), dtype=np.intp)
    for start in range(0, len(training), TRAINING_BLOCK):
        block = training_distances(images, training[start : start + TRAINING_BLOCK], rules)
        found = block.argmin(axis=1)
        nearest = block[np.arange(len(images)), found]
        positions = np.where(nearest < distances, found + start, positions)
        distances = np.minimum(distances, nearest)
    return distances, positions


def distance_ratios(images: Pixels, training: Pixels, rules: ExtractionRules) -> tuple[Float64, NDArray[np.intp]]:
    """Each image's distance to the nearest training image over half the mean to its 50 nearest, `(N,)`; its position.

    Where the 50 nearest all lie at 0 the ratio is 0.

    Raises:
        TooFewImages: fewer than two training images.
    Source: Carlini et al. 2023 (arXiv 2301.13188), section 5: below 1 is a copy.
    """
    if len(training) < 2:
        raise TooFewImages(f"distance ratios need 2 training images or more, got {len(training)}: give more images")
    distances = training_distances(images, training, rules)
    count = min(rules.neighbours, len(training))
    nearest = np.partition(distances, count - 1, axis=1)[:, :count]
    first, half_mean = nearest.min(axis=1), 0.5 * nearest.mean(axis=1)
    return np.divide(first, half_mean, out=np.zeros_like(first), where=half_mean > 0), distances.argmin(axis=1)


def calibrate(
    rules: ExtractionRules,
    training: Pixels,
    heldout: Pixels,
    captions: Sequence[str],
    *,
    edge_quantile: float = 0.01,
    verification_quantile: float = 0.01,
) -> ExtractionRules:
    """`rules` with distances under which honest images rarely fall.

    - `verification`: a quantile of held-out images' smallest distance to the training set.
    - `edge`: a quantile of the distances between held-out images of one caption, or of any where there are fewer than
      200 such pairs.
    - `ratio`: the smallest of held-out images' ratios, since here each generation is judged by itself.

    Only the first 2,048 held-out images are used.

    Args:
        training: `(M, H, W, 3)`, as the model's autoencoder gives them back.
        heldout: `(N, H, W, 3)`, likewise; not those on which a false alarm is then looked for.
        captions: `(N,)`, of the held-out images.
    Raises:
        TooFewImages: fewer than two held-out or training images.
        MemControlError: quantiles outside 0 to 1, or captions that are not one for each image.
    """
    if len(captions) != len(heldout):
        raise MemControlError(f"{len(captions)} captions for {len(heldout)} held-out images: give one for each")
    if len(heldout) < 2:
        raise TooFewImages(f"calibration needs 2 held-out images or more, got {len(heldout)}: hold out more")
    for name, quantile in (("edge", edge_quantile), ("verification", verification_quantile)):
        if not 0.0 <= quantile <= 1.0:
            raise MemControlError(f"{name} quantile {quantile}: expected 0 to 1, such as 0.01")
    honest = np.asarray(heldout[:CALIBRATION_LIMIT])
    nearest, _ = nearest_training(honest, training, rules)
    ratios = [distance_ratios(part, training, rules)[0] for part in _parts(honest)]
    return replace(
        rules,
        edge=_lower(_pair_distances(honest, captions[:CALIBRATION_LIMIT], rules), edge_quantile),
        verification=_lower(nearest, verification_quantile),
        ratio=float(np.concatenate(ratios).min()),
    )


def _parts(images: Pixels) -> Iterator[Pixels]:
    return (images[start : start + 64] for start in range(0, len(images), 64))


def _pair_distances(images: Pixels, captions: Sequence[str], rules: ExtractionRules) -> Float64:
    """Distances of pairs of one caption, or of all pairs where those are few."""
    distances = generation_distances(images, rules)
    _, numbers = np.unique(np.array(captions, dtype=str), return_inverse=True)
    pairs = np.triu(np.ones_like(distances, dtype=bool), k=1)
    same = pairs & (numbers[:, None] == numbers)
    return np.asarray(distances[same if same.sum() >= LEAST_PAIRS else pairs])


def _lower(values: Float64, quantile: float) -> float:
    return float(np.quantile(values, quantile, method="lower"))
