from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from scipy.special import comb

from memcontrol.data.brain import draw_slices
from memcontrol.encoders import PixelEncoder
from memcontrol.metrics.copying import BETTER, Neighbourhood, _search, _Sides, _statistics, measure_copying, survival
from memcontrol.metrics.frechet import TooFewImages


@pytest.fixture(scope="module")
def slices() -> NDArray[np.uint8]:
    """1,000 exchangeable brain slices."""
    return draw_slices(1000, seed=3, stream="copying", resolution=32).pixels()


@pytest.fixture(scope="module")
def features(slices: NDArray[np.uint8]) -> NDArray[np.float32]:
    return PixelEncoder()(slices)


def brute_force(
    generated: NDArray[np.float64],
    training: NDArray[np.float64],
    heldout: NDArray[np.float64],
    calibration: NDArray[np.float64],
) -> dict[str, float]:
    """Every measure by its definition, subsets enumerated one by one."""
    size = min(len(training), len(heldout))
    to_training, to_heldout = cdist(generated, training, "cosine"), cdist(generated, heldout, "cosine")
    gaps, chances = [], []
    for row_training, row_heldout in zip(to_training, to_heldout, strict=True):
        ours = np.array([min(subset) for subset in combinations(row_training, size)])
        theirs = np.array([min(subset) for subset in combinations(row_heldout, size)])
        gaps.append(theirs.mean() - ours.mean())
        difference = theirs[:, None] - ours[None, :]
        chances.append((difference > 1e-9).mean() + 0.5 * (np.abs(difference) <= 1e-9).mean())

    def ratios(queries: NDArray[np.float64]) -> NDArray[np.float64]:
        two = np.sort(cdist(queries, training, "cosine"), axis=1)[:, :2]
        return two[:, 0] / two[:, 1]

    return {
        "copy_gap": float(np.mean(gaps)),
        "copy_tail": float(np.quantile(gaps, 0.95)),
        "closer_share": float(np.mean(chances)),
        "nn_ratio_share": float((ratios(generated) < np.quantile(ratios(calibration), 0.05)).mean()),
        "amd": float(to_training.min(axis=1).mean()),
    }


@pytest.mark.parametrize(("training", "heldout"), [(3, 9), (5, 5), (8, 4), (2, 1)])
def test_measures_agree_with_enumerated_subsets(training: int, heldout: int) -> None:
    rng = np.random.default_rng(training)
    pools = [rng.normal(size=(count, 4)) for count in (25, training, heldout, 30)]
    measured = measure_copying(*pools, rng=rng, permutations=9)
    expected = brute_force(*pools)
    assert {name: copying.raw for name, copying in measured.items()} == pytest.approx(expected, abs=1e-6)


def test_ties_count_half() -> None:
    rng = np.random.default_rng(0)
    generated, training, calibration = rng.normal(size=(20, 4)), rng.normal(size=(4, 4)), rng.normal(size=(30, 4))
    # Every training image also stands in the held-out set, twice, at another length.
    heldout = np.concatenate([training * 2, training * 3, rng.normal(size=(2, 4))])
    measured = measure_copying(generated, training, heldout, calibration, rng=rng, permutations=9)
    assert measured["closer_share"].raw == pytest.approx(
        brute_force(generated, training, heldout, calibration)["closer_share"]
    )
    same = measure_copying(generated, training, training, calibration, rng=rng, permutations=9)
    assert same["closer_share"].raw == pytest.approx(0.5)
    assert same["copy_gap"].raw == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(("population", "size"), [(10, 3), (10, 10), (300, 32), (9000, 1000)])
def test_survival_is_a_ratio_of_binomials(population: int, size: int) -> None:
    chances = survival(population, size)
    assert (len(chances), chances[0], chances[-1]) == (population + 1, 1.0, 0.0)
    k = np.arange(min(40, population + 1))
    if population < 1000:
        np.testing.assert_allclose(chances[k], comb(population - k, size) / comb(population, size), rtol=1e-9)
    assert np.isfinite(chances).all()
    assert (np.diff(chances) <= 0).all()


def test_the_depth_of_permutations_neglects_nothing(features: NDArray[np.float32]) -> None:
    generated, training, heldout, honest = features[:60], features[60:90], features[90:600], features[600:700]
    sides, pool = _Sides.of(30, 510), np.concatenate([training, heldout])
    assert sides.depth < len(pool) * 0.75
    rng = np.random.default_rng(0)
    whole = [Neighbourhood.search(queries, pool, len(pool)) for queries in (generated, honest)]
    for _ in range(5):
        members = rng.permutation(len(pool)) < 30
        near = [neighbours.first(sides.depth) for neighbours in whole]
        shallow, deep = _statistics(*near, members, sides), _statistics(*whole, members, sides)
        assert shallow == pytest.approx(deep, abs=1e-7)


