"""A scorer of one pipeline's images with the encoders that its scores need, and the checks before and after it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from memcontrol.config import ScoringConfig
from memcontrol.encoders import ENCODERS, load_encoder
from memcontrol.errors import MemControlError, nearest_names
from memcontrol.pipeline import FrozenPipeline
from memcontrol.score.naming import check_counts, direction, encoder_names
from memcontrol.score.real import RealImages
from memcontrol.score.scorer import Scorer
from memcontrol.score.value import Score


def check_scoring(names: Sequence[str], scoring: ScoringConfig) -> None:
    """Refuse, before anything is loaded, scores and encoders' weights that do not exist.

    Raises:
        MemControlError: a name that does not exist.
    """
    for name in names:
        direction(name)
    for name in scoring.encoder_weights:
        if name not in ENCODERS:
            raise MemControlError(f'weights of an unknown encoder "{name}": {nearest_names(name, ENCODERS)}')


def scorer_of(
    frozen: FrozenPipeline, real: RealImages, names: Sequence[str], scoring: ScoringConfig, *, images: int, seed: int
) -> Scorer:
    """The scorer of a pipeline's images, its encoders loaded.

    Args:
        names: scores to compute, whatever `scoring` names.
        images: how many will be generated.
        seed: of every resampling.

    Raises:
        MemControlError: fewer generated or held-out images than a measure needs, or an encoder that cannot be loaded.
    """
    check_counts(names, scoring.components, generated=images, reference=len(real.fidelity))
    device, encode = str(frozen.device), frozen.encode
    encoders = {
        name: load_encoder(name, device=device, encode_latents=encode, weights=scoring.encoder_weights.get(name))
        for name in encoder_names(names) or ["pixels"]
    }
    return Scorer(
        real,
        names,
        encoders,
        components=scoring.components,
        permutations=scoring.permutations,
        seed=seed,
        cache=frozen.cache,
        identity=frozen.identity,
    )


def finite(scores: dict[str, Score]) -> dict[str, Score]:
    """The scores, where each is a number.

    Raises:
        MemControlError: a value or an end of an interval that is NaN or infinite.
    """
    for name, score in scores.items():
        if not all(map(math.isfinite, (score.value, score.low, score.high))):
            raise MemControlError(f"score {name} is {score.value} ({score.low} to {score.high}): expected numbers")
    return scores
