"""Images, or a model, to scores: each named `measure@source`, with a direction, a count and an interval."""

from memcontrol.score.assembling import check_scoring, finite, scorer_of
from memcontrol.score.attacker import Attacker, ModelEvidence
from memcontrol.score.naming import (
    check_counts,
    direction,
    encoder_names,
    from_model,
    is_fidelity,
    is_raw,
    parse_name,
    shortage,
)
from memcontrol.score.objectives import load_objective
from memcontrol.score.real import RealImages, raw_images, real_images
from memcontrol.score.scorer import Scorer
from memcontrol.score.value import Score, minimised

__all__ = [
    "Attacker",
    "ModelEvidence",
    "RealImages",
    "Score",
    "Scorer",
    "check_counts",
    "check_scoring",
    "direction",
    "encoder_names",
    "finite",
    "from_model",
    "is_fidelity",
    "is_raw",
    "load_objective",
    "minimised",
    "parse_name",
    "raw_images",
    "real_images",
    "scorer_of",
    "shortage",
]
