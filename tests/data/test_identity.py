"""A data set's hash changes with anything that tuning or scoring would see."""

from dataclasses import replace

import numpy as np
import pytest

from memcontrol.data.identity import HASHED_IMAGES, dataset_fingerprint, images_fingerprint
from memcontrol.data.images import Dataset, HeldOut, images_from_array


def make(count=6, *, start=0, caption="c", subjects=None):
    pixels = np.random.default_rng(start).integers(0, 256, (count, 2, 2, 3), dtype=np.uint8)
    return pixels, images_from_array(
        pixels, [f"{caption}{i}" for i in range(count)], keys=[f"k{i}" for i in range(count)], subjects=subjects
    )


def test_images_fingerprint_sees_everything():
    same = images_fingerprint(make()[1])
    assert same == images_fingerprint(make()[1])
    changed, images = make()
    changed[5, 1, 1, 2] ^= 1
    others = [
        images,
        make(start=1)[1],
        make(caption="d")[1],
        make(subjects=["s"] * 6)[1],
        make()[1].take([1, 0, 2, 3, 4, 5]),
        make()[1].take(range(5)),
        replace(make()[1], keys=tuple("abcdef")),
    ]
    assert len({same, *map(images_fingerprint, others)}) == len(others) + 1


def test_pixels_are_read_in_chunks_and_large_sets_are_thinned():
    asked = []
    count = 3 * HASHED_IMAGES
    images = images_from_array(np.zeros((1, 2, 2, 3), np.uint8), ["c"] * count, keys=[str(i) for i in range(count)])

    def read(positions):
        asked.append(np.asarray(positions))
        return np.zeros((len(positions), 2, 2, 3), dtype=np.uint8)

    thinned = replace(images, read=read)
    images_fingerprint(thinned)
    positions = np.concatenate(asked)
    assert max(map(len, asked)) <= 256
    assert len(positions) == len(set(positions.tolist())) == HASHED_IMAGES
    assert (positions.min(), positions.max()) == (0, count - 1)
    assert np.diff(positions).max() <= 4
    renamed = replace(thinned, keys=("x", *thinned.keys[1:]))
    assert images_fingerprint(renamed) != images_fingerprint(thinned)


@pytest.fixture
def dataset():
    sets = [make(start=i)[1] for i in range(4)]
    return Dataset("name", 2, sets[0], np.ones(6, dtype=np.int64), HeldOut(sets[1], sets[2], sets[3]))


def test_dataset_fingerprint_sees_every_set(dataset):
    held, other = dataset.heldout, make(start=9)[1]
    changed = [
        replace(dataset, training=other),
        replace(dataset, repeats=np.array([2, 1, 1, 1, 1, 1])),
        replace(dataset, resolution=4),
        replace(dataset, same_subjects=other),
        replace(dataset, heldout=replace(held, fidelity=other)),
        replace(dataset, heldout=replace(held, copying=other)),
        replace(dataset, heldout=replace(held, confirmation=other)),
        replace(dataset, heldout=HeldOut(held.copying, held.fidelity, held.confirmation)),
    ]
    assert len({dataset_fingerprint(d) for d in [dataset, *changed]}) == len(changed) + 1


def test_dataset_fingerprint_leaves_out_name_and_notes(dataset):
    assert dataset_fingerprint(replace(dataset, name="other", notes=("n",))) == dataset_fingerprint(dataset)
