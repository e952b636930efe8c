"""A user's own objective: a callable of generated and real images, named `module:function`."""

from __future__ import annotations

import importlib
import math
import numbers
from collections.abc import Callable
from typing import cast

from memcontrol.data.images import Pixels
from memcontrol.errors import MemControlError, nearest_names
from memcontrol.measures import Better
from memcontrol.score.real import RealImages
from memcontrol.score.value import Score

Objective = Callable[[Pixels, RealImages], "float | Score"]
"""A user's own objective; an attribute `better` ("lower" unless set) gives the direction of a plain number."""


def load_objective(name: str) -> Objective:
    """The callable that `module:function` names.

    Raises:
        MemControlError: the module cannot be imported, has no such callable, or `better` is not a direction.
    """
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (ImportError, ValueError) as error:
        raise MemControlError(
            f"objective {name}: cannot import {module_name!r} ({error}): write module:function, folder on PYTHONPATH"
        ) from error
    found = getattr(module, attribute, None)
    if not callable(found):
        functions = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise MemControlError(
            f'objective {name}: no callable "{attribute}" in {module_name}: {nearest_names(attribute, functions)}'
        )
    if getattr(found, "better", "lower") not in ("lower", "higher"):
        raise MemControlError(f"objective {name}: better is {found.better!r}, expected lower or higher")
    return cast(Objective, found)


def custom_score(name: str, objective: Objective, images: Pixels, real: RealImages) -> Score:
    """What a user's objective gives, as a score.

    Raises:
        MemControlError: it is neither a finite number nor a `Score`.
    """
    value: object = objective(images, real)
    if isinstance(value, Score):
        return value
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise MemControlError(f"objective {name} returned {value!r}: expected one finite number or a Score")
    better: Better = getattr(objective, "better", "lower")
    return Score(float(value), float(value), float(value), len(images), better)
