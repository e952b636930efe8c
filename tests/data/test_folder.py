"""Image folders, with metadata and without."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from memcontrol.config import DataConfig
from memcontrol.data import load_dataset
from memcontrol.data.folder import image_files
from memcontrol.errors import DataError


def load(folder, seed=0, **settings):
    config = DataConfig(source=str(folder), **({"train_size": 8} | settings))
    return load_dataset(config, resolution=8, seed=seed)


def all_sets(dataset):
    held = dataset.heldout
    return [dataset.training, held.fidelity, held.copying, held.confirmation]


def message(folder, **settings):
    with pytest.raises(DataError) as caught:
        load(folder, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_captions_and_pixels_belong_together(photos):
    dataset = load(photos())
    assert dataset.name == "photos"
    assert dataset.notes[0] == "photos: 40 images, 40 distinct captions, no subjects"
    assert sum(len(images) for images in all_sets(dataset)) == 40
    for images in all_sets(dataset):
        pixels = images.pixels()
        assert pixels.shape == (len(images), 8, 8, 3)
        for key, caption, shown in zip(images.keys, images.captions, pixels, strict=True):
            assert caption == f"caption {int(key[:3])}"
            with Image.open(photos.folder / key) as image:
                expected = np.asarray(image.resize((8, 8), Image.Resampling.LANCZOS))
            assert np.array_equal(shown, expected)


def test_subjects_and_splits_are_read(photos):
    dataset = load(photos(60, subjects=20))
    people = [set(images.subjects) for images in all_sets(dataset)]
    assert sum(map(len, people)) == len(set.union(*people))
    dataset = load(photos(60, splits=["Train"] * 30 + ["val"] * 10 + ["TEST"] * 20))
    assert all(int(key[:3]) < 30 for key in dataset.training.keys)
    assert all(int(key[:3]) >= 30 for images in all_sets(dataset)[1:] for key in images.keys)


def test_an_image_without_a_subject_is_its_own(photos):
    folder = photos(40, subjects=20)
    metadata = folder / "metadata.csv"
    metadata.write_text(metadata.read_text().replace(",p3\n", ",\n").replace(",p3\r\n", ",\r\n"))
    assert load(folder).notes[0].endswith("21 subjects")


def test_jsonl_metadata(photos):
    folder = photos()
    (folder / "metadata.csv").unlink()
    lines = [
        json.dumps({"file_name": f"{i:03}.png", "text": f"line {i}", "subject_id": float(i // 2)}) for i in range(40)
    ]
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n\n")
    dataset = load(folder)
    assert all(caption == f"line {int(key[:3])}" for key, caption in zip(*captioned(dataset.training), strict=True))
    assert set(dataset.training.subjects) <= {str(i) for i in range(20)}
    assert dataset.notes[0].endswith("20 subjects")
    (folder / "metadata.jsonl").write_text(lines[0] + "\n{broken\n")
    assert f"line 2 of {folder / 'metadata.jsonl'} is not JSON" in message(folder)
    (folder / "metadata.jsonl").write_text("[1]\n")
    assert f"line 1 of {folder / 'metadata.jsonl'} is not a JSON object" in message(folder)


def captioned(images):
    return images.keys, images.captions


def test_two_metadata_files_are_not_confused_in_silence(photos):
    folder = photos()
    (folder / "metadata.jsonl").write_text("{}")
    assert "read metadata.csv, not metadata.jsonl" in load(folder).notes


def test_without_captions_and_metadata_all_images_are_taken(tmp_path):
    suffixes = ("bmp", "jpeg", "JPG", "pgm", "png", "tif", "tiff", "webp")
    for i in range(24):
        path = tmp_path / ("deep/er" if i % 2 else ".") / f"{i:02}.{suffixes[i % 8]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9), (i * 10, 0, 0)).save(path)
    (tmp_path / ".hidden.png").write_bytes(b"not an image")
    (tmp_path / ".checkpoints").mkdir()
    (tmp_path / ".checkpoints" / "copy.png").write_bytes(b"not an image")
    (tmp_path / "readme.txt").write_text("not an image")
    assert len(image_files(tmp_path)) == 24
    assert image_files(tmp_path) == sorted(image_files(tmp_path))
    assert "deep/er/01.jpeg" in image_files(tmp_path)
    dataset = load(tmp_path, captions="none")
    assert sum(len(images) for images in all_sets(dataset)) == 24
    assert set(dataset.training.captions) == {""}
    assert dataset.notes[:2] == (
        f"{tmp_path.name}: 24 images, no captions, no subjects",
        "not read: 1 file of another kind (.txt)",
    )


def test_files_that_are_not_read_are_told_by_their_kinds(photos):
    folder = photos()
    for name in ("a.heic", "b.HEIC", "c.gif", "d.txt", "e.db", "f.mp4"):
        (folder / name).write_bytes(b"")
    (folder / "metadata.csv").unlink()
    assert "not read: 6 files of other kinds (.db, .gif, .heic, .mp4 and more)" in load(folder, captions="none").notes


def test_images_that_metadata_does_not_list_are_counted(photos):
    folder = photos()
    lines = (folder / "metadata.csv").read_text().splitlines(keepends=True)
    (folder / "metadata.csv").write_text("".join(lines[:-7]))
    assert "7 images of the folder not in metadata.csv, and not used" in load(folder).notes
    assert not any("not used" in note for note in load(photos(41)).notes)


def test_where_captions_stand_elsewhere_the_message_says_where(photos):
    folder = photos()
    (folder / "metadata.csv").rename(folder / "captions.csv")
    assert f"give the table {folder}/captions.csv itself, or add one" in message(folder)
    assert len(load(folder / "captions.csv").training) == 8
    (folder / "train").mkdir()
    (folder / "train" / "metadata.csv").write_text("file_name,text\n")
    assert f"(40 images there): give {folder}/train, which has one, or add one" in message(folder)


def test_a_folder_of_another_kind_of_images_says_what_it_has(tmp_path):
    for name in ("1.HEIC", "2.heic"):
        (tmp_path / name).write_bytes(b"")
    assert "; there are 2 files of other kinds (.heic)): name a folder" in message(tmp_path)


def test_without_captions_metadata_still_gives_subjects(photos):
    dataset = load(photos(60, subjects=20), captions="none")
    assert set(dataset.training.captions) == {""}
    assert dataset.notes[0].endswith("20 subjects")


def test_pixels_are_read_when_asked_for(photos):
    dataset = load(photos())
    first = dataset.training.keys[0]
    before = dataset.training.pixels([0])
    Image.new("RGB", (9, 9), (1, 2, 3)).save(photos.folder / first)
    assert not np.array_equal(dataset.training.pixels([0]), before)
    (photos.folder / first).write_bytes(b"")
    dataset.training.pixels([1])
    with pytest.raises(DataError, match=f"{first} does not decode"):
        dataset.training.pixels([0, 1])


def test_seeds_decide(photos):
    folder = photos()
    assert load(folder, seed=1).training.keys == load(folder, seed=1).training.keys
    assert set(load(folder, seed=1).training.keys) != set(load(folder, seed=2).training.keys)


def test_a_moved_folder_is_split_the_same(photos, tmp_path):
    folder = photos()
    moved = shutil.copytree(folder, tmp_path / "elsewhere" / "photos")
    assert load(folder).training.keys == load(moved).training.keys


def test_a_copy_under_another_name_is_not_held_out(photos):
    folder = photos()
    for i in range(20, 40):
        Image.open(folder / f"{i - 20:03}.png").save(folder / f"{i:03}.png", compress_level=1)
    dataset = load(folder)
    training = {image.tobytes() for image in dataset.training.pixels()}
    for images in all_sets(dataset)[1:]:
        assert not training & {image.tobytes() for image in images.pixels()}
    assert any("exact cop" in note for note in dataset.notes)


def test_an_empty_folder_is_refused(tmp_path):
    assert message(tmp_path).startswith(f"no images in {tmp_path} (looked for .bmp, .jpeg, .jpg, ")
    assert message(tmp_path, captions="none").endswith("name a folder that holds images")


def test_a_folder_without_metadata_is_refused(photos):
    folder = photos(3)
    (folder / "metadata.csv").unlink()
    assert message(folder) == (
        f"no metadata.csv or metadata.jsonl in {folder} (3 images there): add one with the columns file_name and text, "
        "or use --captions none, or --captions class-names where each class has a subfolder"
    )


def test_a_missing_caption_column_is_named(photos):
    assert message(photos(), caption_column="report") == (
        f'no caption column "report" in {photos.folder}/metadata.csv (columns: file_name, text): name one with '
        "--caption-column, or use --captions none"
    )


def test_a_row_without_a_file_is_named(photos):
    folder = photos()
    (folder / "007.png").unlink()
    expected = f'row 8 of {folder}/metadata.csv names "007.png", but there is no such file in {folder}'
    assert message(folder).startswith(expected)
    assert message(folder, bad_images="skip").startswith(expected)


@pytest.mark.parametrize("outside", ["../secret.png", "sub/../../secret.png", "/etc/hostname"])
def test_a_path_outside_the_folder_is_refused(photos, tmp_path, outside):
    folder = photos(2)
    Image.new("RGB", (4, 4)).save(tmp_path / "secret.png")
    (folder / "metadata.csv").write_text(f"file_name,text\n000.png,a\n{outside},b\n")
    assert message(folder) == (
        f'row 2 of {folder}/metadata.csv names "{outside}", which is outside {folder}: give paths inside that folder'
    )


def test_an_image_listed_twice_is_refused(photos):
    folder = photos(3)
    (folder / "metadata.csv").write_text("file_name,text\n000.png,a\n001.png,b\n./000.png,c\n")
    assert message(folder).endswith('names "./000.png", as row 1 does: list each image once')


def test_an_image_that_does_not_decode_is_named_or_skipped(photos):
    folder = photos()
    (folder / "005.png").write_bytes((folder / "005.png").read_bytes()[:100])
    text = message(folder)
    assert text.startswith(f"{folder}/005.png does not decode (")
    assert text.endswith("use --bad-images skip")
    dataset = load(folder, bad_images="skip")
    assert "skipped 1 image that did not decode, the first 005.png" in dataset.notes
    assert sum(len(images) for images in all_sets(dataset)) == 39
    assert all("005.png" not in images.keys for images in all_sets(dataset))


def test_one_image_is_refused(photos):
    assert message(photos(1)).startswith("photos: found 1 image; needed: 8 for training")


def test_metadata_without_rows_is_refused(photos):
    folder = photos()
    (folder / "metadata.csv").write_text("file_name,text\n")
    assert message(folder).startswith(f"{folder}/metadata.csv has no rows")


def test_metadata_without_file_names_is_refused(photos):
    folder = photos()
    (folder / "metadata.csv").write_text("name,text\n000.png,a\n")
    assert message(folder) == (
        f'no path column "file_name" in {folder}/metadata.csv (columns: name, text): name one with --path-column'
    )


def test_an_unknown_split_is_refused(photos):
    text = message(photos(20, splits=["train"] * 19 + ["holdout"]))
    assert text.startswith(
        f'row 20 of {photos.folder}/metadata.csv has split "holdout": expected train, validation or test'
    )


@pytest.mark.parametrize("setting", ["subject_column", "split_column"])
def test_a_column_that_the_user_named_must_be_there(photos, setting):
    text = message(photos(), **{setting: "person"})
    option = setting.replace("_", "-")
    assert text == (
        f'no column "person" in {photos.folder}/metadata.csv (columns: file_name, text): name one with --{option}'
    )
