"""Nearest neighbours by cosine distance, through FAISS."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from memcontrol.errors import MemControlError, MissingPackageError

GPU_LIMIT = 2048
"""FAISS's GPU indexes give at most this many neighbours."""


def nearest(
    queries: NDArray[np.floating], base: NDArray[np.floating], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The `k` rows of `base` nearest to each query, by cosine distance (1 - inner product of normalised rows).

    A row of zeros lies at distance 1 from everything. Searches on the GPU where CUDA and faiss-gpu are present.

    Args:
        queries: `(N, D)`.
        base: `(M, D)`.
        k: from 1 to M.
    Returns:
        Distances `(N, k)`, ascending, 0 to 2, and positions in `base`, `(N, k)`.
    Raises:
        MemControlError: widths that differ, or a `k` that `base` does not have.
        MissingPackageError: faiss cannot be imported.
    """
    if queries.ndim != 2 or base.ndim != 2 or queries.shape[1] != base.shape[1]:
        raise MemControlError(
            f"neighbours of {queries.shape} in {base.shape}: both must be (rows, features), equally wide"
        )
    if not 1 <= k <= len(base):
        raise MemControlError(f"{k} nearest of {len(base)} images were asked for: ask for 1 to {len(base)}")
    faiss = _import_faiss()
    index = faiss.IndexFlatIP(base.shape[1])
    if k <= GPU_LIMIT and hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0:
        index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)
    index.add(_normalised(base))
    similarities, positions = index.search(_normalised(queries), k)
    return np.clip(1.0 - similarities, 0.0, 2.0), positions


def _normalised(rows: NDArray[np.floating]) -> NDArray[np.float32]:
    values = np.asarray(rows, dtype=np.float64)
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    return np.ascontiguousarray(values / np.where(norms > 0, norms, 1.0), dtype=np.float32)


def _import_faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise MissingPackageError(
            f"faiss cannot be imported ({error}): install exactly one of the extras demo or cpu (faiss-cpu), or gpu "
            '(faiss-gpu), for example pip install -c constraints.txt -e ".[cpu]"'
        ) from error
    return faiss
