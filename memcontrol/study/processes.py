"""Local worker processes: one per device, watched, replaced where they die, and stopped together."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
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


@dataclass(eq=False)
class _Worker:
    """A place for a process, and the process that has it.

    Each has pipes of its own: one that is killed while it speaks takes no other's voice.
    """

    number: int
    device: str
    process: Any
    orders: Any
    events: Any
    replaced: int = 0

    @property
    def ended(self) -> bool:
        """Whether the process has ended, and said all it had to say."""
        if self.events is not None and not self.process.is_alive() and not self.events.poll():
            self.hang_up()
        return self.events is None and not self.process.is_alive()

    def told(self, order: Any) -> None:
        """Give the process its order; one that has died meanwhile is found to have."""
        with suppress(BrokenPipeError):
            self.orders.send(order)
        self.orders.close()

    def hang_up(self) -> None:
        """Expect no more of the process."""
        self.events.close()
        self.events = None
        self.process.join(timeout=20)


@dataclass
class Crew:
    """Processes that wait for an order."""

    work: Work
    workers: list[_Worker] = field(default_factory=list)

    def run(self, order: Any, listener: Listener, *, replacements: int | None = None) -> None:
        """Run `work(order, number, device, listener)` in each process, until all have ended.

        Args:
            replacements: how often a process that dies is replaced in each place, the others going on; None has all
                stop where one dies.

        Raises:
            RunError: a worker ended with an error, or died and was not replaced. KeyboardInterrupt passes through.
        """
        workers = self.workers
        with _remembered_interrupts() as interrupted:
            for worker in workers:
                worker.told(order)
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
                        place = workers.index(worker)
                        workers[place] = _started(self.work, worker.number, worker.device, worker.replaced + 1)
                        workers[place].told(order)
                        over.remove(worker)
            if all(worker.process.exitcode for worker in workers):
                raise _died(workers[-1])


@contextmanager
def crew(work: Work, devices: list[str]) -> Iterator[Crew]:
    """A new process for each device, which loads what it works with while its order is being made.

    All have stopped at the end.
    """
    found = Crew(work)
    try:
        for number, device in enumerate(devices):
            found.workers.append(_started(work, number, device))
        yield found
    finally:
        _stop([worker.process for worker in found.workers])


def run_processes(
    work: Work, order: Any, devices: list[str], listener: Listener, *, replacements: int | None = None
) -> None:
    """`Crew.run` of a new crew."""
    with crew(work, devices) as workers:
        workers.run(order, listener, replacements=replacements)


def _started(work: Work, number: int, device: str, replaced: int = 0) -> _Worker:
    """A running process, the end of a pipe where its order goes in, and of one where its events come out."""
    context = multiprocessing.get_context("spawn")
    heard, orders = context.Pipe(duplex=False)
    events, voice = context.Pipe(duplex=False)
    own, environment = placed(device, os.environ)
    process = context.Process(target=_in_process, args=(work, number, own, heard, voice), daemon=True)
    # A new process inherits the block, so that Ctrl-C does not end it with a traceback before it can ignore it.
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with environment_with(environment):
            process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
        heard.close()
        voice.close()
    return _Worker(number, device, process, orders, events, replaced)


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


def _in_process(work: Work, number: int, device: str, orders: Any, voice: Any) -> None:
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
        work(_order(orders), number, device, tell)
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


def _order(orders: Any) -> Any:
    """What the launching process sends."""
    try:
        return orders.recv()
    except (EOFError, OSError) as error:  # it has none, or was killed
        raise KeyboardInterrupt from error


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
