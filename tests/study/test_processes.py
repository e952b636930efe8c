"""Worker processes report, fail with their reason, and stop together."""

import os
import signal
import time
from pathlib import Path

import pytest

from memcontrol.errors import RunError
from memcontrol.study.events import Finished, Note, Progress
from memcontrol.study.placement import placed, worker_devices
from memcontrol.study.processes import run_processes


def report(order, number, device, listener):
    listener(Note(f"{order} {number} {device}"))
    listener(Progress(number, "work", "tune", 1, 2))
    listener(Finished(number, "work", number, 0.5, scores={"fd@pixels": 1.0}))


def fail_with_a_reason(order, number, device, listener):
    if number == 1:
        raise RunError("the reason")
    wait_for_interrupt(order, number, device, listener)


def exit_with_a_code(order, number, device, listener):
    if number == 1:
        os._exit(3)
    wait_for_interrupt(order, number, device, listener)


def end_with_a_traceback(order, number, device, listener):
    raise ValueError("not foreseen")


def wait_for_interrupt(order, number, device, listener):
    """Work that never ends, and leaves a file when it is stopped in an orderly way."""
    try:
        listener(Note(f"started {number}"))
        time.sleep(60)
    except KeyboardInterrupt:
        Path(order, f"stopped-{number}").touch()
        raise


def test_events_of_all_workers_arrive():
    heard = []
    run_processes(report, "order", ["cpu", "cpu:0"], heard.append)
    assert sorted(event.text for event in heard if isinstance(event, Note)) == ["order 0 cpu", "order 1 cpu:0"]
    for number in (0, 1):
        mine = [event for event in heard if getattr(event, "worker", None) == number]
        assert mine == [
            Progress(number, "work", "tune", 1, 2),
            Finished(number, "work", number, 0.5, scores={"fd@pixels": 1.0}),
        ]


def test_a_workers_error_stops_all_and_is_raised_with_its_reason(tmp_path):
    began = time.monotonic()
    with pytest.raises(RunError, match=r"^the reason$"):
        run_processes(fail_with_a_reason, str(tmp_path), ["cpu", "cpu"], lambda _: None)
    assert time.monotonic() - began < 40, "the other worker would have gone on for a minute"


def test_a_worker_that_dies_stops_all_and_is_reported(tmp_path):
    """Without it the others would wait for ever for the trial that the dead one was running."""
    began = time.monotonic()
    with pytest.raises(RunError, match=r"worker 1 ended with exit code 3; finished trials are kept: run the same"):
        run_processes(exit_with_a_code, str(tmp_path), ["cpu", "cpu"], lambda _: None)
    assert time.monotonic() - began < 40


def test_an_unforeseen_error_is_an_exit_code(capfd):
    with pytest.raises(RunError, match="worker 0 ended with exit code 1"):
        run_processes(end_with_a_traceback, None, ["cpu"], lambda _: None)
    assert "ValueError: not foreseen" in capfd.readouterr().err


def test_an_interrupt_stops_every_worker_in_an_orderly_way(tmp_path):
    started = []

    def listener(event):
        started.append(event.text)
        if len(started) == 2:
            raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_processes(wait_for_interrupt, str(tmp_path), ["cpu", "cpu"], listener)
    assert sorted(started) == ["started 0", "started 1"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["stopped-0", "stopped-1"]
    assert time.monotonic() - began < 40


def test_a_device_for_each_core_or_each_gpu(monkeypatch):
    import torch  # not above, since every process of these tests imports this file

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert worker_devices(None) == ["cpu"] * 3
    assert worker_devices(1) == ["cpu"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert worker_devices(None) == ["cuda:0", "cuda:1"]
    assert worker_devices(3) == ["cuda:0", "cuda:1", "cuda:0"]


class Swallowing:
    """Its finalizer is where the interpreter lets no exception out."""

    def __del__(self):
        time.sleep(5)


def swallow_the_interrupt(order, number, device, listener):
    listener(Note("started"))
    try:
        Swallowing()
        Path(order, "swallowed").touch()
        listener(Note("after"))
        Path(order, "went-on").touch()
    finally:
        Path(order, "ended").touch()


def test_an_interrupt_that_the_interpreter_swallows_is_heard_at_the_next_event(tmp_path, capfd):
    def stop(event):
        time.sleep(2)  # until the finalizer runs
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_processes(swallow_the_interrupt, str(tmp_path), ["cpu"], stop)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ended", "swallowed"]
    assert capfd.readouterr().err == ""


class Interrupting:
    """Its finalizer is interrupted, and the interpreter lets that out no more than any other exception."""

    def __del__(self):
        signal.raise_signal(signal.SIGINT)


def test_an_interrupt_that_the_launching_interpreter_swallows_is_heard_at_once(tmp_path, capfd):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_processes(wait_for_interrupt, str(tmp_path), ["cpu"], lambda _: [Interrupting()].clear())
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert [path.name for path in tmp_path.iterdir()] == ["stopped-0"]
    assert capfd.readouterr().err == ""


def test_each_worker_sees_its_gpu_alone():
    assert placed("cpu", {}) == ("cpu", {})
    assert placed("cuda:1", {}) == ("cuda:0", {"CUDA_VISIBLE_DEVICES": "1"})
    assert placed("cuda", {}) == ("cuda:0", {"CUDA_VISIBLE_DEVICES": "0"})
    assert placed("cuda:1", {"CUDA_VISIBLE_DEVICES": "6, GPU-ab12"}) == ("cuda:0", {"CUDA_VISIBLE_DEVICES": "GPU-ab12"})


def say_what_is_visible(order, number, device, listener):
    listener(Note(f"{device} {os.environ.get('CUDA_VISIBLE_DEVICES')}"))


def test_new_processes_are_given_their_gpu_and_this_one_keeps_its_own(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    heard = []
    run_processes(say_what_is_visible, None, ["cuda:0", "cuda:1"], heard.append)
    assert sorted(note.text for note in heard) == ["cuda:0 4", "cuda:0 5"]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "4,5"


def die_until_replaced(order, number, device, listener):
    """The first process of place 1 is killed in the middle of its work."""
    if number == 1 and not Path(order, "died").exists():
        Path(order, "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    listener(Note(f"{number} finished"))


def test_a_worker_that_is_killed_is_replaced_and_the_others_go_on(tmp_path):
    heard = []
    run_processes(die_until_replaced, str(tmp_path), ["cpu", "cpu"], heard.append, replacements=1)
    texts = [note.text for note in heard]
    assert "worker 1 ended with exit code -9: another takes its place" in texts
    assert sorted(text for text in texts if text.endswith("finished")) == ["0 finished", "1 finished"]


def test_workers_that_always_die_end_the_work(tmp_path):
    with pytest.raises(RunError, match="worker 0 ended with exit code 3; finished trials are kept"):
        run_processes(die, None, ["cpu"], lambda _: None, replacements=2)


def die(order, number, device, listener):
    os._exit(3)
