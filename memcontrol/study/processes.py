"""Local worker processes: one per device, watched, and stopped together."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from memcontrol.errors import MemControlError, RunError
from memcontrol.study.events import Event, Listener


class Work(Protocol):
    """What each process runs; a module-level function, so that a new process can import it."""

    def __call__(self, order: Any, number: int, device: str, listener: Listener) -> None:
        """Work until there is none left."""


@dataclass(frozen=True)
class _Stopped:
    reason: str


def worker_devices(count: int | None) -> list[str]:
    """A device for each worker: one per GPU where there are GPUs, else one per core; `count` overrides how many."""
    import torch  # here, so that a new process loads only what its work needs

    gpus = torch.cuda.device_count()
    wanted = count or gpus or usable_cores()
    return [f"cuda:{i % gpus}" if gpus else "cpu" for i in range(wanted)]


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_processes(work: Work, order: Any, devices: list[str], listener: Listener) -> None:
    """Run `work(order, number, device, listener)` in a new process for each device, until all have ended.

    Raises:
        RunError: a worker ended with an error. KeyboardInterrupt passes through once all workers have stopped.
    """
    context = multiprocessing.get_context("spawn")
    events: Any = context.Queue()
    processes = [
        context.Process(target=_in_process, args=(work, order, number, device, events), daemon=True)
        for number, device in enumerate(devices)
    ]
    try:
        # A new process inherits the block, so that Ctrl-C does not end it with a traceback before it can ignore it.
        unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            for process in processes:
                process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
        with _remembered_interrupts() as interrupted:
            _watch(processes, events, listener, interrupted)
    finally:
        _stop(processes)


def _in_process(work: Work, order: Any, number: int, device: str, events: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the launching process hears Ctrl-C and stops its workers
    launcher, told_to_stop = multiprocessing.parent_process(), threading.Event()

    def interrupt(_signal: int, _frame: object) -> None:
        told_to_stop.set()
        raise KeyboardInterrupt

    def tell(event: Event) -> None:
        # Where the signal came inside a callback of the interpreter's own, its interrupt went no further. And where the
        # launching process was killed, nobody would stop this one.
        if told_to_stop.is_set() or (launcher is not None and not launcher.is_alive()):
            raise KeyboardInterrupt
        events.put(event)

    signal.signal(signal.SIGTERM, interrupt)
    sys.unraisablehook = _but_for_interrupts

    try:
        work(order, number, device, tell)
    except MemControlError as error:
        events.put(_Stopped(str(error)))
    except KeyboardInterrupt:
        events.cancel_join_thread()


@contextmanager
def _remembered_interrupts() -> Iterator[threading.Event]:
    """Inside, Ctrl-C is remembered too: one that comes in a callback of the interpreter's own goes no further.

    Who handles or ignores it in a way of their own goes on doing so.
    """
    told = threading.Event()

    def interrupt(_signal: int, _frame: object) -> None:
        told.set()
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield told  # which hears no signals
        return
    usual = [s for s in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(s) is signal.default_int_handler]
    hook, sys.unraisablehook = sys.unraisablehook, _but_for_interrupts
    for number in usual:
        signal.signal(number, interrupt)
    try:
        yield told
    finally:
        for number in usual:
            signal.signal(number, signal.default_int_handler)
        sys.unraisablehook = hook


def _but_for_interrupts(unraisable: sys.UnraisableHookArgs) -> None:
    if not isinstance(unraisable.exc_value, KeyboardInterrupt):
        sys.__unraisablehook__(unraisable)


def _watch(processes: list[Any], events: Any, listener: Listener, interrupted: threading.Event) -> None:
    while True:
        if interrupted.is_set():
            raise KeyboardInterrupt
        alive = any(process.is_alive() for process in processes)
        try:
            event = events.get(timeout=0.2)
        except queue.Empty:
            # Where one died, the others would wait for ever for the trial that it was running.
            if alive and not any(process.exitcode for process in processes):
                continue
            break
        if isinstance(event, _Stopped):
            raise RunError(event.reason)
        listener(event)
    for number, process in enumerate(processes):
        if process.exitcode:
            raise RunError(
                f"worker {number} ended with exit code {process.exitcode}; finished trials are kept: "
                "run the same command again to go on"
            )


def _stop(processes: list[Any]) -> None:
    for process in processes:
        if process.is_alive():
            process.terminate()
    for process in processes:
        if process.pid is not None:
            process.join(timeout=20)
        if process.is_alive():
            process.kill()
            process.join()
