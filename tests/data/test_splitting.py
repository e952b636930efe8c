"""Finite pools are split without a subject, an image or an exact copy in two sets."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from memcontrol.config import DataConfig
from memcontrol.data.images import images_from_array
from memcontrol.data.pool import Pool, memory_pool
from memcontrol.data.splitting import heldout_sizes, split_pool
from memcontrol.errors import DataError


def make_pool(
    count: int, *, subjects: list[str] | None = None, splits: list[str] | None = None, same: dict | None = None
):
    """A pool of distinct 2x2 images; `same` gives some positions the picture of another."""
    pixels = np.zeros((count, 2, 2, 3), dtype=np.uint8)
    for i in range(count):
        shown = (same or {}).get(i, i)
        pixels[i] = [[[shown % 256] * 3, [shown // 256] * 3]] * 2
    images = images_from_array(
        pixels, [f"c{i}" for i in range(count)], keys=[f"k{i}" for i in range(count)], subjects=subjects
    )
    return replace(memory_pool("pool", images), splits=None if splits is None else tuple(splits))


def parts(dataset):
    held = dataset.heldout
    named = {
        "training": dataset.training,
        "fidelity": held.fidelity,
        "copying": held.copying,
        "confirmation": held.confirmation,
    }
    return named | ({} if dataset.same_subjects is None else {"same_subjects": dataset.same_subjects})


def split(pool, seed=0, **settings):
    per_subject = settings.pop("per_subject", None)
    return split_pool(pool, DataConfig(**settings), resolution=2, seed=seed, per_subject=per_subject)


def keys(dataset):
    return {name: images.keys for name, images in parts(dataset).items()}


def test_sets_have_the_sizes_asked_and_share_no_image():
    dataset = split(make_pool(300), train_size=20, fidelity=30, copying=160, confirmation=40)
    assert dataset.counts() == {"training": 20, "fidelity": 30, "copying": 160, "confirmation": 40}
    assert max(Counter(key for part in keys(dataset).values() for key in part).values()) == 1
    assert dataset.same_subjects is None
    assert "split by image: 20 training; held out: 30 fidelity, 160 copying, 40 confirmation" in dataset.notes


def test_captions_and_pixels_stay_with_their_keys():
    training = split(make_pool(60), train_size=10).training
    for key, caption, pixels in zip(training.keys, training.captions, training.pixels(), strict=True):
        assert caption == f"c{key[1:]}"
        assert pixels[0, 0, 0] == int(key[1:])


@pytest.mark.parametrize("subjects", [None, [f"s{i // 3}" for i in range(120)]])
def test_one_seed_gives_one_split_and_another_seed_another(subjects):
    pool = make_pool(120, subjects=subjects)
    assert keys(split(pool, seed=3)) == keys(split(pool, seed=3))
    first, second = keys(split(pool, seed=3)), keys(split(pool, seed=4))
    for name in ("training", "fidelity", "copying", "confirmation"):
        assert set(first[name]) != set(second[name])


@pytest.mark.parametrize("seed", range(8))
def test_no_subject_is_in_two_sets(seed):
    sizes = np.random.default_rng(seed).integers(1, 9, 30)
    subjects = [f"s{i}" for i, size in enumerate(sizes) for _ in range(size)]
    dataset = split(make_pool(len(subjects), subjects=subjects), seed=seed, train_size=10)
    owners = {name: set(images.subjects) for name, images in parts(dataset).items() if name != "same_subjects"}
    assert sum(len(people) for people in owners.values()) == len(set.union(*owners.values()))
    assert len(dataset.training) == 10
    if dataset.same_subjects is not None:
        assert set(dataset.same_subjects.subjects) <= owners["training"]
        assert not set(dataset.same_subjects.keys) & set(dataset.training.keys)
    assert "10 training" in dataset.notes[1]
    assert dataset.notes[1].startswith("split by subject")
    assert dataset.notes[0].endswith("30 subjects")


def test_images_left_over_from_training_subjects_become_same_subjects():
    subjects = [f"s{i // 10}" for i in range(100)]
    dataset = split(make_pool(100, subjects=subjects), train_size=14)
    assert len(dataset.same_subjects) == 6
    assert "6 other images of training subjects" in dataset.notes[1]
    assert split(make_pool(100, subjects=subjects), train_size=20).same_subjects is None
    assert split(make_pool(100, subjects=subjects), train_size=19).same_subjects is None  # one image is no set


def test_per_subject_spreads_training_over_more_subjects():
    pool = make_pool(100, subjects=[f"s{i // 10}" for i in range(100)])
    dataset = split(pool, train_size=9, per_subject=3)
    assert sorted(Counter(dataset.training.subjects).values()) == [3, 3, 3]
    assert len(dataset.same_subjects) == 21


@pytest.mark.parametrize("seed", range(8))
def test_one_large_subject_does_not_starve_the_held_out_sets(seed):
    subjects = ["t"] * 2 + ["large"] * 10 + ["a", "b", "c", "d"]
    dataset = split(make_pool(16, subjects=subjects, splits=["train"] * 2 + ["test"] * 14), seed=seed, train_size=2)
    assert sorted(dataset.counts().values()) == [2, 2, 2, 10]


def test_splits_are_kept():
    splits = ["train"] * 50 + ["validation"] * 20 + ["test"] * 30
    dataset = split(make_pool(100, splits=splits), train_size=20)
    assert all(int(key[1:]) < 50 for key in dataset.training.keys)
    for name in ("fidelity", "copying", "confirmation"):
        assert all(int(key[1:]) >= 50 for key in keys(dataset)[name])
    assert sum(len(keys(dataset)[name]) for name in ("fidelity", "copying", "confirmation")) == 50


def test_a_training_subject_in_the_test_split_is_not_held_out():
    subjects = ["both"] * 6 + [f"t{i}" for i in range(10)] + [f"h{i}" for i in range(20)]
    splits = ["train"] * 3 + ["test"] * 3 + ["train"] * 10 + ["test"] * 20
    dataset = split(make_pool(36, subjects=subjects, splits=splits), train_size=13)
    assert "both" in dataset.training.subjects
    for name in ("fidelity", "copying", "confirmation"):
        assert "both" not in parts(dataset)[name].subjects
    assert set(dataset.same_subjects.keys) == {"k3", "k4", "k5"}


@pytest.mark.parametrize("available", [6, 7, 10, 47, 500, 1000, 1535, 1536, 5000])
@pytest.mark.parametrize("asked", [(512, 512, 512), (2, 512, 2), (100, 10, 900), (64, 512, 64)])
@pytest.mark.parametrize("train_size", [2, 32, 100])
def test_heldout_sizes_fit(available, asked, train_size):
    sizes = heldout_sizes(available, asked, train_size)
    assert sum(sizes) <= available
    assert all(2 <= size <= most for size, most in zip(sizes, asked, strict=True))
    if sum(asked) <= available:
        assert sizes == asked
    elif asked == (512, 512, 512):
        assert sum(sizes) == available
        assert sizes[1] == max(sizes)
        assert abs(sizes[0] - sizes[2]) <= 1


def test_copying_is_eight_times_training_where_possible():
    asked = (512, 512, 512)
    assert heldout_sizes(400, asked, 10) == (100, 200, 100)
    assert heldout_sizes(400, asked, 32) == (72, 256, 72)
    assert heldout_sizes(400, asked, 60) == (100, 200, 100)  # out of reach, so the others are not starved


def test_a_copying_set_that_is_small_is_said():
    assert any("copying set has 36 images: 144 or more" in note for note in split(make_pool(90), train_size=18).notes)
    assert not any("copying set" in note for note in split(make_pool(90), train_size=5).notes)


def test_exact_copies_of_training_images_are_not_held_out():
    pool = make_pool(100, same={i: i % 25 for i in range(50)})
    dataset = split(pool, train_size=20)
    pictures = {name: {image.tobytes() for image in images.pixels()} for name, images in parts(dataset).items()}
    for name in ("fidelity", "copying", "confirmation"):
        assert not pictures[name] & pictures["training"]
    duplicates = 20 - len(pictures["training"])
    inside = "1 exact duplicate" if duplicates == 1 else f"{duplicates or 'no'} exact duplicates"
    assert f"{inside} within the training set" in dataset.notes
    assert any(note.startswith("kept ") and "exact cop" in note for note in dataset.notes)


def test_duplicates_within_training_are_counted():
    splits = ["train"] * 6 + ["test"] * 10
    dataset = split(make_pool(16, splits=splits, same={1: 0, 2: 0}), train_size=6)
    assert "2 exact duplicates within the training set" in dataset.notes
    dataset = split(make_pool(16, splits=splits), train_size=6)
    assert "no exact duplicates within the training set" in dataset.notes


def test_a_pool_of_copies_is_refused():
    with pytest.raises(DataError, match=r"found 40 images, \d+ of them exact copies of training images; needed"):
        split(make_pool(40, same=dict.fromkeys(range(40), 0)), train_size=4)


@pytest.mark.parametrize(
    ("pool", "train_size", "message"),
    [
        (
            make_pool(20),
            32,
            "pool: found 20 images; needed: 32 for training and at least 2 in each of three held-out sets (38 in all): "
            "use --train-size 14 or less",
        ),
        (
            make_pool(1),
            32,
            "pool: found 1 image; needed: 32 for training and at least 2 in each of three held-out sets (38 in all): "
            "add images",
        ),
        (
            make_pool(30, subjects=["a"] * 30),
            4,
            "pool: found 30 images of 1 subject; needed: 4 for training and at least 2 in each of three held-out sets "
            "(10 in all, no subject in two sets): add subjects, or remove the subject column to split by image",
        ),
        (
            make_pool(30, splits=["train"] * 28 + ["test"] * 2),
            4,
            "pool: found 30 images, 28 in train and 2 in validation and test; needed: 4 for training and at least 2 in "
            "each of three held-out sets (10 in all): add images, or drop the splits to split at random",
        ),
    ],
)
def test_a_pool_that_is_too_small_is_refused_in_one_line(pool, train_size, message):
    with pytest.raises(DataError) as caught:
        split(pool, train_size=train_size)
    assert str(caught.value) == message


def test_a_train_size_that_leaves_enough_to_compare_with_is_suggested_too():
    with pytest.raises(DataError, match="use --train-size 194 or less, better 17 or less, to have enough to compare"):
        split(make_pool(200), train_size=200)
    dataset = split(make_pool(200), train_size=17)
    assert len(dataset.heldout.copying) == 8 * 17
    assert not any("advised" in note for note in dataset.notes)
    (note,) = (note for note in split(make_pool(200), train_size=18).notes if "advised" in note)
    assert note.endswith("8 a training image, are advised; add images, or train on fewer")


def test_the_suggested_train_size_is_the_largest_that_works():
    pool = make_pool(40, subjects=[f"s{i // 4}" for i in range(40)])
    with pytest.raises(DataError, match="use --train-size 28 or less"):
        split(pool, train_size=32)
    assert len(split(pool, train_size=28).training) == 28
    with pytest.raises(DataError):
        split(pool, train_size=29)


@pytest.mark.parametrize("field", ["train_size", "fidelity", "copying", "confirmation"])
def test_a_set_of_one_image_is_refused(field):
    with pytest.raises(DataError, match=f"{field} is 1: every set needs at least 2 images"):
        split(make_pool(100), **{field: 1})


def broken_pool(count, broken):
    whole = make_pool(count)

    def digest(position):
        if position in broken:
            raise DataError(f"k{position} does not decode")
        return whole.digest(position)

    return Pool("pool", whole.images, digest)


def test_images_that_do_not_decode_are_an_error_or_skipped():
    broken = set(range(0, 60, 3))
    with pytest.raises(DataError, match=r"k\d+ does not decode"):
        split(broken_pool(60, broken), train_size=10)
    dataset = split(broken_pool(60, broken), train_size=10, bad_images="skip")
    used = {int(key[1:]) for part in keys(dataset).values() for key in part}
    assert used == set(range(60)) - broken
    assert len(dataset.training) == 10
    assert "skipped 20 images that did not decode, the first k0" in dataset.notes
    with pytest.raises(DataError, match="found 12 images, 6 of them not decoding; needed"):
        split(broken_pool(12, set(range(6))), train_size=2, bad_images="skip")


def test_only_images_that_are_used_are_decoded():
    asked = set()
    whole = make_pool(5000)
    pool = Pool("pool", whole.images, lambda i: (asked.add(i), whole.digest(i))[1])
    dataset = split(pool, train_size=10, fidelity=20, copying=80, confirmation=20)
    assert len(asked) == 130 == sum(dataset.counts().values())
