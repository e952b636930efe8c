import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from scipy.stats import mannwhitneyu, norm
from sklearn.cluster import KMeans
from sklearn.neighbors import NearestNeighbors

from memcontrol.errors import MemControlError, TooFewImages
from memcontrol.metrics.cells import FEWEST, Cells, count_cells
from memcontrol.metrics.copies import (
    PERCENTILES,
    RATIO_THRESHOLDS,
    copy_threshold,
    distance_percentiles,
    distance_ratios,
    mann_whitney_z,
    member_depth,
    member_ratios,
    memorized_shares,
)
from memcontrol.metrics.copying import measure_copying
from memcontrol.metrics.neighbourhood import Matches, Neighbourhood
from memcontrol.metrics.spacing import Spacing, authentic_share

Float64 = NDArray[np.float64]


@pytest.mark.parametrize(("n", "k"), [(400, 50), (20, 50), (3, 2)])
def test_distance_ratios_agree_with_scikit_learn(n: int, k: int) -> None:
    rng = np.random.default_rng(n)
    # Far from the origin, where float32 would round squared lengths coarsely.
    generated, training = rng.normal(size=(60, 12)) + 100.0, rng.normal(size=(n, 12)) + 100.0
    generated[:5] = training[np.arange(5) % n]
    distances, _ = NearestNeighbors(n_neighbors=min(k, n), algorithm="brute").fit(training).kneighbors(generated)
    expected = distances[:, 0] ** 2 / (distances**2).mean(axis=1)
    ratios = distance_ratios(generated, training, k=k)
    np.testing.assert_allclose(ratios, expected, atol=1e-5)
    assert memorized_shares(ratios)[0.15] >= 5 / 60


def test_shares_over_thresholds_are_shares() -> None:
    ratios = np.array([0.0, 0.1, 0.15, 0.5, 0.95, 1.0])
    shares = memorized_shares(ratios)
    assert (tuple(shares), RATIO_THRESHOLDS[0], RATIO_THRESHOLDS[-1]) == (RATIO_THRESHOLDS, 0.15, 0.9)
    assert (shares[0.15], shares[0.2], shares[0.5], shares[0.9]) == pytest.approx((2 / 6, 3 / 6, 3 / 6, 4 / 6))


def test_memorized_shares_rise_with_planted_copies_at_every_threshold() -> None:
    rng = np.random.default_rng(0)
    honest, training = rng.normal(size=(80, 6)), rng.normal(size=(100, 6))
    before = np.zeros(len(RATIO_THRESHOLDS))
    for copies in (0, 1, 5, 20, 80):
        planted = np.concatenate([training[:copies], honest[copies:]])
        shares = np.array(list(memorized_shares(distance_ratios(planted, training)).values()))
        assert (shares >= before).all()
        before = shares
    assert (before == 1.0).all()


def test_duplicates_raise_the_ratio_of_their_copies() -> None:
    rng = np.random.default_rng(0)
    training = np.concatenate([np.tile(rng.normal(size=5), (50, 1)), rng.normal(size=(200, 5))])
    assert distance_ratios(training[:1], training)[0] == 1.0
    assert distance_ratios(training[50:51], training)[0] == pytest.approx(0.0, abs=1e-6)


def test_mirrored_ratios_take_the_nearer_image() -> None:
    rng = np.random.default_rng(1)
    generated, mirrored, training = (rng.normal(size=(count, 6)) for count in (30, 30, 90))
    nearer = np.minimum(cdist(generated, training, "sqeuclidean"), cdist(mirrored, training, "sqeuclidean"))
    nearest = np.sort(nearer, axis=1)[:, :10]
    np.testing.assert_allclose(
        distance_ratios(generated, training, k=10, mirrored=mirrored), nearest[:, 0] / nearest.mean(axis=1), atol=1e-5
    )


def test_ratios_under_a_membership_are_the_ratios_to_the_members() -> None:
    rng = np.random.default_rng(2)
    generated, pool = rng.normal(size=(40, 5)), rng.normal(size=(300, 5))
    members = rng.permutation(300) < 100
    depth = member_depth(300, 100, 20)
    assert 60 < depth < 200
    near = Neighbourhood.search(generated, pool, depth, distance="euclidean")
    np.testing.assert_allclose(
        member_ratios(near, members, 20), distance_ratios(generated, pool[members], k=20), atol=1e-5
    )


@pytest.mark.parametrize("share", [5, 20])
def test_ratios_to_all_members_need_no_order_of_them(share: int) -> None:
    rng = np.random.default_rng(14)
    generated, pool = rng.normal(size=(40, 5)), rng.normal(size=(300, 5))
    members = rng.permutation(300) < share
    near = Neighbourhood.search(generated, pool, 300, distance="euclidean")
    np.testing.assert_allclose(
        member_ratios(near, members, 20), distance_ratios(generated, pool[members], k=20), atol=1e-5
    )


