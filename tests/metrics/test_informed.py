import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from torchmetrics.image.mifid import MemorizationInformedFrechetInceptionDistance

from memcontrol.errors import MemControlError, TooFewImages
from memcontrol.metrics.full_frechet import full_frechet_distance, full_frechet_interval
from memcontrol.metrics.informed import calibrated_informed_distance, informed_distance, training_distances

Rows = NDArray[np.float64]


def seeded() -> np.random.Generator:
    return np.random.default_rng(1)


def by_torchmetrics(generated: Rows, real: Rows) -> float:
    metric = MemorizationInformedFrechetInceptionDistance(feature=torch.nn.Identity())
    metric.update(torch.from_numpy(real), real=True)
    metric.update(torch.from_numpy(generated), real=False)
    return float(metric.compute())


def images(rng: np.random.Generator, count: int, width: int = 6) -> Rows:
    """Features that are all positive, as most encoders', so that |cos| is cos; most pairs lie nearer than 0.1."""
    return np.exp(rng.normal(size=(count, width)) * 0.4)


def ours(generated: Rows, training: Rows, tau: float = 0.1) -> float:
    frechet = full_frechet_interval(generated, training)
    return informed_distance(frechet, training_distances(generated, training), rng=seeded(), tau=tau)[0]


def test_agrees_with_torchmetrics_where_each_image_has_its_own_nearest() -> None:
    rng = np.random.default_rng(0)
    training = images(rng, 80)
    # Small changes of each training image: nearest of each other both ways, so both means are over the same pairs.
    generated = training + rng.normal(size=training.shape) * 0.02
    distances = cdist(generated, training, "cosine")
    np.testing.assert_array_equal(distances.argmin(axis=0), np.arange(80))
    np.testing.assert_array_equal(distances.argmin(axis=1), np.arange(80))
    assert ours(generated, training) == pytest.approx(by_torchmetrics(generated, training), rel=0.01)


def test_torchmetrics_averages_over_the_training_images_instead() -> None:
    rng = np.random.default_rng(0)
    training = images(rng, 80)
    generated = np.concatenate([training[:10] * 1.5] * 4)  # ten images copied, seventy not
    distance = full_frechet_distance(generated, training)
    per_training = cdist(training, generated, "cosine").min(axis=1).mean()
    assert by_torchmetrics(generated, training) == pytest.approx(distance / per_training, rel=1e-4)
    # Every generated image is a copy, which the mean over them shows.
    assert ours(generated, training) > 1000 * by_torchmetrics(generated, training)


def test_torchmetrics_takes_opposite_features_for_copies() -> None:
    rng = np.random.default_rng(0)
    training = images(rng, 40)
    opposite = -training
    distance = full_frechet_distance(opposite, training)
    assert ours(opposite, training) == pytest.approx(distance)
    assert by_torchmetrics(opposite, training) > 1e6 * distance


@pytest.mark.parametrize("function", [ours, by_torchmetrics])
def test_is_the_plain_distance_where_images_are_far(function) -> None:
    rng = np.random.default_rng(0)
    training, generated = np.abs(rng.normal(size=(60, 30))), np.abs(rng.normal(size=(70, 30)))
    assert training_distances(generated, training).mean() > 0.1
    assert function(generated, training) == pytest.approx(full_frechet_distance(generated, training), rel=1e-4)


def test_jumps_at_tau() -> None:
    frechet, distances = (2.0, 1.8, 2.2), np.full(50, 0.1)
    below = informed_distance(frechet, distances - 1e-4, rng=seeded())[0]
    above = informed_distance(frechet, distances + 1e-4, rng=seeded())[0]
    assert (below, above) == (pytest.approx(20.0, rel=0.01), 2.0)
    assert informed_distance(frechet, distances, rng=seeded(), tau=0.05)[0] == 2.0


def test_the_calibrated_form_does_not_jump() -> None:
    frechet, honest = (2.0, 1.8, 2.2), np.full(50, 0.1)
    expected = {0.3: 2.0, 0.1001: 2.0, 0.0999: 2.0 / 0.999, 0.05: 4.0, 0.01: 20.0}
    for distance, value in expected.items():
        measured = calibrated_informed_distance(frechet, np.full(40, distance), honest, rng=seeded())[0]
        assert measured == pytest.approx(value, rel=2e-4)


def test_distances_are_cosine_distances_to_the_nearest() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(30, 5)), rng.normal(size=(40, 5))
    np.testing.assert_allclose(training_distances(a, b), cdist(a, b, "cosine").min(axis=1), atol=1e-6)


def planted(share: float) -> tuple[Rows, Rows, Rows, Rows]:
    """Generated images with a share of slightly changed training images, training, reference and held-out images."""
    rng = np.random.default_rng(0)
    training, reference, honest, fresh = (images(rng, count, 12) for count in (64, 300, 200, 200))
    copies = training[rng.integers(64, size=200)] * (1 + rng.normal(size=(200, 12)) * 0.01)
    return np.where(np.arange(200)[:, None] < share * 200, copies, fresh), training, reference, honest


