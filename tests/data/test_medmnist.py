"""MedMNIST archives."""

import numpy as np
import pytest

from memcontrol.config import DataConfig
from memcontrol.data import load_dataset
from memcontrol.data.medmnist import medmnist_pool
from memcontrol.errors import DataError

SIZES = {"train": 20, "val": 8, "test": 12}


def write_archive(path, *, colour=False, labels=None, parts=SIZES):
    arrays = {}
    for number, (name, size) in enumerate(parts.items()):
        rng = np.random.default_rng(number)
        arrays[f"{name}_images"] = rng.integers(0, 256, (size, 28, 28) + (3,) * colour, dtype=np.uint8)
        arrays[f"{name}_labels"] = (np.arange(size)[:, None] % 9).astype(np.uint8) if labels is None else labels[:size]
    np.savez_compressed(path, **arrays)
    return arrays


def load(path, **settings):
    return load_dataset(DataConfig(source=str(path), **({"train_size": 6} | settings)), resolution=28, seed=0)


@pytest.mark.parametrize("colour", [False, True])
def test_images_captions_and_splits(tmp_path, colour):
    arrays = write_archive(tmp_path / "pathmnist.npz", colour=colour)
    dataset = load(tmp_path / "pathmnist.npz")
    assert dataset.name == "pathmnist"
    assert dataset.notes[0] == "pathmnist: 40 images, 9 distinct captions, no subjects"
    for i, key in enumerate(dataset.training.keys):
        assert key.startswith("train-")
        number = int(key.removeprefix("train-"))
        assert dataset.training.captions[i] == f"pathmnist class {number % 9}"
        shown, stored = dataset.training.pixels([i])[0], arrays["train_images"][number]
        assert np.array_equal(shown, stored if colour else np.repeat(stored[..., None], 3, axis=-1))
    held = dataset.heldout
    for images in (held.fidelity, held.copying, held.confirmation):
        assert all(key.startswith(("val-", "test-")) for key in images.keys)
    assert set(load(tmp_path / "pathmnist.npz", captions="none").training.captions) == {""}


def test_several_findings(tmp_path):
    labels = np.array([[0, 1, 1]] * 10 + [[0, 0, 0]] * 10)
    write_archive(tmp_path / "chestmnist.npz", labels=labels, parts={"train": 20})
    captions = set(load(tmp_path / "chestmnist.npz", train_size=14).training.captions)
    assert captions == {"chestmnist classes 1, 2", "chestmnist no class"}


def test_an_archive_of_train_alone_is_split_at_random(tmp_path):
    write_archive(tmp_path / "m.npz", parts={"train": 40})
    assert sum(load(tmp_path / "m.npz").counts().values()) == 40


GREY, LABELS = np.zeros((4, 28, 28), np.uint8), np.zeros((4, 1), np.uint8)


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"images": GREY}, "no train_images; it has images"),
        ({"train_images": GREY}, "train_labels"),
        ({"train_images": GREY[0], "train_labels": LABELS}, r"train_images is \(28, 28\) uint8"),
        ({"train_images": GREY.astype(float), "train_labels": LABELS}, r"train_images is \(4, 28, 28\) float64"),
        ({"train_images": GREY, "train_labels": LABELS[:3]}, r"train_labels is \(3, 1\) uint8 for 4 images"),
        ({"train_images": GREY, "train_labels": np.full((4, 1), None)}, "Object arrays cannot be loaded"),
    ],
)
def test_malformed_archives_are_refused_in_one_line(tmp_path, arrays, reason):
    np.savez(tmp_path / "m.npz", **arrays)
    with pytest.raises(
        DataError, match=rf"m.npz is not a MedMNIST archive \(.*{reason}.*\): expected arrays"
    ) as caught:
        load(tmp_path / "m.npz")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 cut"])
def test_files_that_are_no_archive_are_refused(tmp_path, content):
    (tmp_path / "m.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"m\.npz is not a MedMNIST archive"):
        load(tmp_path / "m.npz")


def test_one_saved_array_is_refused(tmp_path):
    with (tmp_path / "m.npz").open("wb") as file:
        np.save(file, GREY)
    with pytest.raises(DataError, match="one array, not an archive"):
        load(tmp_path / "m.npz")


def test_a_folder_in_place_of_an_archive_is_named_so(tmp_path):
    (tmp_path / "m.npz").mkdir()
    with pytest.raises(DataError, match=r"m\.npz is not a MedMNIST archive \(Is a directory\)"):
        medmnist_pool(tmp_path / "m.npz", DataConfig(), resolution=8)
