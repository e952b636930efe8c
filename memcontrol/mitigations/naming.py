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
    make, chosen = MITIGATIONS[name], {}
    known = strengths(name)
    for item in filter(None, settings.split(",")):
        key, separator, value = item.partition("=")
        if not separator or key not in known:
            raise MemControlError(f'mitigation {name} has no strength "{item}": {nearest_names(key, known, known)}')
        chosen[key] = _value(value)
    try:
        return make(**chosen)
    except TypeError as error:
        raise MemControlError(f"mitigation {text}: {error}: give numbers, as {name}:{known[0]}=1") from error


def strengths(name: str) -> tuple[str, ...]:
    """The settings of a mitigation that text can give: those that are numbers, switched off by `none`."""
    make: Any = MITIGATIONS[name]
    base = make.args[0] if isinstance(make, partial) and make.args else None
    parameters = inspect.signature(type(base) if base is not None else make).parameters.values()
    numbers = (p for p in parameters if "tuple" not in str(p.annotation))
    return tuple(p.name for p in numbers if isinstance(p.default, int | float) or p.default is None)


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
