"""Intervals against SciPy, and how often they hold the truth."""

import numpy as np
import pytest
from scipy import stats

from memcontrol.errors import MemControlError, TooFewImages
from memcontrol.metrics.intervals import binomial_interval, mean_interval


@pytest.mark.parametrize("count", [2, 5, 200])
def test_interval_agrees_with_scipy_s_test_of_a_mean(count: int) -> None:
    values = np.random.default_rng(count).normal(25.0, 3.0, count)
    expected = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    np.testing.assert_allclose(mean_interval(values), (values.mean(), expected.low, expected.high), rtol=1e-12)


def test_interval_agrees_with_a_bootstrap_of_many_values() -> None:
    values = np.random.default_rng(0).beta(2.0, 5.0, 400)
    drawn = stats.bootstrap((values,), np.mean, n_resamples=2000, rng=np.random.default_rng(1)).confidence_interval
    _, low, high = mean_interval(values)
    np.testing.assert_allclose((low, high), (drawn.low, drawn.high), atol=0.1 * (high - low))


def test_interval_covers_the_truth_nineteen_times_in_twenty() -> None:
    rng = np.random.default_rng(0)
    intervals = np.array([mean_interval(rng.exponential(1.0, 60)) for _ in range(1000)])
    covered = ((intervals[:, 1] < 1.0) & (intervals[:, 2] > 1.0)).mean()
    assert 0.91 < covered < 0.97


def test_equal_values_have_an_interval_of_no_width() -> None:
    assert mean_interval(np.full(4, 0.25, dtype=np.float32)) == (0.25, 0.25, 0.25)


def test_bad_values_are_refused() -> None:
    with pytest.raises(TooFewImages, match="needs 2 images or more, got 1"):
        mean_interval(np.ones(1))
    with pytest.raises(MemControlError, match="1 of 3 values are not finite"):
        mean_interval(np.array([1.0, np.nan, 2.0]))
    with pytest.raises(MemControlError, match=r"one value per image, got the shape \(3, 2\)"):
        mean_interval(np.ones((3, 2)))


def test_the_interval_of_a_share_is_clopper_and_pearsons() -> None:
    beta = stats.beta
    assert binomial_interval(3, 20) == pytest.approx((beta.ppf(0.025, 3, 18), beta.ppf(0.975, 4, 17)))
    assert binomial_interval(0, 20) == pytest.approx((0.0, 1 - 0.025 ** (1 / 20)))
    assert binomial_interval(20, 20)[1] == 1.0
