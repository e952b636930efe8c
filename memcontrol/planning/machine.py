"""What this machine has free, and how fast it multiplies matrices."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from memcontrol.study.placement import usable_cores

ATTAINED = 0.5
"""Share of the rate of a large matrix product that networks are taken to reach."""
FLOPS_PER_TFLOP = 1e12


@dataclass(frozen=True)
class Machine:
    """One worker's share of a machine, and what all of them share.

    Attributes:
        device: a torch device; `cuda` and `cpu` stand for one each worker.
        workers: processes.
        memory, gpu_memory: free bytes of the machine, which all workers share, and of a GPU; None without one.
        tflops: 1e12 floating-point operations that one worker does in a second, beside the others on its GPU or core.
        rate_source: where that number comes from.
        together: workers on one GPU, or on one core where there is none: 1 where each has its own.
    """

    device: str
    workers: int
    memory: int
    gpu_memory: int | None
    tflops: float
    rate_source: str
    together: int = 1


def look(devices: list[str], *, tflops: float | None, rows: int, width: int, dtype: str = "float32") -> Machine:
    """The machine as it is now.

    Args:
        devices: a torch device for each worker.
        tflops: what one worker sustains on networks; measured where None.
        rows, width: of the matrix product that is measured, `(rows, width) @ (width, width)`.
        dtype: that training computes in.
    """
    import psutil
    import torch

    device, together = torch.device(devices[0]), workers_together(devices)
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None
    source = "given with --tflops"
    if tflops is None:
        multiplied = matmul_tflops(str(device), rows=rows, width=width, dtype=dtype)
        source = f"{ATTAINED:.0%} of a {dtype} matrix product of {rows} x {width} x {width}, {multiplied:.3g} measured"
        source += "" if free is not None else " on a core of its own"
        source += f", shared by {together} workers" if together > 1 else ""
        tflops = multiplied * ATTAINED / together
    return Machine(device.type, len(devices), psutil.virtual_memory().available, free, tflops, source, together)


def workers_together(devices: Sequence[str]) -> int:
    """The most workers that share one GPU or, on the CPU, one core."""
    most = max(Counter(devices).values())
    return -(-most // usable_cores()) if devices[0] == "cpu" else most


def matmul_tflops(device: str, *, rows: int, width: int, dtype: str = "float32", seconds: float = 1.0) -> float:
    """1e12 floating-point operations a second of a matrix product, the median of repetitions over about `seconds`.

    On the CPU, of one thread and by the time that it ran, so that other work on the core does not count.
    """
    import torch

    kind: torch.dtype = getattr(torch, dtype)
    left = torch.ones(rows, width, device=device, dtype=kind)
    right = torch.ones(width, width, device=device, dtype=kind)

    clock = time.perf_counter if left.is_cuda else time.thread_time
    threads = torch.get_num_threads()

    def timed() -> float:
        began = clock()
        product = left @ right
        if product.is_cuda:
            torch.cuda.synchronize(product.device)
        return max(clock() - began, 1e-9)

    try:
        torch.set_num_threads(1)
        timed()
        end, taken = time.perf_counter() + seconds, [timed()]
        while time.perf_counter() < end:
            taken.append(timed())
    finally:
        torch.set_num_threads(threads)
    return 2 * rows * width * width / sorted(taken)[len(taken) // 2] / FLOPS_PER_TFLOP
