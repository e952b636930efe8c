"""Which device each worker has: a GPU of its own where there are any, seen as the only one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

VISIBLE = "CUDA_VISIBLE_DEVICES"


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
    else:
        torch.cuda.set_device(device)  # accelerate takes the current device


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