def test_true_memberships_are_searched_deeper_where_one_side_is_far() -> None:
    rng = np.random.default_rng(0)
    training, heldout = rng.normal(size=(40, 8)) - 4.0, rng.normal(size=(400, 8)) + 4.0
    generated = heldout[:10] + 0.1
    members = np.arange(440) < 40
    sides = _Sides.of(40, 400)
    assert _search(generated, np.concatenate([training, heldout]), members, sides).distances.shape[1] > sides.depth
    measured = measure_copying(generated, training, heldout, heldout, rng=rng, permutations=9)
    nearest_training = cdist(generated, training, "cosine").min(axis=1).mean()
    assert measured["amd"].raw == pytest.approx(nearest_training, abs=1e-5)
    assert measured["closer_share"].raw == pytest.approx(0.0, abs=1e-9)


def split(features: NDArray[np.float32], rng: np.random.Generator) -> tuple[NDArray[np.float32], ...]:
    """Generated 128, training 32, held-out 256 and calibration 200, all honest."""
    drawn = features[rng.permutation(len(features))]
    return drawn[:128], drawn[128:160], drawn[160:416], drawn[416:616]


def test_planted_copies_leave_every_null_band(slices: NDArray[np.uint8], features: NDArray[np.float32]) -> None:
    rng = np.random.default_rng(0)
    generated, training, heldout, calibration = split(np.arange(1000)[:, None], rng)
    noise = rng.normal(scale=4.0, size=(64, 32, 32, 3))
    copies = np.clip(slices[training[np.arange(64) % 32, 0]] + noise, 0, 255).astype(np.uint8)
    honest = features[generated[:, 0]]
    planted = np.concatenate([PixelEncoder()(copies), honest[64:]])
    others = [features[part[:, 0]] for part in (training, heldout, calibration)]
    before = measure_copying(honest, *others, rng=np.random.default_rng(1))
    after = measure_copying(planted, *others, rng=np.random.default_rng(1))
    for name, better in BETTER.items():
        low, middle, high = before[name].null
        assert low <= before[name].raw <= high, name
        assert before[name].p > 0.025, name
        low, middle, high = after[name].null
        assert after[name].p <= 0.01, name
        if better == "lower":
            assert after[name].raw > high, name
            assert after[name].low > middle, name
        else:
            assert after[name].raw < low, name
            assert after[name].high < middle, name


def test_a_few_copies_show_in_the_tail(features: NDArray[np.float32]) -> None:
    generated, training, heldout, calibration = split(features, np.random.default_rng(4))
    few = np.concatenate([training[:12], generated[12:]])
    before, after = (
        measure_copying(images, training, heldout, calibration, rng=np.random.default_rng(1))
        for images in (generated, few)
    )
    assert after["copy_tail"].raw > 2 * before["copy_tail"].raw
    assert after["copy_tail"].raw > after["copy_tail"].null[2]


def test_chances_of_honest_images_are_uniform(features: NDArray[np.float32]) -> None:
    chances: dict[str, list[float]] = {name: [] for name in BETTER}
    for seed in range(40):
        rng = np.random.default_rng(seed)
        for name, copying in measure_copying(*split(features, rng), rng=rng, permutations=49).items():
            chances[name].append(copying.p)
    for name, drawn in chances.items():
        # Of 40 draws, binomial limits that hold with probability 0.995.
        assert sum(p <= 0.1 for p in drawn) <= 9, name
        assert 11 <= sum(p <= 0.5 for p in drawn) <= 29, name


def test_luck_is_clipped_and_kept(features: NDArray[np.float32]) -> None:
    _, training, heldout, calibration = split(features, np.random.default_rng(0))
    # Copies of the held-out side look less copied than honest images.
    measured = measure_copying(heldout[:128], training, heldout, calibration, rng=np.random.default_rng(0))["copy_gap"]
    assert measured.raw < measured.null[0]
    assert measured.value == measured.null[1]
    assert measured.low < measured.value < measured.high
    assert measured.p > 0.975


def test_blank_images_are_no_copies_and_no_error(features: NDArray[np.float32]) -> None:
    _, training, heldout, calibration = split(features, np.random.default_rng(0))
    blank = np.zeros((16, features.shape[1]), dtype=np.float32)
    measured = measure_copying(blank, training, heldout, calibration, rng=np.random.default_rng(0), permutations=19)
    assert [measured[name].raw for name in ("copy_gap", "closer_share", "nn_ratio_share", "amd")] == [
        0.0,
        0.5,
        0.0,
        1.0,
    ]


def test_too_few_images_are_refused() -> None:
    rows = np.random.default_rng(0).normal(size=(6, 3))
    for counts, message in (
        ((0, 2, 2, 2), "1 generated images or more, got 0"),
        ((2, 1, 2, 2), "2 training images or more, got 1"),
        ((2, 2, 0, 2), "1 held-out images or more, got 0"),
        ((2, 2, 2, 0), "1 calibration images or more, got 0"),
    ):
        with pytest.raises(TooFewImages, match=message):
            measure_copying(*(rows[:count] for count in counts), rng=np.random.default_rng(0))
