"""A release folder takes in what is whole, goes on where it was left, and never removes what is not this program's."""

import errno
from pathlib import Path

import pytest

from memcontrol.errors import RunError
from memcontrol.mask import Mask
from memcontrol.releasing import ReleaseFolder


class KilledError(Exception):
    pass


@pytest.fixture
def begun(tmp_path, mask):
    """The folder of a training that has begun."""
    folder = ReleaseFolder(tmp_path / "out")
    folder.make("seed: 0\n", mask, anew=False)
    folder.losses.write_text("step,loss\n")
    (folder.records / "samples").mkdir()
    return folder


def saved(folder, *names):
    with folder.released() as partial:
        for name in names:
            (partial / name).mkdir(parents=True) if name.endswith("/") else (partial / name).write_text("new")


def names(folder):
    return sorted(str(path.relative_to(folder.path)) for path in folder.path.rglob("*") if path.is_file())


RECORDS = ["training/config.yaml", "training/losses.csv", "training/mask.json"]


def test_what_a_training_writes_meanwhile_is_not_among_what_is_released(begun):
    assert names(begun) == RECORDS
    saved(begun, "README.md", "unet/", "mask.json")
    assert sorted(entry.name for entry in begun.path.iterdir()) == ["README.md", "mask.json", "training", "unet"]
    assert begun.finished


@pytest.mark.parametrize("after", [0, 1, 2])
def test_killed_between_two_renames_the_same_command_finishes(begun, monkeypatch, after):
    rename, done = Path.rename, []

    def killed(self, target):
        if self.name in ("README.md", "unet", "mask.json"):
            done.append(self.name)
            if len(done) > after:
                raise KilledError
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killed)
        with pytest.raises(KilledError):
            saved(begun, "README.md", "unet/", "mask.json")
    assert done.index("mask.json") == 2 if after == 2 else "mask.json" not in done
    assert not begun.finished
    begun.check(overwrite=False)
    begun.make("seed: 0\n", begun_mask(begun), anew=False)
    assert names(begun) == sorted([*RECORDS, "training/released.json"]), "half a release is removed"
    saved(begun, "tuned.safetensors", "mask.json")
    assert begun.finished
    assert not (begun.path / "unet").exists()


def begun_mask(folder):
    return Mask.from_pretrained(folder.mask)


def test_a_finished_folder_is_refused_and_overwritten_where_that_is_asked_for(begun):
    saved(begun, "README.md", "unet/", "mask.json")
    with pytest.raises(RunError, match=r"holds a finished training: name another with --out, or .* --overwrite"):
        begun.check(overwrite=False)
    begun.check(overwrite=True)
    (begun.path / ".git").mkdir()
    begun.make("seed: 1\n", begun_mask(begun), anew=True)
    assert names(begun) == ["training/config.yaml", "training/mask.json"]
    assert (begun.path / ".git").is_dir()
    assert begun.config.read_text() == "seed: 1\n"


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("place", ["notes.txt", "training/notes.txt", "other/run/config.yaml"])
def test_what_this_program_did_not_write_is_refused_by_its_name_and_kept(begun, finished, place):
    if finished:
        saved(begun, "README.md", "mask.json")
    (begun.path / place).parent.mkdir(parents=True, exist_ok=True)
    (begun.path / place).write_text("mine")
    before = names(begun)
    shown = "other" if place.startswith("other") else place
    with pytest.raises(RunError, match=f"besides a training it holds {shown}, which this program did not write: move"):
        begun.check(overwrite=True)
    assert names(begun) == before
    assert (begun.path / place).read_text() == "mine"


def test_what_came_into_the_way_during_training_is_kept(begun):
    (begun.path / "unet").mkdir()
    (begun.path / "unet" / "mine.txt").write_text("mine")
    with pytest.raises(RunError, match="unet came into it during training and is in the way: move that away and give"):
        saved(begun, "README.md", "unet/", "mask.json")
    assert names(begun) == sorted([*RECORDS, "unet/mine.txt"])


def test_a_list_of_released_names_that_leads_elsewhere_is_not_followed(begun, tmp_path):
    (tmp_path / "kept.txt").write_text("mine")
    (begun.records / "released.json").write_text('["../kept.txt", "..", "", ".", "training", 3]')
    begun.make("seed: 0\n", begun_mask(begun), anew=True)
    assert (tmp_path / "kept.txt").read_text() == "mine"


def test_a_folder_that_holds_something_else_is_refused(tmp_path, mask):
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "config.yaml").write_text("mine")
    with pytest.raises(RunError, match="exists and is not an empty folder: name another with --out"):
        ReleaseFolder(tmp_path).check(overwrite=True)


def test_a_full_disk_while_the_mask_is_written_is_one_line(begun, monkeypatch, mask):
    def full(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("memcontrol.releasing.folder.write_atomically", full)
    with pytest.raises(RunError, match=r"cannot write to .*: No space left on device; name another folder"):
        begun.make("seed: 0\n", mask, anew=False)
    with pytest.raises(RunError, match=r"cannot save to .* \(No space left on device\): free space there"):
        saved(begun, "README.md", "mask.json")
    assert not begun.finished
    assert names(begun) == RECORDS
