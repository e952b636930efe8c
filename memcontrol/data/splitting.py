"""A finite pool of images to a training set and three disjoint held-out sets, by subject where there are subjects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from memcontrol.config import DataConfig
from memcontrol.data.images import Dataset, HeldOut
from memcontrol.data.notes import (
    COPYING_FACTOR,
    content_notes,
    counted,
    exclusion_notes,
    repeat_notes,
    split_notes,
)
from memcontrol.data.pool import Pool
from memcontrol.data.repeats import repeat_counts
from memcontrol.errors import DataError

FEWEST = 2
"""Images that any set must have."""
_STREAM = 10


@dataclass(frozen=True)
class _Parts:
    """Positions of a pool."""

    training: list[int]
    fidelity: list[int]
    copying: list[int]
    confirmation: list[int]
    same_subjects: list[int]

    def held_out(self) -> list[int]:
        return self.fidelity + self.copying + self.confirmation + self.same_subjects


@dataclass(frozen=True)
class _Excluded:
    """Positions that no set may hold: images that do not decode, and held-out copies of training images."""

    bad: frozenset[int] = frozenset()
    copies: frozenset[int] = frozenset()


def check_sizes(config: DataConfig) -> None:
    """Raises DataError where a set is asked for with fewer than two images."""
    for name in ("train_size", "fidelity", "copying_size", "confirmation"):
        if getattr(config, name) < FEWEST:
            what = name.removesuffix("_size") if name == "copying_size" else name
            raise DataError(f"{what} is {getattr(config, name)}: every set needs at least {FEWEST} images")


def heldout_sizes(available: int, asked: tuple[int, int, int], train_size: int) -> tuple[int, int, int]:
    """How many of the `available` images go to fidelity, copying and confirmation.

    As many as asked for where there are enough. Otherwise in proportion, with copying weighted twice, and raised to
    eight times the training set where the other two then keep at least an eighth of the images each. Never under two.
    """
    if sum(asked) <= available:
        return asked
    if available <= 3 * FEWEST:
        return FEWEST, FEWEST, FEWEST
    fidelity, copying, confirmation = asked
    share = round(available * 2 * copying / (fidelity + 2 * copying + confirmation))
    wanted = COPYING_FACTOR * train_size
    if share < wanted <= available - 2 * (available // 8):
        share = wanted
    share = max(FEWEST, min(share, copying, available - 2 * FEWEST))
    others = available - share
    first = round(others * fidelity / (fidelity + confirmation))
    first = max(FEWEST, min(first, fidelity, others - FEWEST))
    return first, share, min(others - first, confirmation)


def split_pool(
    pool: Pool, config: DataConfig, *, resolution: int, seed: int, per_subject: int | None = None
) -> Dataset:
    """A pool as a `Dataset`: which image goes where is a pure function of the pool, `config` and `seed`.

    No subject is in two sets; images left over from the training subjects become `same_subjects`. Where the pool has
    splits, training comes from `train` alone and the held-out sets from `validation` and `test` alone. Every image that
    is used has been decoded once, and exact copies of training images are kept out of the held-out sets.

    Args:
        per_subject: most training images of one subject, or None for all that it has.

    Raises:
        DataError: too few images or subjects, or an image that does not decode (unless they are skipped).
    """
    check_sizes(config)
    parts, excluded, digests = _settled(pool, config, seed, per_subject)
    duplicates = len(parts.training) - len({digests[i] for i in parts.training})
    repeats = repeat_counts(len(parts.training), config.repeat, seed=seed)
    take = pool.images.take
    return Dataset(
        name=pool.name,
        resolution=resolution,
        training=take(parts.training),
        repeats=repeats,
        heldout=HeldOut(take(parts.fidelity), take(parts.copying), take(parts.confirmation)),
        same_subjects=take(parts.same_subjects) if len(parts.same_subjects) >= FEWEST else None,
        notes=(
            *(pool.sources or content_notes(pool.name, pool.images)),
            *pool.notes,
            *_split_notes(pool, config, parts),
            *exclusion_notes([pool.images.keys[i] for i in sorted(excluded.bad)], len(excluded.copies), duplicates),
            *repeat_notes(repeats.tolist()),
        ),
    )


def _split_notes(pool: Pool, config: DataConfig, parts: _Parts) -> list[str]:
    how = "by image" if pool.images.subjects is None else "by subject"
    if pool.splits is not None:
        how += ", the two sources apart" if pool.sources else ", train apart from validation and test"
    got = (len(parts.fidelity), len(parts.copying), len(parts.confirmation))
    same = len(parts.same_subjects) if len(parts.same_subjects) >= FEWEST else 0
    return split_notes(how, len(parts.training), got, (config.fidelity, config.copying_size, config.confirmation), same)


def _settled(
    pool: Pool, config: DataConfig, seed: int, per_subject: int | None
) -> tuple[_Parts, _Excluded, dict[int, str]]:
    """Parts in which every image decodes and no held-out image is a copy of a training image."""
    order = _group_order(pool, seed)
    excluded = _Excluded()
    digests: dict[int, str] = {}
    while True:
        parts = _assigned(pool, order, config, excluded, per_subject)
        if parts is None:
            raise _too_few(pool, order, config, excluded, per_subject)
        # Training first: only when it is settled is it known what a copy of it is.
        bad = _undecodable(pool, parts.training, digests, config)
        bad = bad or _undecodable(pool, parts.held_out(), digests, config)
        known = {digests.get(i) for i in parts.training}
        copies = set() if bad else {i for i in parts.held_out() if digests[i] in known}
        if not bad and not copies:
            return parts, excluded, digests
        excluded = replace(excluded, bad=excluded.bad | bad, copies=excluded.copies | copies)


def _undecodable(pool: Pool, positions: Sequence[int], digests: dict[int, str], config: DataConfig) -> set[int]:
    """Adds the digests that are missing; gives the positions that have none because they do not decode."""
    bad: set[int] = set()
    for position in positions:
        if position in digests:
            continue
        try:
            digests[position] = pool.digest(position)
        except DataError:
            if config.bad_images == "error":
                raise
            bad.add(position)
    return bad


def _group_order(pool: Pool, seed: int) -> list[list[int]]:
    """The images of each subject (or each image alone), subjects and images within them in random order."""
    rng = np.random.default_rng([seed, _STREAM])
    shuffled = rng.permutation(len(pool.images)).tolist()
    if pool.images.subjects is None:
        return [[position] for position in shuffled]
    groups: dict[str, list[int]] = {subject: [] for subject in sorted(set(pool.images.subjects))}
    for position in shuffled:
        groups[pool.images.subjects[position]].append(position)
    listed = list(groups.values())
    return [listed[i] for i in rng.permutation(len(listed))]


def _assigned(
    pool: Pool, order: list[list[int]], config: DataConfig, excluded: _Excluded, per_subject: int | None
) -> _Parts | None:
    """Whole groups to training until it is full, then to the held-out sets; None where a set stays too small."""
    left_out = excluded.bad | excluded.copies
    training: list[int] = []
    same: list[int] = []
    others: list[list[int]] = []
    for group in order:
        usable = [i for i in group if i not in left_out]
        eligible = [i for i in usable if pool.splits is None or pool.splits[i] == "train"]
        chosen = eligible[: min(config.train_size - len(training), per_subject or len(eligible))]
        if chosen:
            training += chosen
            same += sorted(set(usable) - set(chosen))
        else:
            others.append([i for i in usable if pool.splits is None or pool.splits[i] != "train"])
    sets = _shared_out(others, config)
    if min(len(positions) for positions in sets) < FEWEST:  # large groups first leave the small ones to fill up with
        sets = _shared_out(sorted(others, key=len, reverse=True), config)
    if len(training) < config.train_size or min(len(positions) for positions in sets) < FEWEST:
        return None
    return _Parts(training, sets[0], sets[1], sets[2], same_subjects=same)


def _shared_out(groups: list[list[int]], config: DataConfig) -> list[list[int]]:
    """Whole groups to fidelity, copying and confirmation: first to a set under its minimum, then to the least full."""
    asked = (config.fidelity, config.copying_size, config.confirmation)
    targets = heldout_sizes(sum(len(group) for group in groups), asked, config.train_size)
    sets: list[list[int]] = [[], [], []]
    for group in filter(None, groups):
        open_sets = [k for k in range(3) if len(sets[k]) < max(targets[k], FEWEST)]
        if not open_sets:
            break
        k = min(open_sets, key=lambda k: (len(sets[k]) >= FEWEST, len(sets[k]) / max(targets[k], FEWEST)))
        sets[k] += group[: asked[k] - len(sets[k])]
    return sets


def _too_few(
    pool: Pool, order: list[list[int]], config: DataConfig, excluded: _Excluded, per_subject: int | None
) -> DataError:
    """The error for a pool that is too small, with the largest training size that would do."""

    def largest(factor: int) -> int | None:
        """The largest training size with `factor` times as many images for copying; None where none has them."""

        def works(size: int) -> bool:
            parts = _assigned(pool, order, config.model_copy(update={"train_size": size}), excluded, per_subject)
            return parts is not None and len(parts.copying) >= factor * size

        found, beyond = FEWEST, config.train_size
        while beyond - found > 1:
            middle = (found + beyond) // 2
            found, beyond = (middle, beyond) if works(middle) else (found, middle)
        return found if works(found) else None

    most, advised = largest(0), largest(COPYING_FACTOR)
    subjects = pool.images.subjects
    whole = "" if subjects is None else ", no subject in two sets"
    if pool.sources:
        mend = "give more held-out images, of subjects that are not in training"
    elif most:
        mend = f"use --train-size {most} or less"
        mend += f", better {advised} or less, to have enough to compare with" if advised else ""
    elif pool.splits is not None:
        mend = "add images, or drop the splits to split at random"
    else:
        mend = "add images" if subjects is None else "add subjects, or remove the subject column to split by image"
    return DataError(
        f"{pool.name}: {_found(pool, excluded)}; needed: {config.train_size} for training and at least {FEWEST} in "
        f"each of three held-out sets ({config.train_size + 3 * FEWEST} in all{whole}): {mend}"
    )


def _found(pool: Pool, excluded: _Excluded) -> str:
    text = f"found {counted(len(pool.images), 'image')}"
    if pool.images.subjects is not None:
        text += f" of {counted(len(set(pool.images.subjects)), 'subject')}"
    if pool.splits is not None:
        train = pool.splits.count("train")
        names = ("training", "held-out") if pool.sources else ("train", "validation and test")
        text += f", {train} in {names[0]} and {len(pool.splits) - train} in {names[1]}"
    if excluded.bad:
        text += f", {len(excluded.bad)} of them not decoding"
    if excluded.copies:
        text += f", {len(excluded.copies)} of them exact copies of training images"
    return text