@pytest.mark.parametrize("share", [0, 1, 2, 8, 150])
def test_matches_are_the_two_nearest_members_however_far_away(share: int) -> None:
    rng = np.random.default_rng(15)
    generated, pool = rng.normal(size=(50, 6)), rng.normal(size=(300, 6))
    members = rng.permutation(300) < share
    near = Neighbourhood.search(generated, pool, 280)
    found = Matches.of(near, members)
    for row, (distances, positions) in enumerate(zip(near.distances, near.positions, strict=True)):
        columns = np.flatnonzero(members[positions])
        first = columns[0] if len(columns) else 279
        assert (found.positions[row], found.distances[row]) == (positions[first], distances[first])
        ratio = distances[columns[0]] / distances[columns[1]] if len(columns) > 1 else 1.0
        assert found.ratios[row] == ratio


def test_the_depth_for_k_members_is_deep_enough() -> None:
    rng = np.random.default_rng(3)
    for population, size, k in ((300, 30, 30), (1000, 100, 50), (1000, 900, 50), (288, 32, 2)):
        depth = member_depth(population, size, k)
        assert k <= depth <= population
        assert all((rng.permutation(population)[:depth] < size).sum() >= k for _ in range(200))


@pytest.mark.parametrize("ties", [False, True])
def test_mann_whitney_agrees_with_scipy(ties: bool) -> None:
    rng = np.random.default_rng(4)
    first, second = rng.normal(size=70), rng.normal(size=90) + 0.3
    if ties:
        first, second = np.round(first), np.round(second)
    found = mann_whitney_z(first, second)
    expected = mannwhitneyu(first, second, alternative="less", use_continuity=False, method="asymptotic")
    assert found < 0
    assert norm.cdf(found) == pytest.approx(expected.pvalue, rel=1e-9)
    assert mann_whitney_z(second, first) == pytest.approx(-found)


def test_equal_values_are_no_evidence() -> None:
    assert mann_whitney_z(np.ones(5), np.ones(7)) == 0.0
    assert distance_ratios(np.ones((3, 2)), np.ones((4, 2))).tolist() == [1.0, 1.0, 1.0]


def test_the_number_of_cells_follows_the_smallest_set() -> None:
    assert [
        count_cells(*counts) for counts in ((32, 256, 512), (99, 256, 512), (100, 256, 512), (9000, 9000, 512))
    ] == [
        1,
        1,
        2,
        10,
    ]


def test_the_statistic_is_the_weighted_mean_over_cells() -> None:
    rng = np.random.default_rng(5)
    cells = Cells(rng.integers(0, 3, size=300), rng.integers(0, 3, size=200))
    cells.generated[cells.generated == 2] = 0
    cells.generated[: FEWEST - 1] = 2  # too few to be counted
    first, second = rng.normal(size=300) - 0.2, rng.normal(size=200)
    scores, weights = [], []
    for cell in (0, 1):
        ours, theirs = first[cells.generated == cell], second[cells.honest == cell]
        p = mannwhitneyu(ours, theirs, alternative="less", use_continuity=False, method="asymptotic").pvalue
        scores.append(norm.ppf(p))
        weights.append(len(theirs))
    assert cells.statistic(first, second) == pytest.approx(np.average(scores, weights=weights))


def test_cells_too_small_to_count_are_one() -> None:
    rng = np.random.default_rng(6)
    first, second = rng.normal(size=30), rng.normal(size=30)
    cells = Cells(np.arange(30) % 3, np.arange(30) % 3)
    assert cells.statistic(first, second) == mann_whitney_z(first, second)


