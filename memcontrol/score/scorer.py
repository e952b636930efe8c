"""Generated images to scores, against one set of real images that is encoded once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial

import numpy as np
from numpy.typing import NDArray

from memcontrol.cache import Cache
from memcontrol.data.images import Pixels
from memcontrol.encoders import Encoder, Features
from memcontrol.errors import MemControlError
from memcontrol.fingerprint import fingerprint
from memcontrol.metrics.copying import BETTER, Copying, measure_copying
from memcontrol.metrics.frechet import LeadingComponents, frechet_interval
from memcontrol.metrics.kernel import kernel_interval
from memcontrol.metrics.neighbours import nearest
from memcontrol.score.naming import COPYING_MEASURES, MEASURES, VARIANTS, Compared, parse_name
from memcontrol.score.objectives import RealImages, custom_score, load_objective
from memcontrol.score.value import Score


class Scorer:
    """Scores of generated images against one set of real ones; a pure function of the images.

    Real images are encoded once, when a score first needs them.

    Args:
        real: what generated images are compared with.
        names: scores to compute, `measure@encoder` or `module:function`.
        encoders: by name; at least those that `names` mention.
        components: leading components of the reference on which `fd` is computed.
        permutations: shuffled memberships behind each copying measure's null band.
        seed: of every resampling; each call starts from it anew.
        cache: where features of real images are kept; nowhere unless given.
        identity: what decides the encoders' features besides their names and the images, such as weights.
    Raises:
        MemControlError: a name that does not exist, or a score that needs images the data does not have.
    """

    def __init__(
        self,
        real: RealImages,
        names: Sequence[str],
        encoders: Mapping[str, Encoder],
        *,
        components: int = 16,
        permutations: int = 200,
        seed: int = 0,
        cache: Cache | None = None,
        identity: str = "",
    ) -> None:
        self._cache, self._identity = cache, identity
        self.real, self.names, self.encoders = real, tuple(dict.fromkeys(names)), encoders
        self.components, self.permutations, self.seed = components, permutations, seed
        self._objectives = {name: load_objective(name) for name in self.names if ":" in name}
        self._parsed = {name: parse_name(name, encoders) for name in self.names if ":" not in name}
        self._features: dict[tuple[str, str], Features] = {}
        self._fitted: dict[str, tuple[LeadingComponents, NDArray[np.float64]]] = {}
        for name, (measure, _) in self._parsed.items():
            for part in VARIANTS[COPYING_MEASURES[measure][1]] if measure in COPYING_MEASURES else ():
                if getattr(real, part) is None:
                    raise MemControlError(f"score {name} needs {part} images, this data has none: drop that score")

    def __call__(self, images: Pixels) -> dict[str, Score]:
        """`(N, H, W, 3)` uint8 -> every score, in the order of `names`."""
        generated: dict[str, Features] = {}
        copying: dict[tuple[str, str], dict[str, Copying]] = {}
        scores = {}
        for name in self.names:
            if name in self._objectives:
                scores[name] = custom_score(name, self._objectives[name], images, self.real)
                continue
            measure, encoder = self._parsed[name]
            if encoder not in generated:
                generated[encoder] = self._encode(images, encoder)
            if measure not in COPYING_MEASURES:
                family = self._frechet if MEASURES[measure].family == "frechet" else self._kernel
                scores[name] = family(generated[encoder], encoder)
                continue
            base, ending = COPYING_MEASURES[measure]
            if (ending, encoder) not in copying:
                copying[ending, encoder] = self._copying(generated[encoder], VARIANTS[ending], encoder)
            scores[name] = Score(n=len(images), better=BETTER[base], **asdict(copying[ending, encoder][base]))
        return scores

    def nearest_training(self, images: Pixels, encoder: str) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """For each image the position of its nearest training image and the cosine distance to it, `(N,)` each."""
        distances, positions = nearest(self._encode(images, encoder), self._real("training", encoder), 1)
        return positions[:, 0], distances[:, 0]

    def _rng(self) -> np.random.Generator:
        # Anew for every measure, so that one score does not depend on which others were asked for.
        return np.random.default_rng(self.seed)

    def _encode(self, images: Pixels, encoder: str) -> Features:
        features = self.encoders[encoder](images)
        if not np.isfinite(features).all():
            raise MemControlError(f"encoder {encoder} gave features that are not finite: check its weights")
        return features

    def _real(self, part: str, encoder: str) -> Features:
        if (part, encoder) not in self._features:
            images: Pixels = getattr(self.real, part)
            if self._cache is None:
                self._features[part, encoder] = self._encode(images, encoder)
            else:
                key = fingerprint(encoder, self._identity, images)
                compute = partial(self._encode, images, encoder)
                self._features[part, encoder] = self._cache.computed("features", key, compute)
        return self._features[part, encoder]

    def _frechet(self, generated: Features, encoder: str) -> Score:
        if encoder not in self._fitted:
            reference = self._real("fidelity", encoder)
            leading = LeadingComponents.fit(reference, self.components)
            self._fitted[encoder] = (leading, leading(reference))
        leading, projected = self._fitted[encoder]
        value, low, high = frechet_interval(leading(generated), projected, rng=self._rng())
        return Score(value, low, high, len(generated), "lower")

    def _kernel(self, generated: Features, encoder: str) -> Score:
        reference = self._real("fidelity", encoder)
        value, low, high = kernel_interval(generated, reference, rng=self._rng())
        return Score(value, low, high, len(generated), "lower")

    def _copying(self, generated: Features, compared: Compared, encoder: str) -> dict[str, Copying]:
        training, heldout, calibration = (self._real(part, encoder) for part in compared)
        return measure_copying(
            generated, training, heldout, calibration, rng=self._rng(), permutations=self.permutations
        )
