"""Generated images to scores, against one set of real images that is encoded once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from memcontrol.cache import Cache
from memcontrol.data.images import Pixels
from memcontrol.encoders import Encoder
from memcontrol.errors import MemControlError
from memcontrol.measures import COPYING_NAMES, MEASURES, VARIANTS, Family
from memcontrol.metrics.neighbours import nearest
from memcontrol.score.families import FAMILIES, Question, Reference
from memcontrol.score.features import GeneratedFeatures, RealFeatures, encoded
from memcontrol.score.naming import from_model, parse_name
from memcontrol.score.objectives import custom_score, load_objective
from memcontrol.score.real import RealImages
from memcontrol.score.value import Score

Asked = tuple[Family, str, str]
"""Family, ending and encoder: what is computed at one go."""


class Scorer:
    """Scores of generated images against one set of real ones; a pure function of the images and their prompts.

    Real images are encoded once, when a score first needs them.

    Args:
        real: what generated images are compared with.
        names: scores to compute, `measure@encoder` or `module:function`; those that ask the model are left to
            `Attacker`.
        encoders: by name; at least those that `names` mention.
        components: leading components of the reference on which `fd` is computed.
        permutations: shuffled memberships behind each copying measure's null band.
        seed: of every resampling; each call starts from it anew.
        cache: where features of real images are kept; nowhere unless given.
        identity: what decides the features of real images besides the encoders and the images, such as the model.
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
        self.real, self.encoders = real, encoders
        self.names = tuple(name for name in dict.fromkeys(names) if not from_model(name))
        self.components, self.permutations, self.seed = components, permutations, seed
        self._objectives = {name: load_objective(name) for name in self.names if ":" in name}
        self._parsed = {name: parse_name(name, encoders) for name in self.names if ":" not in name}
        self._features = RealFeatures(real, encoders, cache=cache, identity=identity)
        self._references: dict[str, Reference] = {}
        self._asked: dict[Asked, set[str]] = {}
        for name, (measure, encoder) in self._parsed.items():
            base, ending = COPYING_NAMES.get(measure, (measure, ""))
            self._asked.setdefault((MEASURES[measure].family, ending, encoder), set()).add(base)
            for part in VARIANTS[ending].parts if measure in COPYING_NAMES else ():
                if getattr(real, part) is None:
                    raise MemControlError(f"score {name} needs {part} images, this data has none: drop that score")

    def __call__(self, images: Pixels, prompts: Sequence[str] = ()) -> dict[str, Score]:
        """Every score, in the order of `names`.

        Args:
            images: `(N, H, W, 3)` uint8.
            prompts: what each was generated from; only scores of alignment need them.
        """
        generated = GeneratedFeatures(images, prompts, self.encoders)
        found = {asked: FAMILIES[asked[0]](self._question(asked, generated)) for asked in self._asked}
        scores = {}
        for name in self.names:
            if name in self._objectives:
                scores[name] = custom_score(name, self._objectives[name], images, self.real)
                continue
            measure, encoder = self._parsed[name]
            base, ending = COPYING_NAMES.get(measure, (measure, ""))
            scores[name] = found[MEASURES[measure].family, ending, encoder][base]
        return scores

    def only(self, names: Sequence[str]) -> Scorer:
        """A scorer of some of these scores, which shares what is known of the real images."""
        part = Scorer(
            self.real,
            names,
            self.encoders,
            components=self.components,
            permutations=self.permutations,
            seed=self.seed,
        )
        part._features, part._references = self._features, self._references
        return part

    def nearest_training(self, images: Pixels, encoder: str) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """For each image the position of its nearest training image and the cosine distance to it, `(N,)` each."""
        distances, positions = nearest(
            encoded(self.encoders[encoder], images), self._features.of("training", encoder), 1
        )
        return positions[:, 0], distances[:, 0]

    def features(self, part: str, encoder: str) -> NDArray[np.float32]:
        """`(N, D)` features of one part of the real images."""
        return self._features.of(part, encoder)

    def _question(self, asked: Asked, generated: GeneratedFeatures) -> Question:
        _, ending, encoder = asked
        if encoder not in self._references:
            self._references[encoder] = Reference(self._features, encoder, self.components)
        return Question(
            generated=generated,
            real=self._features,
            reference=self._references[encoder],
            encoder=encoder,
            ending=ending,
            measures=frozenset(self._asked[asked]),
            permutations=self.permutations,
            seed=self.seed,
        )