def test_cells_are_as_tight_as_scikit_learns() -> None:
    rng = np.random.default_rng(7)
    centres = rng.normal(size=(4, 8)) * 4
    rows = (centres[np.arange(400) % 4] + rng.normal(size=(400, 8))) / 10
    cells = Cells.fit(rows, rows, rows[:40], count=4, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(cells.generated[:40], cells.honest)
    again = Cells.fit(rows, rows, rows[:40], count=4, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(cells.generated, again.generated)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    within = sum(
        ((unit[cells.generated == cell] - unit[cells.generated == cell].mean(axis=0)) ** 2).sum() for cell in range(4)
    )
    assert within <= 1.2 * KMeans(4, n_init=10, random_state=0).fit(unit).inertia_


def test_copies_in_one_cell_lower_the_statistic_of_many_cells() -> None:
    rng = np.random.default_rng(8)
    sets = [rng.normal(size=(count, 6)) for count in (300, 300, 300, 300)]
    values = []
    for copies in (0, 30, 100, 300):
        sets[0][:copies] = sets[1][:copies]
        values.append(measure_copying(*sets, rng=np.random.default_rng(0), permutations=1, names=["c_t"])["c_t"].raw)
    assert abs(values[0]) < 3.0
    assert (np.diff(values) < 0).all()
    assert values[-1] < -6.0


def brute_spacing(pool: Float64, positions: NDArray[np.int64], members: NDArray[np.bool_]) -> Float64:
    among = cdist(pool[positions], pool[members], "cosine")
    return np.where(among > 1e-9, among, np.inf).min(axis=1)


@pytest.mark.parametrize("together", [True, False])
def test_spacing_is_the_distance_to_the_nearest_other_member(together: bool) -> None:
    rng = np.random.default_rng(9)
    pool = rng.normal(size=(300, 5))
    pool[10:16] = pool[0]  # exact duplicates do not count
    spacing = Spacing.of(pool, training=100, queries=60, memberships=200 if together else 1)
    assert (spacing.near is not None) == together
    for share in (100, 2):
        members = rng.permutation(300) < share
        members[:16] = True
        positions = rng.choice(np.flatnonzero(members), size=60)
        np.testing.assert_allclose(spacing(positions, members), brute_spacing(pool, positions, members), atol=2e-6)


def test_authentic_images_are_those_farther_than_the_spacing() -> None:
    rng = np.random.default_rng(10)
    generated, training = rng.normal(size=(80, 5)), rng.normal(size=(60, 5))
    members = np.ones(60, dtype=bool)
    spacing = Spacing.of(training, training=60, queries=80, memberships=1)
    shares = []
    for copies in (0, 20, 40, 80):
        generated[:copies] = training[np.arange(copies) % 60] + 1e-4
        distances = cdist(generated, training, "cosine")
        expected = distances.min(axis=1) > brute_spacing(training, distances.argmin(axis=1), members)
        matches = Matches.of(Neighbourhood.search(generated, training, 5), members)
        shares.append(authentic_share(matches, spacing, members))
        assert shares[-1] == expected.mean()
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] == 0.0


def test_percentiles_are_of_equally_many_images() -> None:
    rng = np.random.default_rng(11)
    generated, training, heldout = (rng.normal(size=(count, 4)) for count in (200, 30, 600))
    found = distance_percentiles(generated, training, heldout, rng=rng)
    expected = np.percentile(cdist(generated, training, "cosine").min(axis=1), PERCENTILES)
    np.testing.assert_allclose([found["training"][p] for p in PERCENTILES], expected, atol=1e-6)
    subsets = [rng.choice(600, size=30, replace=False) for _ in range(400)]
    nearest = np.array([cdist(generated, heldout[subset], "cosine").min(axis=1) for subset in subsets])
    means = np.percentile(nearest, PERCENTILES, axis=1).mean(axis=1)
    assert list(found["heldout"]) == list(PERCENTILES)
    np.testing.assert_allclose([found["heldout"][p] for p in PERCENTILES], means, rtol=0.15, atol=5e-4)
    # All held-out images together lie much nearer.
    assert found["heldout"][50] > 2 * np.median(cdist(generated, heldout, "cosine").min(axis=1))


def test_percentiles_cut_a_larger_training_set_too() -> None:
    rng = np.random.default_rng(12)
    rows = rng.normal(size=(400, 4))
    found = distance_percentiles(rows[:50], rows[50:350], rows[350:], rng=rng)
    assert found["training"][50] == pytest.approx(found["heldout"][50], rel=0.35)
    copied = distance_percentiles(rows[50:100], rows[50:350], rows[350:], rng=rng)
    assert copied["training"][5] < 1e-6 < copied["heldout"][5]
    mirrored = distance_percentiles(rows[:50], rows[50:350], rows[350:], rng=rng, mirrored=rows[350:])
    assert mirrored["heldout"][100] < 1e-6 < found["heldout"][0]


def test_the_threshold_leaves_its_share_of_honest_images_below() -> None:
    honest = np.random.default_rng(13).normal(size=1000)
    assert (honest < copy_threshold(honest)).mean() == 0.01
    assert (honest < copy_threshold(honest, 0.2)).mean() == 0.2


def test_what_cannot_be_counted_is_refused() -> None:
    rows, rng = np.random.default_rng(14).normal(size=(6, 3)), np.random.default_rng(0)
    with pytest.raises(TooFewImages, match="got 1 and 50"):
        distance_ratios(rows, rows[:1])
    with pytest.raises(TooFewImages, match="got 6 and 1"):
        distance_ratios(rows, rows, k=1)
    with pytest.raises(TooFewImages, match="1 heldout image or more"):
        distance_percentiles(rows, rows, rows[:0], rng=rng)
    broken = rows.copy()
    broken[4] = np.nan
    with pytest.raises(MemControlError, match="features of training image 4 are not finite"):
        distance_ratios(rows, broken)
    with pytest.raises(MemControlError, match="features of generated image 4 are not finite"):
        distance_percentiles(broken, rows, rows, rng=rng)
