"""Checkpoints come back as they were, appear whole or not at all, and belong to one training."""

import errno
import math
import resource
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from memcontrol.errors import RunError
from memcontrol.finetuning import checkpoints as module
from memcontrol.finetuning import state_files
from memcontrol.finetuning.checkpoints import KEPT, Checkpoints

SEED = {"seed": "0", "tuning.steps": "6"}


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(tmp_path / "checkpoints", SEED, Accelerator(cpu=True))


def content(number=0.0):
    shared = torch.full((3, 2), number)
    return {
        "training": {
            "tensors": [shared, shared[1:]],
            "moments": {"0": {"step": torch.tensor(2.0), "half": torch.ones(2, dtype=torch.bfloat16)}},
            "counts": np.arange(3),
            "empty": np.zeros(0, dtype=np.int64),
            "done": None,
            "queue": [{"position": 1, "nearness": 0.1 + 0.2, "text": None}],
        },
        "monitor": {"reason": "none", "stop": False},
    }


def names(checkpoints):
    return sorted(entry.name for entry in checkpoints.folder.iterdir())


def test_what_is_saved_comes_back_bit_for_bit(checkpoints):
    checkpoints.save(4, content(0.1))
    found = checkpoints.latest(pytest.fail)
    assert found.step == 4
    expected, training = content(0.1), found.content["training"]
    assert found.content["monitor"] == expected["monitor"]
    assert all(map(torch.equal, training["tensors"], expected["training"]["tensors"]))
    assert training["moments"]["0"]["step"].shape == ()
    assert training["moments"]["0"]["half"].dtype == torch.bfloat16
    assert training["counts"].tolist() == [0, 1, 2]
    assert training["counts"].dtype == training["empty"].dtype == np.int64
    assert training["empty"].shape == (0,)
    assert training["queue"] == expected["training"]["queue"]
    assert training["done"] is None


def test_the_newest_stay(checkpoints):
    for step in (2, 4, 10):
        checkpoints.save(step, content(step))
    assert len(names(checkpoints)) == KEPT == 2
    assert checkpoints.latest(pytest.fail).step == 10
    checkpoints.clear()
    assert checkpoints.latest(pytest.fail) is None


@pytest.mark.parametrize("file", ["shared.safetensors", "shared.json", "checkpoint.json"])
@pytest.mark.parametrize("how", ["cut", "missing", "damaged", "changed"])
def test_a_checkpoint_that_is_not_whole_is_passed_over_with_a_note(checkpoints, file, how):
    checkpoints.save(2, content(2))
    checkpoints.save(4, content(4))
    broken, notes = checkpoints.folder / "step-00000004" / file, []
    whole = broken.read_bytes()
    if how == "missing":
        broken.unlink()
    elif how == "changed":  # a single bit, at the end of the tensors; of numbers, one digit that reads well
        changed = whole[:-1] + bytes([whole[-1] ^ 1]) if file.endswith("tensors") else whole.replace(b"1", b"7", 1)
        broken.write_bytes(changed.replace(b"checkpoint@", b"checkpoint~"))
    else:
        broken.write_bytes(whole[:-9] if how == "cut" else b"\x00" * len(whole))
    found = checkpoints.latest(notes.append)
    assert found.step == 2
    assert found.content["training"]["tensors"][0][0, 0] == 2
    (note,) = notes
    assert str(broken.parent) in note
    assert note.endswith(" is passed over")


def test_numbers_that_json_does_not_have_come_back(checkpoints):
    numbers = {"lowest": math.inf, "least": -math.inf, "none": math.nan, "half": np.float32(0.5), "count": np.int64(3)}
    checkpoints.save(2, {"training": {"numbers": numbers, "listed": [np.True_, math.inf]}})
    found = checkpoints.latest(pytest.fail).content["training"]
    assert math.isnan(found["numbers"].pop("none"))
    assert found["numbers"] == {"lowest": math.inf, "least": -math.inf, "half": 0.5, "count": 3}
    assert found["listed"] == [True, math.inf]


def test_what_cannot_be_written_is_one_line_and_leaves_the_checkpoint_before(checkpoints):
    checkpoints.save(2, content(2))
    with pytest.raises(RunError, match=r"cannot write checkpoint .*step-00000004 \(.*set.*\): expected tensors"):
        checkpoints.save(4, {"training": {"queue": {1, 2}}})
    assert names(checkpoints) == ["step-00000002"]


# Several processes


class Process:
    """One of two, each in a thread."""

    num_processes = 2

    def __init__(self, index, barrier):
        self.process_index, self.is_main_process, self.barrier = index, index == 0, barrier

    def wait_for_everyone(self):
        self.barrier.wait(30)


