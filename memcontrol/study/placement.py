"""Which device each worker has: a GPU of its own where there are any, seen as the only one."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

VISIBLE = "CUDA_VISIBLE_DEVICES"
ALLOCATOR_SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
ALLOCATOR_OPTIONS = ((-3, 2**25), (-1, 2**31 - 1))
"""glibc's M_MMAP_THRESHOLD and M_TRIM_THRESHOLD at their largest, in bytes."""


def worker_devices(count: int | None) -> list[str]:
    """A device for each worker: one per GPU where there are GPUs, else one per core; `count` overrides how many."""
    import torch  # here, so that a new process loads only what its work needs

    gpus = torch.cuda.device_count()
    wanted = count or gpus or usable_cores()
    return [f"cuda:{i % gpus}" if gpus else "cpu" for i in range(wanted)]


def take_device(device: str) -> None:
    """Have this process work on a device: a GPU becomes the current one, and a CPU is computed on with one thread."""
    import torch

    if device == "cpu":
        torch.set_num_threads(1)
        keep_freed_memory()
    else:
        torch.cuda.set_device(device)  # accelerate takes the current device


def keep_freed_memory() -> bool:
    """Have the C library keep what is freed for what is allocated next, instead of giving it back to the system.

    On a CPU each step of a training frees its activations and allocates them again; asking the system for them takes
    some of a step's time, and keeping them takes no more memory at the peak (`experiments/benchmarks/profile`). A
    setting of the user's in the environment is left alone.

    Returns:
        whether that was done: glibc alone has it.
    """
    allocator = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if allocator is None or any(name in os.environ for name in ALLOCATOR_SETTINGS):
        return False
    return all(allocator(option, limit) == 1 for option, limit in ALLOCATOR_OPTIONS)


@contextmanager
def loaded_for_good() -> Iterator[None]:
    """Inside, the garbage collector passes over all that was there before, through which it else looks every trial."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def placed(device: str, environment: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """The device that a new process calls its own, and what its environment needs for that.

    A GPU is the only one that the process sees, so that no library of its takes memory on another.

    Args:
        device: as this process names it.
        environment: this process's.
    """
    kind, _, index = device.partition(":")
    if kind != "cuda":
        return device, {}
    seen = [name.strip() for name in environment.get(VISIBLE, "").split(",") if name.strip()]
    return "cuda:0", {VISIBLE: seen[int(index or 0)] if seen else index or "0"}


@contextmanager
def environment_with(changes: Mapping[str, str]) -> Iterator[None]:
    """Inside, processes that are started have these variables."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
