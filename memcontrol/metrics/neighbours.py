"""Nearest neighbours by cosine distance or squared Euclidean distance, through FAISS."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from memcontrol.errors import MemControlError, MissingPackageError
from memcontrol.metrics.rows import blocks, check_finite

Found = tuple[NDArray[np.float32], NDArray[np.int64]]
"""Distances `(N, k)`, ascending, and positions `(N, k)`."""

Distance = Literal["cosine", "euclidean"]

GPU_LIMIT = 2048
"""FAISS's GPU indexes give at most this many neighbours."""
NUMBERS_AT_ONCE = 2**22
"""How many numbers are held as float64 at a time; four times as many of the queries as float32."""
FEWEST_QUERIES = 1024
"""Queries that are searched for together, however wide."""


def nearest(
    queries: NDArray[np.floating],
    base: NDArray[np.floating],
    k: int,
    *,
    distance: Distance = "cosine",
    names: tuple[str, str] = ("query", "base"),
) -> Found:
    """The `k` rows of `base` nearest to each query: every pair is compared, none is approximated.

    - `cosine`: 1 - inner product of normalised rows, 0 to 2. A row of zeros lies at distance 1 from everything.
    - `euclidean`: *squared* L2 distance. Both sets are first moved by the mean of `base`, which changes no distance but
      keeps float32's rounding, some 1e-6 of the rows' squared length, small.

    Searches on the GPU where CUDA and faiss-gpu are present; on a CPU FAISS takes OMP_NUM_THREADS threads. Beside the
    arguments and the result, memory peaks at one float32 copy of `base` and some 200 MB, or
    1,024 queries where they are wider than 16,384.

    Args:
        queries: `(N, D)`.
        base: `(M, D)`.
        k: from 1 to M.
        distance: which distance.
        names: what the error about numbers that are not finite calls the two sets.
    Returns:
        Distances `(N, k)`, ascending, and positions in `base`, `(N, k)`; which of equals comes first is not said.
    Raises:
        MemControlError: widths that differ, a `k` that `base` does not have, or features that are not finite.
        MissingPackageError: faiss cannot be imported.
    """
    if queries.ndim != 2 or base.ndim != 2 or queries.shape[1] != base.shape[1]:
        raise MemControlError(
            f"neighbours of {queries.shape} in {base.shape}: both must be (rows, features), equally wide"
        )
    if not 1 <= k <= len(base):
        raise MemControlError(f"{k} nearest of {len(base)} images were asked for: ask for 1 to {len(base)}")
    check_finite(queries, names[0])
    check_finite(base, names[1])
    centre = base.mean(axis=0, dtype=np.float64) if distance == "euclidean" else None
    search = _searcher(_prepared(base, centre), k, distance)
    distances, positions = np.empty((len(queries), k), dtype=np.float32), np.empty((len(queries), k), dtype=np.int64)
    together = max(FEWEST_QUERIES, 4 * NUMBERS_AT_ONCE // max(1, base.shape[1]))
    # Parts of one size: FAISS computes a last part of a few queries by another route, with other rounding.
    edges = np.linspace(0, len(queries), -(-len(queries) // together) + 1).astype(int)
    for start, stop in pairwise(edges):
        distances[start:stop], positions[start:stop] = search(_prepared(queries[start:stop], centre))
    if distance == "euclidean":
        return np.maximum(distances, 0.0, out=distances), positions
    np.subtract(1.0, distances, out=distances)
    return np.clip(distances, 0.0, 2.0, out=distances), positions


def nearest_either(
    queries: NDArray[np.floating],
    mirrored: NDArray[np.floating] | None,
    base: NDArray[np.floating],
    k: int,
    *,
    distance: Distance = "cosine",
    names: tuple[str, str] = ("query", "base"),
) -> Found:
    """The same, each distance the smaller one of a query and its mirror image, so that flipped copies are found.

    Args:
        queries: `(N, D)`.
        mirrored: `(N, D)`, the features of the same images flipped left to right; None to search for `queries` alone.
        base: `(M, D)`.
        k: from 1 to M.
        distance: which distance.
        names: as for `nearest`.
    Raises:
        MemControlError: as for `nearest`, or `mirrored` of another shape than `queries`.
    """
    found = nearest(queries, base, k, distance=distance, names=names)
    if mirrored is None:
        return found
    if mirrored.shape != queries.shape:
        raise MemControlError(
            f"mirrored {names[0]} images are {mirrored.shape}, the images {queries.shape}: give one row for each image"
        )
    other = nearest(mirrored, base, k, distance=distance, names=(f"mirrored {names[0]}", names[1]))
    return _merged(found, other)


def normalised(rows: NDArray[np.floating]) -> NDArray[np.float32]:
    """`(N, D)` -> rows of length 1, float32; rows of zeros stay zeros."""
    return _prepared(rows, None)


def _merged(first: Found, second: Found) -> Found:
    """The k nearest of both, each position once at its smaller distance; writes over `first`.

    Whatever is among the k nearest of both is among the k nearest of the one to which it is nearer.
    """
    k = first[0].shape[1]
    step = max(1, NUMBERS_AT_ONCE // (2 * k))
    for start in range(0, len(first[0]), step):
        part = slice(start, start + step)
        distances = np.concatenate([first[0][part], second[0][part]], axis=1)
        positions = np.concatenate([first[1][part], second[1][part]], axis=1)
        order = np.lexsort((distances, positions), axis=-1)
        distances, positions = (
            np.take_along_axis(distances, order, axis=1),
            np.take_along_axis(positions, order, axis=1),
        )
        distances[:, 1:][positions[:, 1:] == positions[:, :-1]] = np.inf
        order = np.argsort(distances, axis=1, kind="stable")[:, :k]
        first[0][part] = np.take_along_axis(distances, order, axis=1)
        first[1][part] = np.take_along_axis(positions, order, axis=1)
    return first


def _searcher(base: NDArray[np.float32], k: int, distance: Distance) -> Any:
    """A function from float32 queries to inner products or squared distances, and positions."""
    faiss = _import_faiss()
    metric = faiss.METRIC_INNER_PRODUCT if distance == "cosine" else faiss.METRIC_L2
    if k <= GPU_LIMIT and hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0:
        import torch  # only to ask which card this worker has

        flat = faiss.IndexFlat(base.shape[1], metric)
        index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), torch.cuda.current_device(), flat)
        index.add(base)
        return lambda queries: index.search(queries, k)
    # What a flat index computes, without the index's own copy of the base.
    return lambda queries: faiss.knn(queries, base, k, metric=metric)


def _prepared(rows: NDArray[np.floating], centre: NDArray[np.float64] | None) -> NDArray[np.float32]:
    """Rows of length 1, or less `centre` where there is one; float32."""
    prepared = np.empty(rows.shape, dtype=np.float32)
    for part in blocks(rows, NUMBERS_AT_ONCE):
        values = np.asarray(rows[part], dtype=np.float64)
        if centre is not None:
            prepared[part] = values - centre
            continue
        norms = np.linalg.norm(values, axis=1, keepdims=True)
        prepared[part] = values / np.where(norms > 0, norms, 1.0)
    return prepared


def _import_faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise MissingPackageError(
            f"faiss cannot be imported ({error}): install exactly one of the extras demo or cpu (faiss-cpu), or gpu "
            '(faiss-gpu), for example pip install -c constraints.txt -e ".[cpu]"'
        ) from error
    return faiss
