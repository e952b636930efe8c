import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.linalg import sqrtm
from torchmetrics.image.fid import FrechetInceptionDistance

from memcontrol.errors import MemControlError, TooFewImages
from memcontrol.metrics.frechet import LeadingComponents, frechet_distance
from memcontrol.metrics.full_frechet import (
    ReferenceGaussian,
    _Sample,
    extrapolated_frechet,
    full_frechet_distance,
    full_frechet_interval,
)

Rows = NDArray[np.float64]
DECAY = 1.0 / np.sqrt(np.arange(1, 41))


def drawn(rng: np.random.Generator, count: int, scale: float = 1.0, shift: float = 0.0) -> Rows:
    """`(count, 40)`, variances falling as those of an encoder's features do."""
    return rng.normal(size=(count, 40)) * DECAY * scale + shift


def transported(a: Rows, b: Rows) -> float:
    """Distance through SciPy, with tr (A B)^(1/2) on the rows of the smaller set, so that it holds for any rank."""
    centred = [(rows - rows.mean(axis=0)) / np.sqrt(len(rows) - 1) for rows in (a, b)]
    traces = [np.trace(rows @ rows.T) for rows in centred]
    product = centred[0] @ centred[1].T
    cross = np.linalg.svd(product, compute_uv=False).sum()
    return float(((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum() + sum(traces) - 2 * cross)


def by_scipy(a: Rows, b: Rows) -> float:
    covariances = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    cross = np.trace(sqrtm(covariances[0] @ covariances[1]).real)
    return float(((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum() + sum(map(np.trace, covariances)) - 2 * cross)


@pytest.mark.parametrize(("count", "others"), [(60, 90), (400, 50)])
def test_agrees_with_scipy_and_with_the_strict_distance_at_full_rank(count: int, others: int) -> None:
    rng = np.random.default_rng(count)
    a, b = drawn(rng, count, 1.3, 0.2), drawn(rng, others)
    measured = full_frechet_distance(a, b)
    assert measured == pytest.approx(by_scipy(a, b), rel=1e-8)
    assert measured == pytest.approx(frechet_distance(a, b), rel=1e-8)


@pytest.mark.parametrize(("count", "others"), [(2, 2), (2, 90), (12, 30), (30, 12), (39, 41), (90, 7), (41, 40)])
def test_agrees_with_singular_values_where_covariances_are_singular(count: int, others: int) -> None:
    rng = np.random.default_rng(count)
    a, b = drawn(rng, count, 1.3, 0.2), drawn(rng, others)
    assert full_frechet_distance(a, b) == pytest.approx(transported(a, b), rel=1e-6)
    assert full_frechet_interval(a, b)[0] == pytest.approx(transported(a, b), rel=1e-6)


def test_singular_covariances_are_the_limit_of_regular_ones() -> None:
    # On the span of both sets and beyond, a little variance everywhere makes SciPy's root regular.
    rng = np.random.default_rng(0)
    a, b = drawn(rng, 10, 1.3), drawn(rng, 14)
    regular = [np.cov(rows, rowvar=False) + 1e-10 * np.eye(40) for rows in (a, b)]
    root = sqrtm(regular[1]).real
    cross = np.trace(sqrtm(root @ regular[0] @ root).real)
    expected = ((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum() + sum(map(np.trace, regular)) - 2 * cross
    assert full_frechet_distance(a, b) == pytest.approx(expected, abs=1e-3)


def test_agrees_with_torchmetrics() -> None:
    rng = np.random.default_rng(3)
    a, b = drawn(rng, 120, 1.2, 0.1), drawn(rng, 150)
    extractor = torch.nn.Identity()
    extractor.num_features = 40
    metric = FrechetInceptionDistance(feature=extractor).set_dtype(torch.float64)
    metric.update(torch.from_numpy(b), real=True)
    metric.update(torch.from_numpy(a), real=False)
    assert full_frechet_distance(a, b) == pytest.approx(float(metric.compute()), rel=1e-5)


@pytest.mark.parametrize("count", [20, 200])
def test_is_zero_for_one_set_symmetric_and_moved_by_a_shift(count: int) -> None:
    rng = np.random.default_rng(0)
    a, b = drawn(rng, count), drawn(rng, 70)
    assert full_frechet_distance(a, a) == pytest.approx(0.0, abs=1e-5)
    assert full_frechet_distance(a, b) == pytest.approx(full_frechet_distance(b, a), rel=1e-6)
    assert full_frechet_distance(a + 2.0, a) == pytest.approx(4.0 * 40, rel=1e-6)


def test_a_fitted_reference_gives_the_same_as_its_images() -> None:
    rng = np.random.default_rng(0)
    a, b = drawn(rng, 20), drawn(rng, 70)
    fitted = ReferenceGaussian.fit(b)
    np.testing.assert_allclose(fitted.factor.T @ fitted.factor, np.cov(b, rowvar=False), atol=1e-12)
    assert fitted.trace == pytest.approx(np.trace(np.cov(b, rowvar=False)))
    assert full_frechet_interval(a, fitted) == full_frechet_interval(a, b)


def test_equal_generated_images_are_a_gaussian_of_no_width() -> None:
    rng = np.random.default_rng(0)
    reference = drawn(rng, 30)
    collapsed = np.tile(reference[0], (25, 1))
    expected = ((reference[0] - reference.mean(axis=0)) ** 2).sum() + np.trace(np.cov(reference, rowvar=False))
    assert full_frechet_interval(collapsed, reference) == pytest.approx((expected, expected, expected))


@pytest.mark.parametrize("count", [15, 120])
def test_influences_are_derivatives_by_an_images_weight(count: int) -> None:
    rng = np.random.default_rng(count)
    rows, reference = drawn(rng, count, 1.3, 0.2), ReferenceGaussian.fit(drawn(rng, 60))
    _, influences = _Sample.of(rows, reference).distance_and_influences()

    def weighted(weights: Rows) -> float:
        mean = weights @ rows
        centred = (rows - mean) * np.sqrt(weights * count / (count - 1))[:, None]
        cross = np.linalg.svd(centred @ reference.factor.T, compute_uv=False).sum()
        return float(((mean - reference.mean) ** 2).sum() + (centred**2).sum() + reference.trace - 2 * cross)

    step, numeric = 1e-5, []
    for image in range(5):
        towards = np.full(count, -1.0 / count)
        towards[image] += 1.0
        ends = [weighted(np.full(count, 1.0 / count) + sign * step * towards) for sign in (1, -1)]
        numeric.append((ends[0] - ends[1]) / (2 * step))
    np.testing.assert_allclose(influences[:5] - influences.mean(), numeric, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("count", "others"), [(30, 60), (120, 200)])
def test_interval_has_the_width_of_fresh_draws(count: int, others: int) -> None:
    rng = np.random.default_rng(0)
    reference = ReferenceGaussian.fit(drawn(rng, others))
    intervals = np.array([full_frechet_interval(drawn(rng, count, 1.2, 0.1), reference) for _ in range(80)])
    values, widths = intervals[:, 0], intervals[:, 2] - intervals[:, 1]
    assert (intervals[:, 1] < values).all()
    assert (values < intervals[:, 2]).all()
    assert 0.8 < widths.mean() / (2 * 1.96 * values.std()) < 1.6
    assert (np.abs(values - values.mean()) < widths / 2).mean() > 0.9


def test_is_biased_upward_at_few_images() -> None:
    rng = np.random.default_rng(0)
    reference = ReferenceGaussian.fit(drawn(rng, 400))
    means = [np.mean([full_frechet_distance(drawn(rng, n), reference) for _ in range(10)]) for n in (20, 60, 300)]
    assert means[0] > 2 * means[1] > 4 * means[2] > 0


@pytest.mark.parametrize(("width", "count"), [(16, 256), (40, 400)])
def test_extrapolation_removes_the_bias_of_few_images(width: int, count: int) -> None:
    rng = np.random.default_rng(0)
    many = drawn(rng, 20000)
    project = LeadingComponents.fit(many, width)
    reference = ReferenceGaussian.fit(project(many))
    true = frechet_distance(project(drawn(rng, 20000, 1.2, 0.1)), project(many))
    biased, covered, values = [], 0, []
    for _ in range(30):
        rows = project(drawn(rng, count, 1.2, 0.1))
        biased.append(full_frechet_distance(rows, reference))
        value, low, high = extrapolated_frechet(rows, reference, rng=rng)
        values.append(value)
        covered += low < true < high
    assert abs(np.mean(values) - true) < 0.4 * (np.mean(biased) - true)
    assert covered >= 25


def test_extrapolation_is_a_straight_line_through_subsets() -> None:
    rng = np.random.default_rng(0)
    rows, reference = rng.normal(size=(90, 3)), ReferenceGaussian.fit(rng.normal(size=(200, 3)))
    value, low, high = extrapolated_frechet(rows, reference, rng=np.random.default_rng(5), draws=2)
    again, sizes = np.random.default_rng(5), np.linspace(30, 90, 15).round().astype(int)
    distances = [
        np.mean([full_frechet_distance(rows[again.permutation(90)[:size]], reference) for _ in range(2)])
        for size in sizes
    ]
    assert value == pytest.approx(np.polyfit(1.0 / sizes, distances, 1)[1])
    assert low < value < high


def test_extrapolation_refuses_too_few_images() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(TooFewImages, match="on 40 features needs 160 generated images or more, got 159: sample more"):
        extrapolated_frechet(drawn(rng, 159), drawn(rng, 50), rng=rng)
    with pytest.raises(TooFewImages, match="on 2 features needs 60 generated images"):
        extrapolated_frechet(rng.normal(size=(59, 2)), rng.normal(size=(50, 2)), rng=rng)


def test_bad_features_are_refused() -> None:
    rng = np.random.default_rng(0)
    rows = drawn(rng, 10)
    broken = rows.copy()
    broken[3, 2] = np.nan
    for a, b, message in (
        (rows[:1], rows, "needs 2 generated images or more, got 1"),
        (rows, rows[:1], "needs 2 reference images or more, got 1"),
        (broken, rows, "generated image 3"),
        (rows, broken, "reference image 3"),
        (rows[:, :5], rows, "generated images have 5 features, the reference 40"),
        (rows, np.ones((9, 40)), "all 9 reference images have the same features"),
    ):
        with pytest.raises(MemControlError, match=message):
            full_frechet_distance(a, b)
        with pytest.raises(MemControlError, match=message):
            full_frechet_interval(a, b)
