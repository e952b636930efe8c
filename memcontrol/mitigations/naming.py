"""Mitigations by name: `name`, or `name:strength=value,strength=value`."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from memcontrol.errors import MemControlError, nearest_names
from memcontrol.mitigations.captions import RT, RWA, RandomNumbers, RandomWords, RepeatedWords
from memcontrol.mitigations.deduplication import Deduplication
from memcontrol.mitigations.differential_privacy import DifferentialPrivacy
from memcontrol.mitigations.early_stopping import EarlyStopping
from memcontrol.mitigations.embedding_noise import EmbeddingNoise
from memcontrol.mitigations.fewer_steps import FewerSteps
from memcontrol.mitigations.iet_agc import IterativeEnsemble
from memcontrol.mitigations.inference import InferenceNoise, InferenceOptimisation
from memcontrol.mitigations.loss_bank import AntiGradientControl
from memcontrol.mitigations.other_captions import OtherCaption
from memcontrol.mitigations.threshold import Threshold
from memcontrol.mitigations.threshold_augmentation import ThresholdAugmentation
from memcontrol.mitigations.weight_decay import DecayToStart

Mitigation = (
    RandomWords
    | RandomNumbers
    | RepeatedWords
    | OtherCaption
    | EmbeddingNoise
    | Threshold
    | InferenceNoise
    | InferenceOptimisation
    | IterativeEnsemble
    | EarlyStopping
    | Deduplication
    | DecayToStart
    | FewerSteps
    | DifferentialPrivacy
)
"""Any mitigation: a frozen object of its strengths."""


def _ensemble(
    shards: int = 4, rounds: int = 10, m: float | None = 1.25, width: int = 1, moved: float = 0.0
) -> IterativeEnsemble:
    if m is None and width != 1:
        raise MemControlError(
            f"width {width} is of the control, which m=none leaves out: give an m, or leave width out"
        )
    control = None if m is None else AntiGradientControl(m, width=width)
    return IterativeEnsemble(shards, rounds, control, moved, ThresholdAugmentation() if moved else None)


MITIGATIONS: Mapping[str, Callable[..., Mitigation]] = {
    "rwa": partial(replace, RWA),
    "rt": partial(replace, RT),
    "random-numbers": RandomNumbers,
    "repeated-words": RepeatedWords,
    "other-caption": OtherCaption,
    "embedding-noise": EmbeddingNoise,
    "threshold": Threshold,
    "agc": partial(_ensemble, shards=1, rounds=1),
    "iet": partial(_ensemble, m=None),
    "iet-agc": _ensemble,
    "iet-agc-plus": partial(_ensemble, moved=0.25),
    "inference-noise": InferenceNoise,
    "inference-optimisation": InferenceOptimisation,
    "early-stopping": EarlyStopping,
    "deduplication": Deduplication,
    "weight-decay": DecayToStart,
    "fewer-steps": FewerSteps,
    "dp-sgd": DifferentialPrivacy,
}
"""From a name to what makes the mitigation of its strengths. The ensembles have `m` and shards as published for Stable
Diffusion, and ten rounds; "plus" redistributes and augments."""


def load_mitigation(text: str) -> Mitigation:
    """The mitigation that `name` or `name:strength=value,...` names.

    Raises:
        MemControlError: no such mitigation or strength, or a value that it does not allow.
    """
    name, _, settings = text.partition(":")
    if name not in MITIGATIONS:
        raise MemControlError(f'unknown mitigation "{name}": {nearest_names(name, MITIGATIONS, MITIGATIONS)}')
    known, chosen = _kinds(name), dict[str, int | float | None]()
    for item in filter(None, settings.split(",")):
        key, separator, value = item.partition("=")
        if not separator or key not in known:
            raise MemControlError(f'mitigation {name} has no strength "{item}": {nearest_names(key, known, known)}')
        if key in chosen:
            raise MemControlError(f"mitigation {text}: {key} is given twice: give each strength once")
        chosen[key] = _value(value)
        if chosen[key] is None and "None" not in known[key]:
            raise MemControlError(f"mitigation {text}: {key} is none: expected a number")
    return MITIGATIONS[name](**chosen)


def strengths(name: str) -> tuple[str, ...]:
    """The settings of a mitigation that text can give: those that are numbers, switched off by `none`."""
    return tuple(_kinds(name))


def _kinds(name: str) -> dict[str, str]:
    """Each setting that is a number -> its type as its mitigation states it, such as `int | None`."""
    make: Any = MITIGATIONS[name]
    # `rwa` and `rt` are made from an object of a mitigation, by replacing some of its strengths.
    made_from = make.args[0] if isinstance(make, partial) and make.args else None
    parameters = inspect.signature(make if made_from is None else type(made_from)).parameters.values()
    kinds = {parameter.name: str(parameter.annotation) for parameter in parameters}
    return {key: kind for key, kind in kinds.items() if kind.removesuffix(" | None") in ("int", "float")}


def _value(text: str) -> int | float | None:
    if text == "none":
        return None
    try:
        return int(text)
    except ValueError:
        pass
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isnan(value):
        raise MemControlError(f'strength "{text}" of a mitigation: expected a number, inf or none')
    return value
