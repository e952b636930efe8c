"""How much closer generated images lie to the training set than to held-out images, with null bands.

One design serves all measures. Training and held-out images form a pool; each generated image has its nearest of the
pool, in order, and each of these is a member of the training set or not. Every measure is a function of these
memberships, so shuffling them gives each measure's values when nothing is copied.

Nearest distances fall as a set grows, so where both sides are compared it is at m images, m = min(training, held-out):
the nearest of a random m of them, whose distribution follows from the ordered distances without drawing any. With at
least as many held-out as training images, which is the usual case, m is the whole training set.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from memcontrol.errors import MemControlError, nearest_names
from memcontrol.measures import COPYING, Better
from memcontrol.metrics.copying_reference import CopyingReference, Images, check_enough
from memcontrol.metrics.evidence import Evidence
from memcontrol.metrics.neighbourhood import Features

BETTER: Mapping[str, Better] = {name: measure.better for name, measure in COPYING.items()}
"""The measures, and which direction is less copied."""

SHARES = frozenset(name for name in BETTER if name.endswith("_share")) | {"authpct"}


@dataclass(frozen=True)
class Copying:
    """One copying measure with its null distribution.

    Attributes:
        value: as measured; for `copy_gap` no lower than the null median, since luck is no virtue.
        low, high: 95 % interval, the null band's width about `value`: it covers which images happened to be the
            training set and which were held out, and not the seed of the training.
        p: share of shuffled memberships that look at least as copied; at least 1 / (permutations + 1).
        null: 2.5, 50 and 97.5 % quantiles over shuffled memberships.
        raw: as measured, never clipped.
    """

    value: float
    low: float
    high: float
    p: float
    null: tuple[float, float, float]
    raw: float


def measure_copying(
    generated: Features,
    training: Features,
    heldout: Features,
    calibration: Features,
    *,
    rng: np.random.Generator,
    permutations: int = 200,
    mirrored: Features | None = None,
    calibration_mirrored: Features | None = None,
    names: Collection[str] | None = None,
) -> dict[str, Copying]:
    """Every copying measure of a set of generated images, by cosine distance unless it says otherwise.

    - `copy_gap`: mean over generated images of (expected nearest distance to m random held-out images) - (the same to
      m random training images).
    - `copy_tail`: 95th percentile of that difference, which shows rare copies that the mean hides.
    - `closer_share`: mean probability that the held-out side's nearest is the farther one, ties counted half; 0.5 is
      honest.
    - `nn_ratio_share`: share of generated images whose two nearest training images have d1 / d2 below the 5 % quantile
      of the same ratio among honest images (`calibration`); 0.05 is honest.
    - `amd`: mean distance to the nearest training image. Higher is less copied.
    - `copied_share`: share of generated images that are copies: nearer to a training image than 99 % of honest images
      are to theirs (`copies.HONEST_SHARE` has the reason); 0.01 is honest.
    - `copied_training_share`: share of training images that are the nearest one of such a copy. Of exact duplicates in
      the training set one alone is counted. Its honest value depends on how many images are generated: see `null`.
    - `c_t`: Mann-Whitney Z of generated against honest images' nearest training distances; 0 is honest, negative is
      copied. With 100 or more images in each set, the mean over up to 10 k-means cells (`cells.count_cells`), of the
      pool, so that shuffling leaves them alone; with fewer, one cell. Nearest is nearest of the whole training set.
    - `authpct`: share (0 to 1) of generated images farther from their nearest training image than that one from its
      nearest other training image. Training images at distance zero are left out: duplicates would hide copying.
    - `memorized_share`: share of generated images whose squared L2 distance to the nearest training image, over the
      mean of the 50 nearest, lies below the 1 % quantile of honest images; 0.01 is honest. On features as given.

    The null band, not the honest value, tells whether anything is copied where generated images differ from real ones
    in quality, or are few. With `mirrored`, a generated image counts by the nearer of itself and its mirror image, and
    training images do not in `authpct`, whose honest value is then lower.

    Args:
        generated: `(N, D)`.
        training: `(n, D)`, n at least 2.
        heldout: `(M, D)`, never tuned on; 8 n or more make the null band narrow.
        calibration: `(C, D)`, honest images in neither set, the first 512 of which are used; 100 or more reach the 1 %
            quantile.
        rng: draws the permutations, and then the cells.
        permutations: how often memberships are shuffled, 1 or more.
        mirrored: `(N, D)`, features of `generated` flipped left to right.
        calibration_mirrored: `(C, D)`, features of `calibration` flipped left to right; with `mirrored`, or not at all.
        names: the measures wanted, all unless given; `authpct` and `memorized_share` need a search of their own each.
    Raises:
        TooFewImages: fewer than two training images, or none elsewhere.
        MemControlError: features that are not finite, an unknown name, one mirrored set without the other, or no
            permutations.
    Source: d1 / d2: Yoon et al. 2023, with their 1/3 replaced by a calibrated bound; amd: Dutt et al. 2024
        (MemControl, arXiv 2405.19458); shares of copies: Dar et al. 2025 (Nature Biomedical Engineering); c_t: Meehan
        et al. 2020 (arXiv 2004.05675); authpct: Alaa et al. 2022 (arXiv 2102.08921); memorized_share: IET-AGC
        (arXiv 2407.15328).
    """
    reference = CopyingReference(training, heldout, calibration, calibration_mirrored)
    return copying_against(reference, generated, rng=rng, permutations=permutations, mirrored=mirrored, names=names)


def copying_against(
    reference: CopyingReference,
    generated: Features,
    *,
    rng: np.random.Generator,
    permutations: int = 200,
    mirrored: Features | None = None,
    names: Collection[str] | None = None,
) -> dict[str, Copying]:
    """The same against real images of which much is known already; what honest ones say is then worked out once.

    Args:
        reference: it knows most where `rng` draws the memberships that it drew before; with features of mirrored
            images where `mirrored` is given.
        generated, rng, permutations, mirrored, names: as for `measure_copying`.
    Raises:
        TooFewImages, MemControlError: as for `measure_copying`.
    """
    wanted = _wanted(names, permutations)
    if (mirrored is None) != (reference.honest.mirrored is None):
        raise MemControlError("mirrored images were given for one of generated and calibration: give both, or neither")
    check_enough(generated, "generated", 1)
    memberships = [rng.permutation(reference.members) for _ in range(permutations)]
    full = Evidence.gather(
        Images(generated, mirrored, "generated"), reference, names=wanted, memberships=permutations + 1, rng=rng
    )
    measured, near = full.statistics(reference.members), full.shallow()
    shuffled = [near.statistics(shuffle) for shuffle in memberships]
    return {name: _against_null(name, measured[name], [drawn[name] for drawn in shuffled]) for name in wanted}


def _against_null(name: str, raw: float, shuffled: list[float]) -> Copying:
    null = np.array(shuffled)
    low, middle, high = (float(quantile) for quantile in np.quantile(null, (0.025, 0.5, 0.975)))
    as_copied = (null >= raw) if BETTER[name] == "lower" else (null <= raw)
    value = max(raw, middle) if name == "copy_gap" else raw
    bottom, top = value - (high - middle), value + (middle - low)
    if name in SHARES:
        bottom, top = max(bottom, 0.0), min(top, 1.0)
    p = (1 + int(as_copied.sum())) / (1 + len(null))
    return Copying(value=value, low=bottom, high=top, p=p, null=(low, middle, high), raw=raw)


def _wanted(names: Collection[str] | None, permutations: int) -> tuple[str, ...]:
    """The measures to compute, in `BETTER`'s order."""
    for name in names or ():
        if name not in BETTER:
            raise MemControlError(f'unknown copying measure "{name}": {nearest_names(name, BETTER)}')
    if permutations < 1:
        raise MemControlError(f"{permutations} permutations were asked for: a null band needs 1 or more, 200 are usual")
    return tuple(name for name in BETTER if names is None or name in names)
