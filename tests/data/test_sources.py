"""The named sources, and how a source is found."""

import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from memcontrol.config import DataConfig
from memcontrol.data import SOURCES, check_source, load_dataset
from memcontrol.errors import DataError

SMALL = {"train_size": 6, "fidelity": 5, "copying": 48, "confirmation": 4}


def load(source, seed=0, resolution=16, **settings):
    return load_dataset(DataConfig(source=source, **settings), resolution=resolution, seed=seed)


def keys(dataset):
    held = dataset.heldout
    return [set(images.keys) for images in (dataset.training, held.fidelity, held.copying, held.confirmation)]


@pytest.mark.parametrize("source", sorted(SOURCES))
def test_named_sources_are_disjoint_seeded_and_sized(source):
    dataset = load(source, **SMALL)
    assert dataset.name == source
    assert dataset.resolution == 16
    assert [dataset.counts()[name] for name in SMALL if name != "train_size"] == [5, 48, 4]
    assert dataset.training.pixels().shape == (6, 16, 16, 3)
    assert sum(len(part) for part in keys(dataset)) == len(set.union(*keys(dataset)))
    assert keys(load(source, **SMALL)) == keys(dataset)
    assert all(one != other for one, other in zip(keys(load(source, seed=1, **SMALL)), keys(dataset), strict=True))


@pytest.mark.parametrize("source", sorted(SOURCES))
def test_a_named_source_gives_up_its_captions(source):
    bare, told = load(source, captions="none", **SMALL), load(source, **SMALL)
    held = bare.heldout
    assert all(set(images.captions) == {""} for images in (bare.training, held.fidelity, held.copying))
    assert keys(bare) == keys(told)
    np.testing.assert_array_equal(bare.training.pixels(), told.training.pixels())
    assert "" not in told.training.captions


def test_brain_sets_are_drawn_apart():
    dataset = load("brain", **SMALL)
    assert dataset.notes[0].startswith("brain: 6 training slices with ")
    assert dataset.notes[0].endswith(
        "held out: 5 fidelity, 48 copying, 4 confirmation; no subjects (one averaged head)"
    )
    assert dataset.training.subjects is None
    held = dataset.heldout
    pictures = [
        {image.tobytes() for image in images.pixels()}
        for images in (dataset.training, held.fidelity, held.copying, held.confirmation)
    ]
    assert len(set.union(*pictures)) == 63
    redrawn = load("brain", seed=1, **SMALL).heldout.copying.pixels()
    assert not np.array_equal(redrawn, held.copying.pixels())


def test_brain_says_when_copying_is_small():
    assert any(
        "copying set has 24 images: 48 or more" in note for note in load("brain", **(SMALL | {"copying": 24})).notes
    )


@pytest.mark.parametrize(("train_size", "people"), [(6, 2), (32, 7), (60, 12), (96, 12)])
def test_faces_trains_on_some_photos_of_some_people(train_size, people):
    dataset = load("faces", train_size=train_size)
    trained = Counter(dataset.training.subjects)
    assert len(dataset.training) == train_size
    assert len(trained) == people
    assert max(trained.values()) == -(-train_size // people)
    assert set(dataset.same_subjects.subjects) == set(trained)
    assert len(dataset.same_subjects) == 10 * people - train_size
    held = dataset.heldout
    others = [set(images.subjects) for images in (held.fidelity, held.copying, held.confirmation)]
    assert len(set.union(*others)) == sum(map(len, others)) == 25 - people
    assert not set.union(*others) & set(trained)


def test_too_many_faces_are_refused():
    with pytest.raises(
        DataError, match=r"faces has 25 people .* at most 96 can train .*got 97: use --train-size 96 or less"
    ):
        load("faces", train_size=97)


def test_digits_fill_the_sets():
    dataset = load("digits", train_size=32)
    assert dataset.counts() == {"training": 32, "fidelity": 512, "copying": 512, "confirmation": 512}
    assert dataset.notes[0] == "digits: 2,500 images, 10 distinct captions, no subjects"
    with pytest.raises(DataError, match="use --train-size 2494 or less"):
        load("digits", train_size=2495)


@pytest.mark.parametrize("source", sorted(SOURCES))
def test_repeats_and_small_sets_are_checked_for_every_source(source):
    dataset = load(source, repeat="0.5:9", **SMALL)
    assert sorted(dataset.repeats.tolist()) == [1, 1, 1, 9, 9, 9]
    assert "3 training images repeated 9 times" in dataset.notes
    assert load(source, **SMALL).repeats.tolist() == [1] * 6
    with pytest.raises(DataError, match='repeat "often": expected F:K'):
        load(source, repeat="often", **SMALL)
    with pytest.raises(DataError, match="train_size is 1: every set needs at least 2 images"):
        load(source, train_size=1)


def test_an_unknown_source_gets_the_nearest_names():
    with pytest.raises(DataError) as caught:
        load("brian")
    assert str(caught.value) == (
        'no data source "brian", and no such file or folder: did you mean brain? known: brain, digits, faces; or give '
        "a path to an image folder, a .csv or .xlsx table or a MedMNIST .npz, or hf:NAME for Hugging Face"
    )


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(DataError, match=f'no data source "{tmp_path}/nothing", and no such file or folder'):
        load(str(tmp_path / "nothing"))


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "images.zip").write_bytes(b"")
    with pytest.raises(DataError, match=r"images.zip is not a data source: give a path to an image folder"):
        load(str(tmp_path / "images.zip"))


@pytest.mark.parametrize("text", ["", " "])
def test_an_empty_name_is_not_taken_for_the_folder_that_one_is_in(text):
    with pytest.raises(DataError, match="the name of a data source is empty: give brain, digits, faces, or a path"):
        check_source(text)


def test_a_source_is_known_before_it_is_looked_into(tmp_path):
    (tmp_path / "empty.csv").write_text("")
    for source in ("brain", "hf:owner/name", str(tmp_path), str(tmp_path / "empty.csv")):
        check_source(source)


def test_names_fit_in_a_file_name(photos):
    folder = photos().rename(photos.folder.parent / "my photos, 2024")
    assert load(str(folder), train_size=6).name == "my-photos-2024"


def test_importing_the_package_is_light():
    heavy = "torch, pandas, datasets, scipy, nibabel, openpyxl, PIL"
    code = f"import sys, memcontrol.data; print([m for m in '{heavy}'.split(', ') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
