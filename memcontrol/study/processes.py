"""Local worker processes: one per device, watched, replaced where they die, and stopped together."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any, Protocol

from memcontrol.errors import MemControlError, RunError
from memcontrol.study.events import Event, Listener, Note
from memcontrol.study.placement import environment_with, placed

LOOK_S = 0.2


class Work(Protocol):
    """What each process runs; a module-level function, so that a new process can import it."""

    def __call__(self, order: Any, number: int, device: str, listener: Listener) -> None:
        """Work until there is none left."""


@dataclass(frozen=True)
class _Stopped:
    reason: str


@dataclass
class _Worker:
    """A place for a process, and the process that has it.

    Each has a pipe of its own: one that is killed while it speaks takes no other's voice.
    """

    number: int
    device: str
    process: Any
    events: Any
    replaced: int = 0

    @property
    def ended(self) -> bool:
        """Whether the process has ended, and said all it had to say."""
        if self.events is not None and not self.process.is_alive() and not self.events.poll():
            self.hang_up()
        return self.events is None and not self.process.is_alive()

    def hang_up(self) -> None:
        """Expect no more of the process."""
        self.events.close()
        self.events = None
        self.process.join(timeout=20)


def run_processes(
    work: Work, order: Any, devices: list[str], listener: Listener, *, replacements: int | None = None
) -> None:
    """Run `work(order, number, device, listener)` in a new process for each device, until all have ended.

    Args:
        replacements: how often a process that dies is replaced in each place, the others going on; None has all stop
            where one dies.

    Raises:
        RunError: a worker ended with an error, or died and was not replaced. KeyboardInterrupt passes through once all
            workers have stopped.
    """
    context = multiprocessing.get_context("spawn")
    workers: list[_Worker] = []
    try:
        for number, device in enumerate(devices):
            process, events = _started(context, work, order, number, device)
            workers.append(_Worker(number, device, process, events))
        with _remembered_interrupts() as interrupted:
            over: list[_Worker] = []
            while len(over) < len(workers):
                if interrupted.is_set():
                    raise KeyboardInterrupt
                _listen(workers, listener)
                over = [worker for worker in workers if worker.ended]
                for worker in [worker for worker in over if worker.process.exitcode]:
                    if replacements is None:
                        raise _died(worker)
                    if worker.replaced < replacements:
                        listener(Note(f"{_ending(worker)}: another takes its place"))
                        worker.process, worker.events = _started(context, work, order, worker.number, worker.device)
                        worker.replaced += 1
                        over.remove(worker)
            if all(worker.process.exitcode for worker in workers):
                raise _died(workers[-1])
    finally:
        _stop([worker.process for worker in workers])


def _started(context: Any, work: Work, order: Any, number: int, device: str) -> tuple[Any, Any]:
    """A running process, and the end of a pipe where its events come out."""
    events, voice = context.Pipe(duplex=False)
    own, environment = placed(device, os.environ)
    process = context.Process(target=_in_process, args=(work, order, number, own, voice), daemon=True)
    # A new process inherits the block, so that Ctrl-C does not end it with a traceback before it can ignore it.
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with environment_with(environment):
            process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
        voice.close()
    return process, events


def _listen(workers: list[_Worker], listener: Listener) -> None:
    """Pass on what the workers say now."""
    speaking = {worker.events: worker for worker in workers if worker.events is not None}
    for events in wait(list(speaking), timeout=LOOK_S):
        try:
            event = speaking[events].events.recv()
        except (EOFError, OSError):
            # It has ended, or was killed in the middle of a sentence.
            speaking[events].hang_up()
            continue
        if isinstance(event, _Stopped):
            raise RunError(event.reason)
        listener(event)


def _ending(worker: _Worker) -> str:
    return f"worker {worker.number} ended with exit code {worker.process.exitcode}"


def _died(worker: _Worker) -> RunError:
    return RunError(f"{_ending(worker)}; finished trials are kept: run the same command again to go on")


def _in_process(work: Work, order: Any, number: int, device: str, voice: Any) -> None:
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
        try:
            voice.send(event)
        except OSError as error:
            raise KeyboardInterrupt from error

    signal.signal(signal.SIGTERM, interrupt)
    sys.unraisablehook = _but_for_interrupts

    try:
        work(order, number, device, tell)
    except MemControlError as error:
        voice.send(_Stopped(str(error)))
    except OSError as error:
        if error.errno is None:
            raise
        where = "" if error.filename is None else f" {error.filename}"
        voice.send(_Stopped(f"cannot read or write{where}: {error.strerror}; make room or choose another place"))
    except KeyboardInterrupt:
        pass
    finally:
        voice.close()


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
