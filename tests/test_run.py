"""Files of a run appear whole or not at all, and a folder that cannot be used is named in one line."""

import csv
import json
import os
import stat
import threading

import numpy as np
import pytest
from PIL import Image

from memcontrol.errors import RunError
from memcontrol.run import FRONT_SCHEMA, RunFolder, write_atomically


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "run")


def test_a_file_is_written_whole_into_a_new_folder(tmp_path):
    path = tmp_path / "a" / "b.txt"
    write_atomically(path, "one é\n")
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_who_may_read_a_file_is_as_the_user_says(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "a.txt", "one")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == mode


def test_a_write_that_fails_keeps_the_old_file_and_leaves_nothing(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write_atomically(path, "old")
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_reader_never_sees_half_a_file(tmp_path):
    path, contents, seen = tmp_path / "a.txt", ["x" * 100_000, "y" * 100_000], set()
    write_atomically(path, contents[0])
    done = threading.Event()

    def read():
        while not done.is_set():
            seen.add(path.read_text())

    reader = threading.Thread(target=read)
    reader.start()
    for i in range(60):
        write_atomically(path, contents[i % 2])
    done.set()
    reader.join()
    assert seen <= set(contents)


def test_prepare_makes_the_folder_and_leaves_it_empty(folder):
    folder.prepare()
    assert list(folder.path.iterdir()) == []


def test_prepare_refuses_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"cannot write to .*file.*; name another folder with --out"):
        RunFolder(tmp_path / "file" / "run").prepare()
    with pytest.raises(RunError, match="cannot write to"):
        RunFolder(tmp_path / "file").prepare()


def test_front_is_read_back_or_refused(folder):
    with pytest.raises(RunError, match=r"no front\.json in .*run"):
        folder.read_front()
    folder.prepare()
    folder.front.write_text("{")
    with pytest.raises(RunError, match="is not JSON"):
        folder.read_front()
    folder.front.write_bytes(b"\xff\xfe{")
    with pytest.raises(RunError, match="is not JSON"):
        folder.read_front()
    folder.front.write_text("[]")
    with pytest.raises(RunError, match="expected a JSON object with keys"):
        folder.read_front()
    folder.write_json(folder.front, {"schema": "memcontrol/front@9"})
    with pytest.raises(RunError, match=f"expected schema {FRONT_SCHEMA}, got 'memcontrol/front@9'"):
        folder.read_front()
    content = {
        "schema": FRONT_SCHEMA,
        "objectives": [{"name": "fd@pixels", "better": "lower"}],
        "budget": 3,
        "sampler": "gp",
        "seed": 0,
        "trials": {},
        "references": {},
        "front": [],
        "hypervolume": None,
        "reference_point": None,
    }
    folder.write_json(folder.front, content)
    assert folder.read_front() == content
    folder.write_json(folder.front, {"schema": FRONT_SCHEMA, "front": []})
    with pytest.raises(RunError, match=r"front\.json: objectives: Field required"):
        folder.read_front()


def test_json_refuses_nan_and_writes_nothing(folder):
    folder.prepare()
    with pytest.raises(ValueError, match="JSON"):
        folder.write_json(folder.front, {"value": float("nan")})
    assert list(folder.path.iterdir()) == []


def test_trials_are_a_table_with_the_columns_given(folder):
    folder.write_trials(["number", "error", "fd"], [{"number": 0, "error": 'a, "b"\nc'}, {"number": 1, "fd": 2.5}])
    with folder.trials.open(newline="") as file:
        assert list(csv.DictReader(file)) == [
            {"number": "0", "error": 'a, "b"\nc', "fd": ""},
            {"number": "1", "error": "", "fd": "2.5"},
        ]


def test_pictures_are_lossless(folder):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    folder.write_picture(folder.samples(7), Image.fromarray(pixels))
    with Image.open(folder.path / "samples" / "trial-007.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), pixels)


def test_log_lines_from_several_writers_stay_whole(folder):
    folder.prepare()

    def write(writer):
        for i in range(50):
            folder.append_log({"writer": writer, "i": i, "text": "x" * 2000})

    writers = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    entries = [json.loads(line) for line in folder.log.read_text().splitlines()]
    assert {(entry["writer"], entry["i"]) for entry in entries} == {(w, i) for w in range(4) for i in range(50)}
    assert len(entries) == 200
