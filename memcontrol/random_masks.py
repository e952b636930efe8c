"""Random masks of a mask's size: what shows whether it matters which groups train, or only how many numbers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from memcontrol.errors import MaskError
from memcontrol.mask import Mask
from memcontrol.mask_records import Trainable
from memcontrol.space import SearchSpace, validation_message

DRAWS = 1 << 14
"""Random masks that twins are chosen from; all masks, where a space has no more."""
CLOSE, TOLERANCE = 0.05, 0.25
"""Twins are any of those that train as many numbers to within the first share; where these are too few, the nearest
ones within the second."""
_STREAM = 401

Masks = NDArray[np.bool_]
"""`(N, G)`, a row for each mask and a column for each group."""


def random_twins(mask: Mask, count: int, *, seed: int, always: Collection[str] = ()) -> tuple[Mask, ...]:
    """Distinct random masks over the same groups that train nearly as many numbers, none of them `mask` itself.

    Rate, methods and settings are the mask's own, so that twin and mask differ by which groups are on alone. They are
    drawn from all that are close in size, not the closest ones, which would often be the mask itself but for its
    smallest groups.

    Args:
        seed: of the draws.
        always: names of groups that stay as they are, besides those that the mask's space always trains.

    Raises:
        MaskError: the mask trains nothing, or fewer such masks exist (or were drawn) than asked for.
    """
    if mask.learning_rate is None:
        raise MaskError(f"mask {mask.name} trains nothing: there are no random masks of its size")
    rng = np.random.default_rng([seed, _STREAM])
    free = _free_groups(mask, always)
    drawn = _drawn(mask, free, rng)
    numels = np.array([group.numel for group in mask.groups], dtype=np.int64)
    away = np.abs(drawn @ numels - mask.trainable.numel) / mask.trainable.numel
    near = np.flatnonzero(away <= TOLERANCE)
    if len(near) < count:
        whole = "there are" if 2 ** len(free) <= DRAWS else f"{DRAWS:,} draws gave"
        raise MaskError(
            f"mask {mask.name}: {count} random masks of {mask.trainable.numel:,} trained numbers to within "
            f"{TOLERANCE:.0%} were asked for, and {whole} {len(near)} over its {len(free)} groups: "
            "ask for fewer, or use a mask of a space with more groups"
        )
    close = rng.permutation(np.flatnonzero(away <= CLOSE))
    chosen = close[:count] if len(close) >= count else near[np.argsort(away[near], kind="stable")][:count]
    whence = {"random twin of": mask.name, "seed": seed}
    return tuple(
        switched(mask, drawn[i], name=f"{mask.name}-random-{number}", provenance=whence)
        for number, i in enumerate(chosen, start=1)
    )


def size_notes(name: str, mask: Mask, twins: Sequence[Mask]) -> tuple[str, ...]:
    """A sentence where some twins are not close in size, since what trains more learns and copies more.

    Args:
        name: of the mask, for the sentence.
    """
    shares = [twin.trainable.numel / mask.trainable.numel for twin in twins]
    if all(abs(share - 1) <= CLOSE for share in shares):
        return ()
    found = " to ".join(dict.fromkeys(f"{share:.0%}" for share in (min(shares), max(shares))))
    return (f"random masks of {name} train {found} of its numbers: too few of its space are within {CLOSE:.0%}",)


def always_trained(mask: Mask) -> frozenset[str]:
    """Names of the groups that the mask's space trains whatever a mask says.

    Raises:
        MaskError: the mask holds a search space that cannot be read.
    """
    try:
        space = SearchSpace.model_validate(mask.space.content)
    except ValidationError as error:
        raise MaskError(f"mask {mask.name}: its search space: {validation_message(error)}") from error
    # A parameter is in one part at most, so that a group's first says which part made it.
    parts = [part for part in space.parts if part.always]
    return frozenset(group.name for group in mask.groups if any(part.selects(group.parameters[0]) for part in parts))


def switched(mask: Mask, bits: Sequence[bool] | NDArray[np.bool_], *, name: str, provenance: Mapping[str, Any]) -> Mask:
    """The mask with other groups on, at the same learning rate, without scores.

    Args:
        bits: one for each group, whatever the space always trains among them.
    """
    groups = tuple(replace(group, on=bool(on)) for group, on in zip(mask.groups, bits, strict=True))
    numel = sum(group.numel for group in groups if group.on)
    percent = mask.trainable.percent * numel / mask.trainable.numel
    return replace(
        mask,
        name=name,
        groups=groups,
        trainable=Trainable(numel, percent),
        scores={},
        confirmed=None,
        provenance=dict(provenance),
    )


def _free_groups(mask: Mask, always: Collection[str]) -> list[int]:
    """Positions of the groups that a twin may switch."""
    kept = always_trained(mask) | set(always)
    return [i for i, group in enumerate(mask.groups) if group.name not in kept]


def _drawn(mask: Mask, free: list[int], rng: np.random.Generator) -> Masks:
    """Distinct masks in random order, without `mask` and the one that switches everything off."""
    own = np.array(mask.bits)
    if 2 ** len(free) <= DRAWS:
        bits = (np.arange(2 ** len(free))[:, None] >> np.arange(len(free))) % 2 == 1
    else:
        # Every share of groups is as likely as any other, so that small and large masks are drawn as often.
        bits = rng.random((DRAWS, len(free))) < rng.random((DRAWS, 1))
    masks = np.tile(own, (len(bits), 1))
    masks[:, free] = bits
    masks = np.unique(masks, axis=0)
    masks = masks[masks.any(axis=1) & (masks != own).any(axis=1)]
    return rng.permutation(masks)
