"""Features of real and generated images, each set encoded once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from memcontrol.cache import Cache
from memcontrol.data.images import Pixels
from memcontrol.encoders import AlignedEncoder, Encoder, Features
from memcontrol.errors import MemControlError
from memcontrol.fingerprint import fingerprint
from memcontrol.measures import VARIANTS
from memcontrol.metrics.copying_reference import CopyingReference
from memcontrol.score.real import RealImages


def encoded(encoder: Encoder, images: Pixels) -> Features:
    """`(N, D)` features of `(N, H, W, 3)` images.

    Raises:
        MemControlError: they are not finite.
    """
    features = encoder(images)
    if not np.isfinite(features).all():
        raise MemControlError(f"encoder {encoder.name} gave features that are not finite: check its weights")
    return features


def mirrored(images: Pixels) -> Pixels:
    """The images with left and right exchanged."""
    return images[:, :, ::-1]


class RealFeatures:
    """Features of the parts of `RealImages`, encoded when first asked for.

    Args:
        encoders: by name.
        cache: where features are kept; in memory alone unless given.
        identity: what decides the encoders' features besides their names and the images, such as weights.
    """

    def __init__(
        self, real: RealImages, encoders: Mapping[str, Encoder], *, cache: Cache | None = None, identity: str = ""
    ) -> None:
        self.real, self.encoders, self._cache, self._identity = real, encoders, cache, identity
        self._known: dict[tuple[str, str, bool], Features] = {}
        self._copying: dict[tuple[str, str], CopyingReference] = {}

    def of(self, part: str, encoder: str, *, flipped: bool = False) -> Features:
        """`(N, D)` features of a part, or of its mirror images."""
        key = part, encoder, flipped
        if key not in self._known:
            images: Pixels = getattr(self.real, part)
            self._known[key] = self._computed(mirrored(images) if flipped else images, self.encoders[encoder])
        return self._known[key]

    def copying(self, encoder: str, ending: str) -> CopyingReference:
        """What copying measures of an ending compare with, and what is known of it by now."""
        if (encoder, ending) not in self._copying:
            compared = VARIANTS[ending]
            training, heldout, calibration = (self.of(part, encoder) for part in compared.parts)
            flipped = self.of(compared.calibration, encoder, flipped=True) if compared.mirrored else None
            self._copying[encoder, ending] = CopyingReference(training, heldout, calibration, flipped)
        return self._copying[encoder, ending]

    def statistic(
        self, name: str, part: str, encoder: str, compute: Callable[[Features], NDArray[np.float64]]
    ) -> NDArray[np.float64]:
        """What `compute` makes of the features of a part, from the cache where it has been computed before."""
        if self._cache is None:
            return compute(self.of(part, encoder))
        key = fingerprint(name, self._key(getattr(self.real, part), self.encoders[encoder]))
        return self._cache.computed("statistics", key, lambda: compute(self.of(part, encoder)))

    def _key(self, images: Pixels, encoder: Encoder) -> str:
        return fingerprint(encoder.name, self._identity, encoder.identity, images)

    def _computed(self, images: Pixels, encoder: Encoder) -> Features:
        if self._cache is None:
            return encoded(encoder, images)
        return self._cache.computed("features", self._key(images, encoder), partial(encoded, encoder, images))


class GeneratedFeatures:
    """Features of one set of generated images, encoded when first asked for.

    Args:
        images: `(N, H, W, 3)`.
        prompts: what each was generated from; empty where nothing was said.
    """

    def __init__(self, images: Pixels, prompts: Sequence[str], encoders: Mapping[str, Encoder]) -> None:
        self.images, self.prompts, self._encoders = images, prompts, encoders
        self._known: dict[tuple[str, bool], Features] = {}

    def __len__(self) -> int:
        return len(self.images)

    def of(self, encoder: str, *, flipped: bool = False) -> Features:
        """`(N, D)` features of the images, or of their mirror images."""
        if (encoder, flipped) not in self._known:
            images = mirrored(self.images) if flipped else self.images
            self._known[encoder, flipped] = encoded(self._encoders[encoder], images)
        return self._known[encoder, flipped]

    def similarities(self, encoder: str) -> NDArray[np.floating]:
        """`(N,)` how well each image fits its prompt.

        Raises:
            MemControlError: the prompts are not known, or are all empty.
        """
        if len(self.prompts) != len(self.images) or not any(self.prompts):
            raise MemControlError(f"alignment on {encoder} needs a caption for each generated image: drop that score")
        reader = self._encoders[encoder]
        if not isinstance(reader, AlignedEncoder):
            raise MemControlError(f"encoder {encoder} reads no text: use clip or biovil-t")
        return reader.similarities(self.images, list(self.prompts))
