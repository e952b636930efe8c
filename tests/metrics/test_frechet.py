import re

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.linalg import sqrtm
from sklearn.decomposition import PCA

from memcontrol.errors import MemControlError, TooFewImages
from memcontrol.metrics.frechet import LeadingComponents, frechet_distance, frechet_interval
from memcontrol.metrics.rows import finite_rows


def correlated(rng: np.random.Generator, count: int, width: int, shift: float = 0.0) -> NDArray[np.float64]:
    return rng.normal(size=(count, width)) @ rng.normal(size=(width, width)) + shift


def scipy_distance(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    covariance_a, covariance_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    cross = np.trace(sqrtm(covariance_a @ covariance_b).real)
    means = ((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum()
    return float(means + np.trace(covariance_a) + np.trace(covariance_b) - 2 * cross)


@pytest.mark.parametrize("width", [1, 4, 24])
def test_agrees_with_scipy(width: int) -> None:
    rng = np.random.default_rng(width)
    a, b = correlated(rng, 200, width + 1, 0.5)[:, :width], correlated(rng, 90, width + 1)[:, :width]
    if width == 1:
        spread = a.std(ddof=1) - b.std(ddof=1)
        assert frechet_distance(a, b) == pytest.approx((a.mean() - b.mean()) ** 2 + spread**2)
    else:
        assert frechet_distance(a, b) == pytest.approx(scipy_distance(a, b), rel=1e-9)


def test_is_zero_for_one_set_and_symmetric() -> None:
    rng = np.random.default_rng(0)
    a, b = correlated(rng, 60, 8), correlated(rng, 70, 8)
    assert frechet_distance(a, a) == pytest.approx(0.0, abs=1e-9)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a))


def test_survives_features_that_never_vary() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(50, 6)), rng.normal(size=(60, 6))
    a[:, 3], b[:, 3], b[:, 4] = 2.0, 5.0, b[:, 5]
    kept = [0, 1, 2, 4, 5]
    # Singular covariances: the constant feature adds its squared difference of means and nothing else.
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(a[:, kept], b[:, kept]) + 9.0, rel=1e-6)


def test_refuses_too_few_images() -> None:
    rows = np.random.default_rng(0).normal(size=(16, 16))
    with pytest.raises(TooFewImages, match="needs 17 generated images"):
        frechet_distance(rows, np.ones((40, 16)))
    with pytest.raises(TooFewImages, match="needs 17 reference images"):
        frechet_distance(np.ones((40, 16)), rows)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_refuses_features_that_are_no_numbers(bad: float) -> None:
    rows = np.random.default_rng(0).normal(size=(40, 3))
    broken = rows.copy()
    broken[7, 1] = bad
    with pytest.raises(MemControlError, match="generated image 7"):
        frechet_distance(broken, rows)
    with pytest.raises(MemControlError, match="reference image 7"):
        frechet_interval(rows, broken, rng=np.random.default_rng(0))


def test_finite_rows_are_passed_on_and_others_named() -> None:
    rows = np.ones((3, 2), dtype=np.float32)
    passed = finite_rows("fd", "generated", rows, 3)
    assert passed.dtype == np.float64
    np.testing.assert_array_equal(passed, rows)
    with pytest.raises(TooFewImages, match="fd needs 4 generated images or more, got 3"):
        finite_rows("fd", "generated", rows, 4)
    with pytest.raises(MemControlError, match=re.escape("shape (6,), expected (images, features)")):
        finite_rows("fd", "generated", rows.ravel(), 1)


def test_leading_components_are_those_of_sklearn() -> None:
    rng = np.random.default_rng(0)
    reference, other = correlated(rng, 80, 30, 3.0), correlated(rng, 20, 30)
    ours, theirs = LeadingComponents.fit(reference, 5), PCA(5, svd_solver="full").fit(reference)
    np.testing.assert_allclose(np.abs(ours(other)), np.abs(theirs.transform(other)), rtol=1e-8)
    assert ours(other.astype(np.float32)).dtype == np.float64


def test_leading_components_need_enough_reference_images() -> None:
    with pytest.raises(TooFewImages, match=r"16 components need 17 reference images.*lower scoring.components to 9"):
        LeadingComponents.fit(np.random.default_rng(0).normal(size=(10, 40)), 16)


def test_interval_surrounds_the_value_and_has_the_width_of_fresh_draws() -> None:
    rng = np.random.default_rng(0)
    reference = rng.normal(size=(400, 6))
    draws = [rng.normal(size=(100, 6)) * 1.5 + 0.5 for _ in range(60)]
    values = np.array([frechet_distance(rows, reference) for rows in draws])
    intervals = np.array([frechet_interval(rows, reference, rng=np.random.default_rng(1)) for rows in draws[:20]])
    np.testing.assert_allclose(intervals[:, 0], values[:20])
    assert (intervals[:, 1] < values[:20]).all()
    assert (values[:20] < intervals[:, 2]).all()
    width = np.quantile(values, 0.975) - np.quantile(values, 0.025)
    assert (intervals[:, 2] - intervals[:, 1]).mean() == pytest.approx(width, rel=0.3)


def test_interval_surrounds_the_value_where_resampling_adds_bias() -> None:
    rng = np.random.default_rng(0)
    value, low, high = frechet_interval(rng.normal(size=(40, 16)), rng.normal(size=(400, 16)), rng=rng)
    assert low < value < high


def test_interval_depends_on_the_generator_alone() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(50, 3)), rng.normal(size=(50, 3))
    first, second, other = (frechet_interval(a, b, rng=np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first == second != other
