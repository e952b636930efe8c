"""Images to scores: each named `measure@encoder`, with a direction, the number of images and an interval."""

from memcontrol.score.naming import MEASURES, check_counts, direction, is_raw, parse_name
from memcontrol.score.objectives import RealImages, load_objective
from memcontrol.score.scorer import Scorer
from memcontrol.score.value import Score, minimised

__all__ = [
    "MEASURES",
    "RealImages",
    "Score",
    "Scorer",
    "check_counts",
    "direction",
    "is_raw",
    "load_objective",
    "minimised",
    "parse_name",
]
