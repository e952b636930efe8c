"""Captions from class folders, as Imagenette has them."""

import numpy as np
import pytest
from PIL import Image

from memcontrol.config import DataConfig
from memcontrol.data import load_dataset
from memcontrol.data.class_names import caption
from memcontrol.errors import DataError


def image_tree(folder, classes, splits=("train", "val"), count=20, suffix="JPEG"):
    """`count` images of each class in each split; without splits, class folders alone."""
    number = 0
    for split in splits or ("",):
        for name in classes:
            place = folder / split / name
            place.mkdir(parents=True)
            for i in range(count):
                pixels = np.random.default_rng(number).integers(0, 256, (12, 12, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{name}_{i}.{suffix}")
                number += 1
    return folder


def load(folder, **settings):
    config = DataConfig(source=str(folder), captions="class-names", train_size=8, **settings)
    return load_dataset(config, resolution=8, seed=0)


def message(folder, **settings):
    with pytest.raises(DataError) as caught:
        load(folder, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def held_out(dataset):
    return [dataset.heldout.fidelity, dataset.heldout.copying, dataset.heldout.confirmation]


def test_class_folders_give_captions_and_split_folders_give_splits(tmp_path):
    folder = image_tree(tmp_path / "imagenette2-320", ["n01440764", "n02102040"])
    (folder / "class_names.csv").write_text("folder,name\nn01440764,tench\nn02102040,English springer\nn9,more\n")
    dataset = load(folder)
    assert dataset.name == "imagenette2-320"
    expected = {"n01440764": "a photo of a tench", "n02102040": "a photo of an English springer"}
    for split, sets in (("train", [dataset.training]), ("val", held_out(dataset))):
        for images in sets:
            for key, text in zip(images.keys, images.captions, strict=True):
                place, name, _ = key.split("/")
                assert place == split
                assert text == expected[name]
    assert sum(map(len, held_out(dataset))) == 40


def test_folders_called_after_their_class_need_no_file(tmp_path):
    dataset = load(image_tree(tmp_path / "birds", ["red_kite", "owl"], splits=None, suffix="png"))
    assert {text for images in held_out(dataset) for text in images.captions} == {
        "a photo of a red kite",
        "a photo of an owl",
    }


def test_a_class_that_is_called_like_a_split_stays_a_class(tmp_path):
    dataset = load(image_tree(tmp_path / "words", ["test", "essay"], splits=("all",), suffix="png"))
    assert "a photo of a test" in {text for images in held_out(dataset) for text in images.captions}
    assert sum(map(len, [dataset.training, *held_out(dataset)])) == 40


def test_without_captions_split_folders_are_read_as_any_other(tmp_path):
    folder = image_tree(tmp_path / "birds", ["kite", "owl"])
    dataset = load_dataset(DataConfig(source=str(folder), captions="none", train_size=8), resolution=8, seed=0)
    assert {key.split("/")[0] for key in (*dataset.training.keys, *dataset.heldout.copying.keys)} == {"train", "val"}


def test_wordnet_ids_need_names(tmp_path):
    folder = image_tree(tmp_path / "nette", ["n01440764"])
    assert message(folder) == (
        f"class folder n01440764 in {folder} is a WordNet id, no name: put a class_names.csv there with the columns "
        "folder and name"
    )
    (folder / "class_names.csv").write_text("folder,name\nn02102040,English springer\n")
    assert message(folder) == (
        f"{folder}/class_names.csv has no name for class folder n01440764: add a row n01440764,NAME"
    )
    (folder / "class_names.csv").write_text("folder,label\nn01440764,tench\n")
    assert message(folder) == f'no column "name" in {folder}/class_names.csv (columns: folder, label): add it'


def test_a_class_cannot_have_two_names(tmp_path):
    folder = image_tree(tmp_path / "photos", ["n01440764"])
    (folder / "class_names.csv").write_text("folder,name\nn01440764,tench\nn01440764,pike\n")
    assert message(folder) == f"{folder}/class_names.csv has two names for class folder n01440764: keep one"


@pytest.mark.parametrize("place", [".", "train"])
def test_an_image_in_no_class_folder_is_named(place, tmp_path):
    folder = image_tree(tmp_path / "birds", ["owl"])
    Image.new("RGB", (9, 9)).save(folder / place / "stray.png")
    assert message(folder).startswith(f"{folder / place / 'stray.png'} is in no class folder: expected CLASS/stray.png")


def test_sources_without_class_folders_are_refused(photos, tmp_path):
    listed = photos()
    assert message("digits").startswith("captions class-names with digits: they are the names of an image folder's")
    assert message(listed / "metadata.csv").startswith("captions class-names with ")
    assert message(listed).startswith(f"captions class-names with {listed}/metadata.csv: the folder lists its images")


def test_articles_fit_their_names():
    assert [caption(name) for name in ("church", "apple", "Afghan hound")] == [
        "a photo of a church",
        "a photo of an apple",
        "a photo of an Afghan hound",
    ]
