"""Names of scores, `measure@encoder`: which there are, and what each compares."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal, NamedTuple

from memcontrol.config import PRESETS
from memcontrol.encoders import ENCODERS, PLANNED_ENCODERS
from memcontrol.errors import MemControlError, nearest_names
from memcontrol.metrics.copying import BETTER
from memcontrol.score.objectives import load_objective
from memcontrol.score.value import Better


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

COPYING_MEASURES: Mapping[str, tuple[str, str]] = {
    measure + ending: (measure, ending) for ending in VARIANTS for measure in BETTER
}
"""Every copying measure with its ending -> the measure and the ending apart."""

MEASURES: Mapping[str, Measure] = {
    "fd": Measure("frechet", "lower"),
    "kid": Measure("kernel", "lower"),
    **{name: Measure("copying", BETTER[measure]) for name, (measure, _) in COPYING_MEASURES.items()},
}

LISTED = tuple(name for name in MEASURES if COPYING_MEASURES.get(name, ("", ""))[1] == "")
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
