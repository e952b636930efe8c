import numpy as np
import pytest
import torch
from torchmetrics.image.kid import KernelInceptionDistance

from memcontrol.errors import MemControlError, TooFewImages
from memcontrol.metrics.kernel import kernel_distance, kernel_interval


def test_agrees_with_the_sum_over_pairs() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(7, 5)), rng.normal(size=(9, 5)) + 0.3

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / 5 + 1) ** 3)

    within_a = np.mean([kernel(x, y) for i, x in enumerate(a) for j, y in enumerate(a) if i != j])
    within_b = np.mean([kernel(x, y) for i, x in enumerate(b) for j, y in enumerate(b) if i != j])
    across = np.mean([kernel(x, y) for x in a for y in b])
    assert kernel_distance(a, b) == pytest.approx(within_a + within_b - 2 * across)


def test_is_unbiased_at_few_images() -> None:
    rng = np.random.default_rng(0)
    values = np.array([kernel_distance(rng.normal(size=(8, 10)), rng.normal(size=(8, 10))) for _ in range(400)])
    assert abs(values.mean()) < 3 * values.std() / np.sqrt(len(values))
    assert (values < 0).any()


def test_interval_surrounds_the_value_and_has_the_width_of_fresh_draws() -> None:
    rng = np.random.default_rng(0)
    reference = rng.normal(size=(300, 6))
    draws = [rng.normal(size=(80, 6)) + 0.7 for _ in range(60)]
    values = np.array([kernel_distance(rows, reference) for rows in draws])
    intervals = np.array([kernel_interval(rows, reference, rng=np.random.default_rng(1)) for rows in draws[:20]])
    np.testing.assert_allclose(intervals[:, 0], values[:20])
    assert (intervals[:, 1] < values[:20]).all()
    assert (values[:20] < intervals[:, 2]).all()
    width = np.quantile(values, 0.975) - np.quantile(values, 0.025)
    assert (intervals[:, 2] - intervals[:, 1]).mean() == pytest.approx(width, rel=0.3)


def test_refuses_too_few_images() -> None:
    rows = np.ones((5, 3))
    with pytest.raises(TooFewImages, match="2 generated images or more, got 1"):
        kernel_distance(rows[:1], rows)
    with pytest.raises(TooFewImages, match="2 reference images or more, got 1"):
        kernel_distance(rows, rows[:1])
    with pytest.raises(TooFewImages, match="4 generated images or more, got 3"):
        kernel_interval(rows[:3], rows, rng=np.random.default_rng(0))


def test_features_that_are_not_finite_are_named() -> None:
    rows = np.random.default_rng(0).normal(size=(6, 3))
    rows[4, 1] = np.nan
    with pytest.raises(MemControlError, match="features of reference image 4 are not finite"):
        kernel_distance(np.ones((5, 3)), rows)


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance` will save all extracted features")
def test_agrees_with_torchmetrics_on_whole_sets() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(40, 5)), rng.normal(size=(40, 5)) + 0.3
    extractor = torch.nn.Identity()
    extractor.num_features = 5
    metric = KernelInceptionDistance(feature=extractor, subsets=1, subset_size=40)
    metric.update(torch.from_numpy(b), real=True)
    metric.update(torch.from_numpy(a), real=False)
    assert kernel_distance(a, b) == pytest.approx(float(metric.compute()[0]), rel=1e-5)
