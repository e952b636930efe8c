"""Images to scores: each named `measure@encoder`, with a direction, the number of images and an interval."""

from __future__ import annotations

import importlib
import math
import numbers
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import Any, Literal, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from memcontrol.cache import Cache
from memcontrol.config import PRESETS
from memcontrol.data.images import Pixels
from memcontrol.encoders import ENCODERS, PLANNED_ENCODERS, Encoder, Features
from memcontrol.errors import MemControlError, nearest_names
from memcontrol.fingerprint import fingerprint
from memcontrol.metrics.copying import BETTER, Copying, measure_copying
from memcontrol.metrics.frechet import LeadingComponents, frechet_interval
from memcontrol.metrics.kernel import kernel_interval
from memcontrol.metrics.neighbours import nearest

Better = Literal["lower", "higher"]


@dataclass(frozen=True)
class Score:
    """One measured number.

    Attributes:
        value: the measured value.
        low, high: 95 % interval; what it covers is said by the measure's own function.
        n: generated images it was measured on.
        better: which direction is better.
        p: for copying measures, share of shuffled memberships that look at least as copied.
        null: 2.5, 50 and 97.5 % quantiles over shuffled memberships.
        raw: the value before `copy_gap` is clipped at its null median.
    """

    value: float
    low: float
    high: float
    n: int
    better: Better
    p: float | None = None
    null: tuple[float, float, float] | None = None
    raw: float | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON-ready content that `from_json` reads back; what is None is left out."""
        content = {key: value for key, value in asdict(self).items() if value is not None}
        return content | ({} if self.null is None else {"null": list(self.null)})

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Score:
        """A score from what `to_json` gave.

        Raises:
            MemControlError: a key that is missing or unknown, or a direction that is neither lower nor higher.
        """
        known, needed = {field.name for field in fields(cls)}, {"value", "low", "high", "n", "better"}
        if not needed <= set(content) <= known or content["better"] not in ("lower", "higher"):
            raise MemControlError(
                f"not a score: {dict(content)}; expected the keys {', '.join(sorted(needed))} "
                f"(and at most {', '.join(sorted(known - needed))}), better being lower or higher"
            )
        null = content.get("null")
        return cls(**{**content, "null": None if null is None else tuple(null)})


class Measure(NamedTuple):
    """What computes a measure, and which direction of it is better."""

    family: Literal["frechet", "kernel", "copying"]
    better: Better


class Compared(NamedTuple):
    """Which sets of `RealImages` a copying measure compares with."""

    training: str
    heldout: str
    calibration: str


VARIANTS: Mapping[str, Compared] = {
    "": Compared("training", "copying", "fidelity"),
    "_raw": Compared("training_raw", "copying_raw", "fidelity_raw"),
    "_same_subjects": Compared("training", "same_subjects", "fidelity"),
    "_same_subjects_raw": Compared("training_raw", "same_subjects_raw", "fidelity_raw"),
}
"""Endings of copying measures: `_raw` images did not pass the autoencoder; `_same_subjects` are other images of the
training set's own subjects."""

_COPYING = {measure + ending: (measure, ending) for ending in VARIANTS for measure in BETTER}

MEASURES: Mapping[str, Measure] = {
    "fd": Measure("frechet", "lower"),
    "kid": Measure("kernel", "lower"),
    **{name: Measure("copying", BETTER[measure]) for name, (measure, _) in _COPYING.items()},
}

LISTED = tuple(name for name in MEASURES if _COPYING.get(name, ("", ""))[1] == "")
"""What messages list: every measure without an ending."""

PLANNED = frozenset(
    {"fid", "mifid", "noise_magnitude", "extraction", "biovil_t", "clip_score", "membership_auc", "c_t", "authpct"}
)
"""Measures that arrive with later versions."""


