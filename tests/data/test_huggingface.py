"""Hugging Face data sets saved to disk."""

import builtins
import io

import numpy as np
import pytest
from PIL import Image

from memcontrol.config import DataConfig
from memcontrol.data import load_dataset
from memcontrol.errors import DataError, MissingPackageError

datasets = pytest.importorskip("datasets")


def picture(number):
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (9, 9, 3), dtype=np.uint8))


def encoded(number):
    stream = io.BytesIO()
    picture(number).save(stream, "PNG")
    return {"bytes": stream.getvalue(), "path": None}


def make(numbers, **columns):
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["cat", "dog"]),
        }
        | {name: datasets.Value("string") for name in columns}
    )
    rows = {
        "image": [encoded(i) for i in numbers],
        "text": [f"caption {i}" for i in numbers],
        "label": [i % 2 for i in numbers],
    }
    return datasets.Dataset.from_dict(rows | columns, features=features)


def load(source, **settings):
    return load_dataset(DataConfig(source=str(source), **({"train_size": 6} | settings)), resolution=9, seed=0)


@pytest.mark.parametrize("prefix", ["", "hf:"])
def test_a_saved_data_set(tmp_path, prefix):
    make(range(30)).save_to_disk(tmp_path / "pets")
    dataset = load(f"{prefix}{tmp_path / 'pets'}")
    assert dataset.name == "pets"
    assert dataset.notes[0] == "pets: 30 images, 30 distinct captions, no subjects"
    assert sum(dataset.counts().values()) == 30
    for caption, pixels in zip(dataset.training.captions, dataset.training.pixels(), strict=True):
        assert np.array_equal(pixels, np.asarray(picture(int(caption.removeprefix("caption ")))))


def test_splits_subjects_and_class_names(tmp_path):
    parts = {
        "train": make(range(20), subject_id=[f"a{i // 2}" for i in range(20)]),
        "test": make(range(20, 40), subject_id=[f"b{i // 2}" for i in range(20)]),
    }
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "pets")
    dataset = load(tmp_path / "pets", caption_column="label")
    assert set(dataset.training.captions) == {"cat", "dog"}
    assert all(key.startswith("train-") for key in dataset.training.keys)
    assert all(key.startswith("test-") for key in dataset.heldout.copying.keys)
    assert dataset.notes[0].endswith("20 subjects")


def test_missing_columns_are_named(tmp_path):
    make(range(30)).save_to_disk(tmp_path / "pets")
    columns = r"pets \(columns: image, text, label\)"
    with pytest.raises(DataError, match=rf'no caption column "report" in .*{columns}: name one with --caption-column'):
        load(tmp_path / "pets", caption_column="report")
    with pytest.raises(DataError, match=rf'no image column "text" in .*{columns}: name a column of type Image'):
        load(tmp_path / "pets", path_column="text")
    make(range(30)).remove_columns("image").save_to_disk(tmp_path / "texts")
    with pytest.raises(DataError, match=r"no image column in .*texts"):
        load(tmp_path / "texts")


def test_unknown_splits_are_refused(tmp_path):
    datasets.DatasetDict({"train": make(range(20)), "extra": make(range(20, 40))}).save_to_disk(tmp_path / "pets")
    with pytest.raises(DataError, match='has a split "extra": expected train, validation or test'):
        load(tmp_path / "pets")


def test_images_that_do_not_decode(tmp_path):
    rows = [encoded(i) for i in range(28)] + [{"bytes": b"broken", "path": None}, None]
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    table = datasets.Dataset.from_dict({"image": rows, "text": ["a"] * 30}, features=features)
    table.save_to_disk(tmp_path / "pets")
    with pytest.raises(DataError, match=r"image (29|30) of hf:.*pets does not decode .*--bad-images skip"):
        load(tmp_path / "pets")
    assert (
        "skipped 2 images that did not decode, the first train-28" in load(tmp_path / "pets", bad_images="skip").notes
    )


def test_a_data_set_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match=r"no Hugging Face dataset .*nothing \(.*\): expected hf:NAME") as caught:
        load(f"hf:{tmp_path / 'nothing'}")
    assert "\n" not in str(caught.value)


def test_without_the_package_the_extra_is_named(monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **named):
        if name == "datasets":
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingPackageError, match=r"datasets is not installed: .*\[hf\]"):
        load("hf:anything")


def test_captions_that_are_all_empty_are_refused(tmp_path):
    make(range(20)).map(lambda _: {"text": " "}).save_to_disk(tmp_path / "pets")
    with pytest.raises(DataError, match=r'every caption in column "text" of hf:.*pets is empty: name another column'):
        load(tmp_path / "pets")


def test_splits_that_do_not_fit_together_are_refused(tmp_path):
    numbers = datasets.Dataset.from_dict({"image": [1, 2], "text": ["a", "b"]})
    datasets.DatasetDict({"train": make(range(20)), "test": numbers}).save_to_disk(tmp_path / "pets")
    with pytest.raises(DataError, match=r"splits train, test of hf:.*pets have columns of different kinds \("):
        load(tmp_path / "pets")
