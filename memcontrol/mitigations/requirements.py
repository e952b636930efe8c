"""What mitigations ask of their strengths, and of the data and the model that they are used on."""

from __future__ import annotations

import math

from memcontrol.data.images import Dataset
from memcontrol.errors import DataError, MemControlError, ModelError
from memcontrol.pipeline import FrozenPipeline, LatentPipeline


def check_number(
    name: str, value: object, *, low: float, high: float = math.inf, below: float = math.inf, whole: bool = False
) -> None:
    """Nothing, where `value` is a finite number from `low` to `high`, both allowed, and below `below`.

    Raises:
        MemControlError: it is not, or is not whole where it has to be.
    """
    kind = int if whole else int | float
    if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high or not value < below:
        ends = [f" to {high:g}"] * (high < math.inf) + [f" to below {below:g}"] * (below < math.inf)
        upper = next(iter(ends), " or more")
        raise MemControlError(f"{name} is {value!r}: expected a {'whole ' if whole else ''}number, {low:g}{upper}")


def check_positive(name: str, value: object) -> None:
    """Nothing, where `value` is above 0; infinity is.

    Raises:
        MemControlError: it is not.
    """
    if isinstance(value, bool) or not (isinstance(value, int | float) and value > 0):
        raise MemControlError(f"{name} is {value!r}: expected a number above 0")


def captioned(frozen: FrozenPipeline, dataset: Dataset, mitigation: str) -> LatentPipeline:
    """The pipeline, where its U-Net takes text and the training images have captions.

    Raises:
        ModelError: the model takes no text.
        DataError: every caption is empty.
    """
    if not isinstance(frozen, LatentPipeline):
        raise ModelError(
            f"{mitigation} needs captions, and model {frozen.name} takes no text: use a text-conditional model, or a "
            "mitigation that needs no captions"
        )
    if not any(dataset.training.captions):
        raise DataError(
            f"{mitigation} needs captions, and none of the {len(dataset.training)} training images of {dataset.name} "
            "has one: name a caption column, or use a mitigation that needs no captions"
        )
    return frozen
