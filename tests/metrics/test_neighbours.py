import sys

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from memcontrol.errors import MemControlError, MissingPackageError
from memcontrol.metrics.neighbours import nearest


@pytest.mark.parametrize("k", [1, 7, 150, 300])
def test_agrees_with_brute_force(k: int) -> None:
    rng = np.random.default_rng(k)
    queries, base = rng.normal(size=(40, 20)) * 3, rng.normal(size=(300, 20)).astype(np.float32)
    distances, positions = nearest(queries, base, k)
    brute = cdist(queries, base, "cosine")
    np.testing.assert_allclose(distances, np.sort(brute, axis=1)[:, :k], atol=2e-6)
    np.testing.assert_allclose(np.take_along_axis(brute, positions, axis=1), distances, atol=2e-6)
    assert (np.diff(distances, axis=1) >= 0).all()


def test_images_find_themselves_at_no_negative_distance() -> None:
    rows = np.random.default_rng(0).normal(size=(500, 30)).astype(np.float32)
    distances, positions = nearest(rows, rows, 1)
    np.testing.assert_array_equal(positions[:, 0], np.arange(500))
    assert distances.min() >= 0
    assert distances.max() < 1e-6


def test_zero_rows_lie_at_distance_one() -> None:
    base = np.eye(3)
    base[2] = 0.0
    distances, positions = nearest(np.stack([np.zeros(3), base[0]]), base, 3)
    np.testing.assert_array_equal(distances, [[1, 1, 1], [0, 1, 1]])
    assert positions[1, 0] == 0


def test_opposite_rows_lie_at_distance_two() -> None:
    assert nearest(np.array([[1.0, 2.0]]), np.array([[-2.0, -4.0]]), 1)[0][0, 0] == pytest.approx(2.0)


def test_refuses_what_cannot_be_searched() -> None:
    rows = np.ones((4, 3))
    for k in (0, 5):
        with pytest.raises(MemControlError, match=f"{k} nearest of 4 images"):
            nearest(rows, rows, k)
    with pytest.raises(MemControlError, match="equally wide"):
        nearest(rows, np.ones((4, 2)), 1)


def test_a_missing_faiss_names_the_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingPackageError, match=r"exactly one of the extras demo or cpu .*, or gpu") as raised:
        nearest(np.ones((2, 2)), np.ones((2, 2)), 1)
    assert "\n" not in str(raised.value)


@pytest.mark.gpu
def test_the_gpu_index_agrees_with_brute_force() -> None:
    faiss = pytest.importorskip("faiss")
    if not hasattr(faiss, "StandardGpuResources") or faiss.get_num_gpus() == 0:
        pytest.skip("needs CUDA and faiss-gpu")
    test_agrees_with_brute_force(150)