@pytest.fixture
def together(tmp_path, monkeypatch):
    """Calls a function with the checkpoints of either process, at once; what each returned."""
    barrier, said = threading.Barrier(2), [[], []]
    processes = [Process(index, barrier) for index in range(2)]
    place = threading.local()

    def gathered(mine):
        said[place.index] = mine
        barrier.wait(30)
        found = said[0] + said[1]
        barrier.wait(30)
        return found

    monkeypatch.setattr(module, "gather_object", gathered)

    def call(action):
        def one(process):
            place.index = process.process_index
            return action(Checkpoints(tmp_path / "out" / "checkpoints", SEED, process), process.process_index)

        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(one, processes))

    return call


def parts(step, index):
    """What a process has: all of it in the first one, and its own alone in the second."""
    own = {"rule": {"seen": torch.full((2,), 10.0 * step + index)}}
    shared = {"optimizer": {"moment": torch.full((3,), float(step))}, "done": {"number": step}}
    return {"training": own} if index else {"training": own | shared, "monitor": {"looks": [step]}}


def test_each_process_has_its_own_beside_all_that_is_shared(together):
    together(lambda checkpoints, index: checkpoints.save(2, parts(2, index)))
    found = together(lambda checkpoints, _: checkpoints.latest(pytest.fail))
    for index, one in enumerate(found):
        training = one.content["training"]
        assert training.keys() == {"rule", "optimizer", "done"}
        assert training["rule"]["seen"].tolist() == [20.0 + index] * 2
        assert training["optimizer"]["moment"].tolist() == [2.0] * 3
        assert training["done"] == {"number": 2}
        assert one.content["monitor"] == {"looks": [2]}


@pytest.mark.parametrize("file", ["process-1.safetensors", "process-1.json", "shared.safetensors"])
def test_processes_go_on_from_the_same_checkpoint_where_one_of_them_cannot_read_the_newest(together, tmp_path, file):
    for step in (2, 4):
        together(lambda checkpoints, index, step=step: checkpoints.save(step, parts(step, index)))
    broken = tmp_path / "out" / "checkpoints" / "step-00000004" / file
    broken.write_bytes(broken.read_bytes()[:-1] + b"\x00")
    notes = [[], []]
    found = together(lambda checkpoints, index: checkpoints.latest(notes[index].append))
    assert [one.step for one in found] == [2, 2]
    assert [one.content["training"]["rule"]["seen"][0].item() for one in found] == [20, 21]
    assert f"{file} is not what was written" in notes[0][0]


def test_without_a_whole_checkpoint_there_is_none(checkpoints):
    checkpoints.save(2, content())
    (checkpoints.folder / "step-00000002" / "checkpoint.json").unlink()
    notes = []
    assert checkpoints.latest(notes.append) is None
    assert len(notes) == 1


def test_a_checkpoint_of_another_training_is_refused_with_the_difference(checkpoints):
    checkpoints.save(2, content())
    other = Checkpoints(checkpoints.folder, SEED | {"seed": "1"}, checkpoints.accelerator)
    with pytest.raises(RunError, match=r"unfinished training with other settings: seed was 0, now 1; use the same"):
        other.latest(pytest.fail)
    assert names(checkpoints) == ["step-00000002"]


@pytest.mark.parametrize("failing", ["save_file", "_complete"])
def test_a_full_disk_leaves_the_checkpoint_before(checkpoints, monkeypatch, failing):
    checkpoints.save(2, content(2))

    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    owner = state_files if failing == "save_file" else Checkpoints
    monkeypatch.setattr(owner, failing, full)
    with pytest.raises(RunError, match=r"cannot write checkpoint .*step-00000004 \(No space left on device\): those"):
        checkpoints.save(4, content(4))
    monkeypatch.undo()
    assert names(checkpoints) == ["step-00000002"]
    assert checkpoints.latest(pytest.fail).step == 2


def test_a_file_that_the_system_does_not_let_grow_leaves_the_checkpoint_before(checkpoints):
    """What a full disk does, by the system itself."""
    checkpoints.save(2, content(2))
    large = content(4)
    large["training"]["tensors"].append(torch.zeros(1 << 20))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    try:
        with pytest.raises(RunError, match=r"cannot write checkpoint .*: those before it are kept"):
            checkpoints.save(4, large)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert names(checkpoints) == ["step-00000002"]
    checkpoints.save(4, large)
    assert checkpoints.latest(pytest.fail).step == 4
