"""The process and its expected improvement against dense algebra, finite differences, Monte Carlo and quadrature."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from memcontrol.study.front import front_places, front_positions, hypervolume
from memcontrol.study.hamming import (
    DECAY,
    USUAL,
    WIDTH,
    Process,
    below,
    cost,
    expected_improvement,
    kernels,
    likeliest,
    own_kernels,
    size_kernel,
)

FRONT = np.array([[-1.0, 0.8], [-0.2, 0.1], [0.5, -0.9]])
REFERENCE = np.array([1.0, 1.2])


def places(count=12, *, bits=5, others=0, seed=0):
    """Rows of -1 and 1, and of columns between."""
    rng = np.random.default_rng(seed)
    return np.hstack([rng.choice((-1.0, 1.0), (count, bits)), rng.uniform(-1, 1, (count, others))])


def brute(one, other):
    """The three kernels of two rows, by their definition."""
    count = len(one)
    pairs = sum(one[i] * one[j] * other[i] * other[j] for i in range(count) for j in range(count) if i != j)
    distance = sum(abs(a - b) for a, b in zip(one, other, strict=True)) / (2 * count)
    return one @ other / count, pairs / (count * (count - 1)), np.exp(-DECAY * distance)


@pytest.mark.parametrize("others", [0, 2])
def test_kernels_are_their_definition(others):
    first, second = places(6, others=others), places(7, others=others, seed=1)
    expected = np.array([[brute(one, other) for other in second] for one in first]).transpose(2, 0, 1)
    np.testing.assert_allclose(kernels(first, second), expected, atol=1e-12)


@pytest.mark.parametrize("others", [0, 2])
def test_kernels_of_rows_with_themselves_are_the_diagonal(others):
    rows = places(others=others)
    np.testing.assert_allclose(own_kernels(rows), kernels(rows, rows).diagonal(axis1=1, axis2=2), atol=1e-12)


def test_a_mask_has_all_kernels_one_with_itself_and_one_group_is_enough():
    np.testing.assert_allclose(own_kernels(places(4)), 1.0)
    assert np.isfinite(kernels(places(3, bits=1), places(3, bits=1))).all()


def test_the_kernel_of_sizes_is_one_where_they_are_equal_and_falls_with_their_difference():
    sizes = np.array([0.0, 0.3, 1.0])
    found = size_kernel(sizes, sizes[:2])
    np.testing.assert_allclose(found[:2], [[1, np.exp(-0.045 / WIDTH**2)], [np.exp(-0.045 / WIDTH**2), 1]])
    assert found[2, 0] < found[2, 1] < 1


def test_the_likelihood_has_the_slope_of_its_finite_differences():
    rows, rng = places(others=1), np.random.default_rng(3)
    parts, values = kernels(rows, rows), rng.normal(size=len(rows))
    usual, logs = np.log((*USUAL[:3], 0.1)), rng.normal(size=4)
    _, slope = cost(logs, parts, values, usual)
    steps = 1e-5 * np.eye(4)
    found = [(cost(logs + s, parts, values, usual)[0] - cost(logs - s, parts, values, usual)[0]) / 2e-5 for s in steps]
    np.testing.assert_allclose(slope, found, rtol=1e-5)


def test_the_likelihood_is_that_of_a_normal_density():
    rows, values = places(6), np.random.default_rng(0).normal(size=6)
    parts, usual, logs = kernels(rows, rows), np.zeros(4), np.array([0.1, -0.4, -1.0, -0.7])
    dense = np.tensordot(np.exp(logs[:-1]), parts, 1) + (np.exp(logs[-1]) + 1e-8) * np.eye(6)
    expected = 0.5 * values @ np.linalg.solve(dense, values) + 0.5 * np.linalg.slogdet(dense)[1]
    expected += 0.5 * (logs @ logs) / 1.5**2
    assert cost(logs, parts, values, usual)[0] == pytest.approx(expected)


def test_the_likeliest_variances_tell_linear_values_from_noise():
    rows, rng = places(60, bits=6), np.random.default_rng(0)
    parts = kernels(rows, rows)
    linear, _, _, noise = likeliest(parts, rows @ rng.normal(size=6) / 2, USUAL[:3])
    assert linear > 20 * noise
    linear, _, _, noise = likeliest(parts, rng.normal(size=60), USUAL[:3])
    assert noise > linear


def test_values_that_are_all_equal_leave_a_process():
    rows = places()
    parts = kernels(rows, rows)
    process = Process.given(likeliest(parts, np.zeros(12), USUAL[:3]), parts, np.zeros(12))
    mean, spread = process.at(kernels(places(3, seed=5), rows), own_kernels(places(3, seed=5)))
    np.testing.assert_array_equal(mean, 0)
    assert (spread > 0).all()


def test_a_process_is_the_normal_distribution_given_its_values():
    rows, new, values = places(), places(5, seed=9), np.random.default_rng(2).normal(size=12)
    variances = np.array([0.6, 0.3, 0.2, 0.05])
    process = Process.given(variances, kernels(rows, rows), values)
    inner, between, own = (
        np.tensordot(variances[:-1], kernels(a, b), 1) for a, b in ((rows, rows), (new, rows), (new, new))
    )
    inverse = np.linalg.inv(inner + 0.05 * np.eye(12))
    mean, spread = process.at(kernels(new, rows), own_kernels(new))
    np.testing.assert_allclose(mean, between @ inverse @ values, rtol=1e-5)
    np.testing.assert_allclose(spread**2, np.diag(own - between @ inverse @ between.T), rtol=1e-5)
    np.testing.assert_allclose(process.mean(kernels(new, rows)), mean)


def test_what_lies_below_a_bound_is_an_integral():
    for bound, mean, spread in ((0.3, 1.0, 0.5), (2.0, 0.1, 0.7), (-1.0, -1.0, 2.0)):
        expected, _ = quad(lambda x, b=bound, m=mean, s=spread: (b - x) * norm.pdf(x, m, s), -30, bound)
        assert below(np.array(bound), np.array(mean), np.array(spread)) == pytest.approx(expected, rel=1e-6)


def test_expected_hypervolume_improvement_is_that_of_samples():
    rng = np.random.default_rng(0)
    mean, spread = np.array([[-0.6, 0.0], [0.9, 1.1], [1.0, 0.5]]), np.array([[0.5, 0.4], [0.3, 0.6], [0.6, 0.5]])
    before = hypervolume(FRONT, REFERENCE)
    for row, found in enumerate(expected_improvement(mean, spread, FRONT, REFERENCE)):
        drawn = mean[row] + spread[row] * rng.normal(size=(1500, 2))
        gains = [hypervolume(np.vstack([FRONT, point]), REFERENCE) - before for point in drawn]
        assert found == pytest.approx(np.mean(gains), abs=4 * np.std(gains) / np.sqrt(1500) + 1e-9)


def test_a_certain_point_improves_by_its_hypervolume_and_a_dominated_one_not_at_all():
    certain = np.array([[-0.6, 0.0], [-2.0, -2.0], [0.0, 0.5], [-1.0, 0.8], [1.5, -3.0]])
    found = expected_improvement(certain, np.full((5, 2), 1e-9), FRONT, REFERENCE)
    expected = [hypervolume(np.vstack([FRONT, point]), REFERENCE) - hypervolume(FRONT, REFERENCE) for point in certain]
    np.testing.assert_allclose(found, expected, atol=1e-7)
    np.testing.assert_allclose(found[2:], 0, atol=1e-7)


def test_of_one_objective_the_improvement_is_what_lies_below_the_least():
    mean, spread = np.array([[0.2], [-1.0]]), np.array([[0.5], [1e-9]])
    found = expected_improvement(mean, spread, np.array([[-0.1]]), np.array([9.0]))
    drawn = np.maximum(-0.1 - np.random.default_rng(0).normal(0.2, 0.5, 200_000), 0)
    np.testing.assert_allclose(found, [drawn.mean(), 0.9], rtol=0.02)


@pytest.mark.parametrize("objectives", [1, 2])
def test_the_front_is_what_no_row_dominates(objectives):
    points = np.random.default_rng(0).integers(12, size=(60, objectives)).astype(float)
    found, expected = points[front_places(points)], np.unique(points[front_positions(points)], axis=0)
    np.testing.assert_array_equal(found, expected)