def test_penalties_rise_with_the_share_of_planted_copies() -> None:
    frechet, paper, calibrated = (2.0, 1.8, 2.2), [], []
    for share in (0.0, 0.1, 0.25, 0.5, 0.75, 1.0):
        generated, training, _, honest = planted(share)
        distances, heldout = training_distances(generated, training), training_distances(honest, training)
        paper.append(informed_distance(frechet, distances, rng=seeded(), tau=0.5)[0])
        calibrated.append(calibrated_informed_distance(frechet, distances, heldout, rng=seeded())[0])
    assert (np.diff(paper) > 0).all()
    assert (np.diff(calibrated) > 0).all()
    assert calibrated[0] == pytest.approx(2.0, rel=0.1)


def test_whole_measures_rise_as_half_and_all_images_are_copies() -> None:
    scores = []
    for share in (0.0, 0.5, 1.0):
        generated, training, reference, honest = planted(share)
        frechet = full_frechet_interval(generated, reference)
        distances, heldout = training_distances(generated, training), training_distances(honest, training)
        paper = informed_distance(frechet, distances, rng=seeded(), tau=0.5)
        scores.append((paper, calibrated_informed_distance(frechet, distances, heldout, rng=seeded())))
    for clean, half, copied in zip(*scores, strict=True):
        assert clean[0] < half[0] < copied[0]
        assert clean[2] < copied[1]
        assert all(low < value < high for value, low, high in (clean, half, copied))


def test_intervals_cover_the_value_of_many_images() -> None:
    rng = np.random.default_rng(0)
    training, reference, honest = images(rng, 64), images(rng, 400), images(rng, 1000)
    many = images(rng, 60)  # a model that makes these, slightly changed

    def generated(count: int) -> Rows:
        return np.concatenate([many, training])[rng.integers(124, size=count)] * np.exp(
            rng.normal(size=(count, 6)) * 0.1
        )

    heldout = training_distances(honest, training)
    covered = 0
    whole = generated(3000)
    frechet = full_frechet_interval(whole, reference)
    true = calibrated_informed_distance(frechet, training_distances(whole, training), heldout, rng=rng, resamples=1)[0]
    for _ in range(40):
        rows = generated(300)
        measured = full_frechet_interval(rows, reference)
        _, low, high = calibrated_informed_distance(
            measured, training_distances(rows, training), heldout, rng=rng, resamples=200
        )
        covered += low < true < high
    assert covered >= 34


def test_intervals_join_both_errors() -> None:
    spread = np.random.default_rng(0).uniform(0.02, 0.06, size=100)
    exact = informed_distance((2.0, 2.0, 2.0), spread, rng=seeded())
    still = informed_distance((2.0, 1.6, 2.4), np.full(100, spread.mean()), rng=seeded())
    joined = informed_distance((2.0, 1.6, 2.4), spread, rng=seeded())
    assert exact[0] == pytest.approx(joined[0])
    assert still[1:] == pytest.approx((1.6 / (spread.mean() + 1e-6), 2.4 / (spread.mean() + 1e-6)))
    half = 1.96 * spread.std() / np.sqrt(100) / spread.mean()
    assert np.log(exact[2] / exact[0]) == pytest.approx(half, rel=0.15)
    for end in (1, 2):
        expected = np.hypot(np.log(exact[end] / exact[0]), np.log(still[end] / still[0]))
        assert abs(np.log(joined[end] / joined[0])) == pytest.approx(expected)


def test_distances_of_zero_and_below_keep_ends_in_order() -> None:
    distances = np.full(20, 0.05)
    assert informed_distance((0.0, 0.0, 1.0), distances, rng=seeded()) == pytest.approx((0.0, 0.0, 20.0), rel=1e-3)
    assert informed_distance((-0.5, -1.0, 1.0), distances, rng=seeded()) == pytest.approx((0.0, 0.0, 20.0), rel=1e-3)
    value, low, high = informed_distance((0.5, 0.0, 1.0), distances, rng=seeded())
    assert (value, low, high) == pytest.approx((10.0, 0.0, 20.0), rel=1e-3)


def test_bad_input_is_refused() -> None:
    frechet, distances = (1.0, 0.9, 1.1), np.full(5, 0.2)
    with pytest.raises(TooFewImages, match="1 generated images or more, got 0"):
        informed_distance(frechet, distances[:0], rng=seeded())
    with pytest.raises(MemControlError, match="generated image 2"):
        informed_distance(frechet, np.array([0.1, 0.1, np.nan]), rng=seeded())
    with pytest.raises(MemControlError, match="expected a finite value"):
        informed_distance((np.nan, 0.0, 1.0), distances, rng=seeded())
    with pytest.raises(MemControlError, match="tau is 0"):
        informed_distance(frechet, distances, rng=seeded(), tau=0.0)
    with pytest.raises(TooFewImages, match="1 held-out images or more, got 0"):
        calibrated_informed_distance(frechet, distances, distances[:0], rng=seeded())
    with pytest.raises(MemControlError, match="they are training images"):
        calibrated_informed_distance(frechet, distances, np.zeros(4), rng=seeded())
    with pytest.raises(MemControlError, match="training image 0"):
        training_distances(np.ones((2, 3)), np.full((2, 3), np.inf))
    with pytest.raises(TooFewImages, match="1 training images or more"):
        training_distances(np.ones((2, 3)), np.ones((0, 3)))
