"""Names of scores, `measure@source`: which there are, and what each needs."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from memcontrol.encoders import ENCODERS
from memcontrol.errors import MemControlError, nearest_names
from memcontrol.measures import COPYING, FIDELITY, FROM_MODEL, MEASURES, OTHERS, PRESETS, Better, Family, full_name
from memcontrol.metrics.full_frechet import FEWEST, SIZES_PER_FEATURE
from memcontrol.score.objectives import load_objective

FEW = 8
"""Images that any measure of fidelity needs on either side."""
INCEPTION_FEATURES = 2048
LISTED = (*OTHERS, *COPYING)
"""What messages list: every measure without an ending."""


def parse_name(name: str, encoders: Collection[str] = ENCODERS) -> tuple[str, str]:
    """`measure@source` -> (measure, source); a source that is left out is the measure's usual one.

    Args:
        name: of a score.
        encoders: names of the encoders that may stand after `@`.
    Raises:
        MemControlError: another form, a measure or source that does not exist, or a source that is not the measure's.
    """
    measure, separator, source = full_name(name).partition("@")
    if measure not in MEASURES:
        # A name without a source may be meant for a set of objectives.
        known = tuple(MEASURES) if separator else (*MEASURES, *PRESETS)
        raise MemControlError(f'unknown measure "{measure}" in score "{name}": {nearest_names(measure, known, LISTED)}')
    own = MEASURES[measure].sources
    if own is not None and source not in own:
        raise MemControlError(
            f'score "{name}": {measure} is measured on {" or ".join(own)}: write {full_name(measure)}'
        )
    if own is None and source not in encoders:
        raise MemControlError(f'unknown encoder "{source}" in score "{name}": {nearest_names(source, encoders)}')
    return measure, source


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


def from_model(name: str) -> bool:
    """Whether a score asks the model itself, and not generated images alone."""
    return ":" not in name and MEASURES[parse_name(name)[0]].family in FROM_MODEL


def is_fidelity(name: str) -> bool:
    """Whether a score compares generated images with held-out ones for fidelity: a distance, or a share of images."""
    return ":" not in name and MEASURES[parse_name(name)[0]].family in FIDELITY


def encoder_names(names: Collection[str]) -> list[str]:
    """The encoders that scores need, sorted."""
    return sorted({parse_name(name)[1] for name in names if ":" not in name and not from_model(name)})


def check_counts(names: Collection[str], components: int, *, generated: int, reference: int) -> None:
    """Check that a search will have images enough for the fidelity scores among `names`, before anything is tuned.

    Raises:
        MemControlError: fewer generated or held-out images than a measure needs.
    """
    for name in names:
        short = shortage(name, components, generated=generated, reference=reference)
        if short is not None:
            more = "ask for more with --images" if short.generated else "give more data, or a smaller --train-size"
            lower = ", or lower scoring.components in a --config file" if short.by_components else ""
            raise MemControlError(f"{short.reason}: {more}{lower}")


@dataclass(frozen=True)
class Shortage:
    """Images that a score lacks.

    Attributes:
        reason: what is needed and what there is, without advice, which depends on the command.
        generated: whether generated images are too few, rather than held-out ones.
        by_components: whether fewer components would do with fewer images.
    """

    reason: str
    generated: bool
    by_components: bool


def shortage(name: str, components: int, *, generated: int, reference: int) -> Shortage | None:
    """What a score of fidelity lacks, given so many generated and held-out images; None for any other score.

    Args:
        components: leading components on which Fréchet distances are computed.
    """
    family = None if ":" in name else MEASURES[parse_name(name)[0]].family
    if family is None or family not in FIDELITY:
        return None
    by_components = family in ("frechet", "extrapolated")
    on = f" on {components} components" if by_components else ""
    for count, needed, what in (
        (generated, _least_generated(family, components), "generated images"),
        (reference, components + 1 if by_components else FEW, "held-out images for fidelity"),
    ):
        if count < needed:
            reason = f"{name}{on} needs {needed} {what} or more, got {count}"
            return Shortage(reason, what == "generated images", by_components)
    return None


def _least_generated(family: Family, components: int) -> int:
    if family == "extrapolated":
        return max(FEWEST, 2 * SIZES_PER_FEATURE * components)
    if family == "full-extrapolated":
        return 2 * SIZES_PER_FEATURE * INCEPTION_FEATURES
    return components + 1 if family == "frechet" else FEW