def parse_name(name: str, encoders: Collection[str] = ENCODERS) -> tuple[str, str]:
    """`measure@encoder` -> (measure, encoder).

    Args:
        name: of a score.
        encoders: names of the encoders that may stand after `@`.
    Raises:
        MemControlError: another form, or a measure or encoder that does not exist or does not exist yet.
    """
    measure, separator, encoder = name.partition("@")
    # A name without an encoder may be meant for a set of objectives.
    measures = tuple(MEASURES) if separator else (*MEASURES, *PRESETS)
    for part, kind, planned, known, listed in (
        (measure, "measure", PLANNED, measures, LISTED),
        (encoder, "encoder", PLANNED_ENCODERS, tuple(encoders), tuple(encoders)),
    ):
        if kind == "encoder" and not separator:
            raise MemControlError(f'score "{name}" names no encoder: write {name}@{next(iter(known), "pixels")}')
        if part in planned and part not in known:
            raise MemControlError(f"{kind} {part} arrives with a later version; available: {', '.join(listed)}")
        if part not in known:
            raise MemControlError(f'unknown {kind} "{part}" in score "{name}": {nearest_names(part, known, listed)}')
    return measure, encoder


def direction(name: str) -> Better:
    """Which direction of a score is better, known before it is measured.

    Raises:
        MemControlError: a name that does not exist.
    """
    if ":" in name:
        better: Better = getattr(load_objective(name), "better", "lower")
        return better
    return MEASURES[parse_name(name)[0]].better


def is_raw(name: str) -> bool:
    """Whether a score compares with real images that did not pass the autoencoder."""
    return ":" not in name and parse_name(name)[0].endswith("_raw")


def minimised(score: Score) -> float:
    """The score's value, negated where higher is better."""
    return score.value if score.better == "lower" else -score.value


@dataclass(frozen=True)
class RealImages:
    """Every real image that generated ones are compared with, `(N, H, W, 3)` uint8 each.

    Without an autoencoder the images are what the U-Net sees of them, and the `_raw` ones are the same.

    Attributes:
        training: what the model was tuned on, through its autoencoder, else the autoencoder's blur hides copies.
        fidelity: held-out images for `fd` and `kid`, and to calibrate `nn_ratio_share`, through the autoencoder.
        copying: held-out images for copying measures, through the autoencoder.
        training_raw, fidelity_raw, copying_raw: the same images as they came.
        same_subjects, same_subjects_raw: other images of the training set's subjects, where the data has them.
    """

    training: Pixels
    fidelity: Pixels
    copying: Pixels
    training_raw: Pixels
    fidelity_raw: Pixels
    copying_raw: Pixels
    same_subjects: Pixels | None = None
    same_subjects_raw: Pixels | None = None


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


def check_counts(names: Collection[str], components: int, *, generated: int, reference: int) -> None:
    """Check that there will be images enough for the Fréchet distances among `names`, before anything is tuned.

    Raises:
        MemControlError: fewer generated or held-out images than components and one.
    """
    wanted = [name for name in names if ":" not in name and MEASURES[parse_name(name)[0]].family == "frechet"]
    for count, what, mend in (
        (generated, "generated images", "ask for more with --images"),
        (reference, "held-out images for fidelity", "give more data, or a smaller --train-size"),
    ):
        if wanted and count <= components:
            raise MemControlError(
                f"{wanted[0]} on {components} components needs {components + 1} {what} or more, got {count}: {mend}, "
                "or lower scoring.components in a --config file"
            )


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
            for part in VARIANTS[_COPYING[measure][1]] if measure in _COPYING else ():
                if getattr(real, part) is None:
                    raise MemControlError(f"score {name} needs {part} images, this data has none: drop that score")

    def __call__(self, images: Pixels) -> dict[str, Score]:
        """`(N, H, W, 3)` uint8 -> every score, in the order of `names`."""
        generated: dict[str, Features] = {}
        copying: dict[tuple[str, str], dict[str, Copying]] = {}
        scores = {}
        for name in self.names:
            if name in self._objectives:
                scores[name] = _custom_score(name, self._objectives[name], images, self.real)
                continue
            measure, encoder = self._parsed[name]
            if encoder not in generated:
                generated[encoder] = self._encode(images, encoder)
            if measure not in _COPYING:
                family = self._frechet if MEASURES[measure].family == "frechet" else self._kernel
                scores[name] = family(generated[encoder], encoder)
                continue
            base, ending = _COPYING[measure]
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


def _custom_score(name: str, objective: Objective, images: Pixels, real: RealImages) -> Score:
    value: object = objective(images, real)
    if isinstance(value, Score):
        return value
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise MemControlError(f"objective {name} returned {value!r}: expected one finite number or a Score")
    better: Better = getattr(objective, "better", "lower")
    return Score(float(value), float(value), float(value), len(images), better)
