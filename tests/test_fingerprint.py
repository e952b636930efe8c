"""One value, one hash; different values, different hashes."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from memcontrol.config import DataConfig
from memcontrol.fingerprint import file_fingerprint, fingerprint

DIFFERENT = [
    (),
    (None,),
    (0,),
    (1,),
    (1.0,),
    (True,),
    ("1",),
    (b"1",),
    ("a", "bc"),
    ("ab", "c"),
    (["ab", "c"],),
    ([],),
    ({},),
    ({"a": 1},),
    ({"a": 2},),
    ({"b": 1},),
    (10**40,),
    (np.zeros(4, np.float32),),
    (np.zeros(4, np.float64),),
    (np.zeros((2, 2), np.float32),),
    (np.zeros(0, np.float32),),
    (np.array(["a", "b"]),),
    (DataConfig(),),
    (DataConfig(train_size=33),),
]


def test_different_values_have_different_hashes():
    hashes = [fingerprint(*parts) for parts in DIFFERENT]
    assert len(set(hashes)) == len(DIFFERENT)
    assert all(len(value) == 71 and value.startswith("sha256:") for value in hashes)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((1, 2), [1, 2]),
        ({"a": 1, "b": [2]}, {"b": (2,), "a": 1}),
        (np.float64(0.5), 0.5),
        (np.int32(7), 7),
        (np.arange(6).reshape(2, 3).T, np.ascontiguousarray(np.arange(6).reshape(2, 3).T)),
        (np.arange(3, dtype=">i4"), np.arange(3, dtype="<i4")),
        (DataConfig(train_size=5), DataConfig.model_validate({"train_size": 5})),
    ],
)
def test_equal_values_have_equal_hashes(one, other):
    assert fingerprint(one) == fingerprint(other)


def test_hashes_are_the_same_in_another_process():
    values = "'a', 1, 2.5, None, True, b'x', [1, {'k': (2, 3), 'l': 4}], np.arange(5)"
    code = f"import numpy as np; from memcontrol.fingerprint import fingerprint; print(fingerprint({values}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == fingerprint("a", 1, 2.5, None, True, b"x", [1, {"k": (2, 3), "l": 4}], np.arange(5))


def test_the_format_does_not_drift():
    """Masks and caches on users' disks hold these hashes."""
    part = hashlib.sha256(b"str:a").digest()
    assert fingerprint("a") == "sha256:" + hashlib.sha256(b"sequence:" + part).hexdigest()


@pytest.mark.parametrize("value", [object(), {1, 2}, np.array([None]), [object()], lambda: 0])
def test_values_without_a_stable_hash_are_refused(value):
    with pytest.raises(TypeError, match="fingerprint of a"):
        fingerprint(value)


def test_a_path_must_say_what_it_means(tmp_path):
    with pytest.raises(TypeError, match=r"give str\(path\), or file_fingerprint\(path\) for its contents"):
        fingerprint(tmp_path)


def test_file_fingerprint_is_sha256_of_the_bytes(tmp_path):
    content = np.random.default_rng(0).bytes(3_000_000)
    (tmp_path / "file").write_bytes(content)
    assert file_fingerprint(tmp_path / "file") == "sha256:" + hashlib.sha256(content).hexdigest()
    with pytest.raises(FileNotFoundError):
        file_fingerprint(tmp_path / "nothing")


def test_file_fingerprint_of_a_folder_sees_names_and_bytes(tmp_path):
    def make(name: str, files: dict[str, str]) -> Path:
        for file, text in files.items():
            (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / file).write_text(text)
        return tmp_path / name

    first = file_fingerprint(make("a", {"x": "1", "sub/y": "2"}))
    assert first == file_fingerprint(make("b", {"sub/y": "2", "x": "1"}))
    assert first != file_fingerprint(make("c", {"x": "1", "sub/y": "3"}))
    assert first != file_fingerprint(make("d", {"x": "1", "y": "2"}))
