"""Singular value decompositions of a U-Net's weights: each made once, and kept on disk by the weight's bytes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from types import TracebackType

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from memcontrol.cache import Cache, whole_file
from memcontrol.errors import MemControlError, ModelError
from memcontrol.fingerprint import fingerprint

RETRY_S = 0.05
TOLERANCE = 1e-4
"""Of a stored decomposition's product with a random vector, relative to the weight's norm; float32 gives some 1e-6."""


@dataclass(frozen=True)
class Factors:
    """A weight as a matrix `(m, n)`: u * s @ vh, with k = min(m, n).

    Attributes:
        u: `(m, k)` float32, orthonormal columns.
        s: `(k,)` float32, not negative, descending.
        vh: `(k, n)` float32, orthonormal rows.
    """

    u: torch.Tensor
    s: torch.Tensor
    vh: torch.Tensor

    def to(self, device: torch.device) -> Factors:
        """The same on a device; no copy where they are there already."""
        return Factors(self.u.to(device), self.s.to(device), self.vh.to(device))


def matrix_shape(weight: torch.Tensor) -> tuple[int, int]:
    """A weight's shape as a matrix: `(out, in * kh * kw)` of a layer, `(1, n)` of a norm; works on the meta device."""
    return (1, len(weight)) if weight.ndim == 1 else (len(weight), weight[0].numel())


def decomposed(weight: torch.Tensor, name: str = "weight") -> Factors:
    """The decomposition, computed in float64 on the weight's device and rounded to float32.

    Computed in float32, u * s @ vh would miss the weight by some fifty times the rounding of float32. A zero vector has
    no direction of its own, and any is right: it gets the one in which all entries are equal.

    Raises:
        ModelError: the weight holds NaN or infinite values.
    """
    matrix = _matrix(weight).double()
    if not matrix.isfinite().all():
        raise ModelError(f"{name} holds NaN or infinite values, which have no decomposition: load a sound model")
    if weight.ndim > 1:
        u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    else:
        s = matrix.norm(dim=1)
        u = torch.ones_like(s[:, None])
        vh = matrix / s if s > 0 else torch.full_like(matrix, matrix.shape[1] ** -0.5)
    return Factors(*(part.float().contiguous() for part in (u, s, vh)))


def prepared(
    unet: torch.nn.Module, names: Iterable[str], cache: Cache | None, stopping: Event | None = None
) -> dict[str, Factors]:
    """Decompositions of the weights of those names, from the cache where they are known.

    Those from a cache are memory-mapped. Processes that share it share the work: what another is making is left for
    later, so that all get the same file.

    Args:
        stopping: when set, the work ends after the current weight.

    Raises:
        ModelError: a weight holds NaN or infinite values.
        MemControlError: it was stopped.
    """
    weights = {name: unet.get_parameter(name).detach() for name in names}
    pending = deque((name, None if cache is None else _path(cache, weight)) for name, weight in weights.items())
    stopping = stopping or Event()
    made: dict[str, Factors] = {}
    while pending:
        if stopping.is_set():
            raise MemControlError(f"decomposing was stopped with {len(pending)} of {len(weights)} weights to go")
        name, path = pending.popleft()
        factors = decomposed(weights[name], name) if path is None else _kept(path, weights[name], name)
        if factors is not None:
            made[name] = factors
        else:
            pending.append((name, path))
            stopping.wait(RETRY_S)
    return made


class Decompositions:
    """Decompositions in the making, in a thread of their own: a context in which other work goes on.

    The weights must stay as they are until `wait` has returned. Leaving the context waits; an error in it stops all.
    """

    def __init__(self, future: Future[dict[str, Factors]], stopping: Event) -> None:
        self._future, self._stopping = future, stopping

    @classmethod
    def start(cls, unet: torch.nn.Module, names: Iterable[str], cache: Cache | None) -> Decompositions:
        """Begin to decompose the weights of those names."""
        stopping, threads, chosen = Event(), torch.get_num_threads(), tuple(names)

        def work() -> dict[str, Factors]:
            # A new thread does not inherit the number, and more threads than cores are many times slower than one.
            torch.set_num_threads(threads)
            return prepared(unet, chosen, cache, stopping)

        executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="decompositions")
        future = executor.submit(work)
        executor.shutdown(wait=False)
        return cls(future, stopping)

    def wait(self) -> Mapping[str, Factors]:
        """The decompositions by the weights' names, once all are made.

        Raises:
            ModelError: a weight holds NaN or infinite values; so does whatever else went wrong in the thread.
        """
        try:
            return self._future.result()
        finally:
            self._stopping.set()  # an interrupt here must not leave the thread at work

    def __enter__(self) -> Decompositions:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is None:
            self.wait()
        self._stopping.set()


def _matrix(weight: torch.Tensor) -> torch.Tensor:
    return weight.detach().reshape(matrix_shape(weight))


def _path(cache: Cache, weight: torch.Tensor) -> Path:
    flat = weight.cpu().contiguous().reshape(-1)
    key = fingerprint(str(weight.dtype), list(weight.shape), flat.view(torch.uint8).numpy())
    return cache.path("svd", key, ".safetensors")


def _kept(path: Path, weight: torch.Tensor, name: str) -> Factors | None:
    """What is at `path`, after making it where needed; None while another process makes it."""
    stored = _stored(path, weight)
    if stored is not None:
        return stored
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path.with_suffix(".lock"), blocking=False):
            if (stored := _stored(path, weight)) is not None:
                return stored
            factors = decomposed(weight, name).to(torch.device("cpu"))
            with whole_file(path) as partial:
                save_file({"u": factors.u, "s": factors.s, "vh": factors.vh}, partial)
            # Read back even here: all processes then compute with the same memory layout, to the last bit.
            return Factors(**load_file(path))
    except Timeout:
        return None


def _stored(path: Path, weight: torch.Tensor) -> Factors | None:
    """The factors in a file, memory-mapped; None where it is missing, cut off, or holds anything but this weight's."""
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError):
        return None
    (m, n), k = matrix_shape(weight), min(matrix_shape(weight))
    shapes = {"u": (m, k), "s": (k,), "vh": (k, n)}
    if {name: tuple(tensor.shape) for name, tensor in tensors.items()} != shapes:
        return None
    if any(tensor.dtype != torch.float32 for tensor in tensors.values()):
        return None
    factors, matrix = Factors(**tensors), _matrix(weight.cpu()).float()
    probe = torch.randn(n, generator=torch.Generator().manual_seed(0))
    difference = matrix @ probe - factors.u @ (factors.s * (factors.vh @ probe))
    return factors if bool(difference.norm() <= TOLERANCE * matrix.norm()) else None
