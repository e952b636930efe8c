"""A cached array is filled once, appears whole or not at all, and is read memory-mapped."""

import os
import stat
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from memcontrol.cache import Cache, default_cache_folder, whole_file


def refuse(target):
    raise AssertionError("filled again")


def test_an_array_is_filled_once_and_read_back(tmp_path):
    cache = Cache(tmp_path / "new")

    def fill(target):
        target[:] = np.arange(6).reshape(2, 3)

    first = cache.array("latents", "sha256:ab", (2, 3), fill)
    again = Cache(tmp_path / "new").array("latents", "sha256:ab", (2, 3), refuse)
    assert isinstance(again, np.memmap)
    assert first.dtype == again.dtype == np.float32
    np.testing.assert_array_equal(again, [[0, 1, 2], [3, 4, 5]])
    assert [path.relative_to(tmp_path) for path in tmp_path.rglob("*.*")] == [Path("new/latents/ab.npy")]


def test_a_cached_array_cannot_be_written_to(tmp_path):
    stored = Cache(tmp_path).array("kind", "key", (2,), lambda target: target.fill(1))
    with pytest.raises(ValueError, match="read-only"):
        stored[0] = 2


def test_another_kind_or_key_is_another_array(tmp_path):
    cache = Cache(tmp_path)
    cache.array("kind", "key", (1,), lambda target: target.fill(1))
    assert cache.array("kind", "other", (1,), lambda target: target.fill(2))[0] == 2
    assert cache.array("other", "key", (1,), lambda target: target.fill(3))[0] == 3
    assert cache.array("kind", "key", (1,), refuse)[0] == 1


def test_other_types_are_kept(tmp_path):
    stored = Cache(tmp_path).array("pixels", "key", (2, 2), lambda target: target.fill(255), np.uint8)
    assert stored.dtype == np.uint8
    assert stored.min() == 255


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_fill_that_raises_leaves_nothing_behind(tmp_path, error):
    def fill(target):
        target[0] = 1
        raise error("in the middle")

    cache = Cache(tmp_path)
    with pytest.raises(error, match="in the middle"):
        cache.array("kind", "key", (3,), fill)
    assert list((tmp_path / "kind").iterdir()) == []
    assert cache.array("kind", "key", (3,), lambda target: target.fill(7)).tolist() == [7, 7, 7]


def test_nothing_is_visible_while_an_array_is_filled(tmp_path):
    seen = []

    def fill(target):
        seen.extend((tmp_path / "kind").glob("*.npy"))
        target.fill(1)

    Cache(tmp_path).array("kind", "key", (1,), fill)
    assert seen == []


@pytest.mark.parametrize(("umask", "mode"), [(0o002, 0o664), (0o077, 0o600)])
def test_who_may_read_what_is_cached_is_as_the_user_says(tmp_path, umask, mode):
    """Users who share a cache read each other's files; safetensors would keep them from it."""
    before = os.umask(umask)
    try:
        Cache(tmp_path).array("kind", "key", (1,), lambda target: target.fill(1))
        with whole_file(tmp_path / "kind" / "x.safetensors") as partial:
            save_file({"a": np.ones(1)}, partial)
    finally:
        os.umask(before)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "kind").iterdir()] == [mode, mode]


def test_the_environment_names_the_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MEMCONTROL_CACHE", str(tmp_path / "named"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_cache_folder() == tmp_path / "named"
    monkeypatch.delenv("MEMCONTROL_CACHE")
    assert default_cache_folder() == tmp_path / "xdg" / "memcontrol"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache_folder() == tmp_path / ".cache" / "memcontrol"
