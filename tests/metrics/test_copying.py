from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from scipy.special import comb
from scipy.stats import mannwhitneyu, norm

from memcontrol.data.brain import draw_slices
from memcontrol.encoders import PixelEncoder
from memcontrol.errors import MemControlError, TooFewImages
from memcontrol.metrics.copying import BETTER, copying_against, measure_copying
from memcontrol.metrics.copying_reference import CopyingReference, Images, Lengths
from memcontrol.metrics.evidence import Evidence
from memcontrol.metrics.neighbourhood import Neighbourhood, Sides, survival

RARE = {"copied_share", "copied_training_share", "memorized_share"}


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

    def length_ratios(queries: NDArray[np.float64]) -> NDArray[np.float64]:
        fifty = np.sort(cdist(queries, training, "sqeuclidean"), axis=1)[:, :50]
        return fifty[:, 0] / fifty.mean(axis=1)

    first, honest = to_training.min(axis=1), cdist(calibration, training, "cosine").min(axis=1)
    copied = first < np.quantile(honest, 0.01)
    among = cdist(training, training, "cosine")
    spacing = np.where(among > 1e-9, among, np.inf).min(axis=1)
    u = mannwhitneyu(first, honest, method="asymptotic", use_continuity=False)
    direction = 1.0 if u.statistic > len(first) * len(honest) / 2 else -1.0
    return {
        "copy_gap": float(np.mean(gaps)),
        "copy_tail": float(np.quantile(gaps, 0.95)),
        "closer_share": float(np.mean(chances)),
        "nn_ratio_share": float((ratios(generated) < np.quantile(ratios(calibration), 0.05)).mean()),
        "amd": float(first.mean()),
        "copied_share": float(copied.mean()),
        "copied_training_share": len(set(to_training.argmin(axis=1)[copied])) / len(training),
        "c_t": float(direction * norm.isf(u.pvalue / 2)),
        "authpct": float((first > spacing[to_training.argmin(axis=1)]).mean()),
        "memorized_share": float((length_ratios(generated) < np.quantile(length_ratios(calibration), 0.01)).mean()),
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
    reference, everything = (CopyingReference(training, heldout, honest) for _ in range(2))
    pool, members, rng = reference.pool, reference.members, np.random.default_rng(0)
    images = Images(generated, None, "generated")
    near = Evidence.gather(images, reference, names=BETTER, memberships=9, rng=rng).shallow()
    assert reference.sides.depth == near.generated.distances.shape[1] < len(pool) * 0.75
    whole = [Neighbourhood.search(queries, pool, len(pool)) for queries in (generated, honest)]
    lengths = [Neighbourhood.search(rows, pool, len(pool), distance="euclidean") for rows in (generated, honest)]
    everything.near_shallow, everything.lengths_shallow = whole[1], Lengths(lengths[1], k=30, depth=len(pool))
    deep = replace(near, reference=everything, generated=whole[0], lengths=Lengths(lengths[0], k=30, depth=len(pool)))
    for _ in range(5):
        members = rng.permutation(members)
        assert near.statistics(members) == pytest.approx(deep.statistics(members), abs=1e-7)


def test_true_memberships_are_searched_deeper_where_one_side_is_far() -> None:
    rng = np.random.default_rng(0)
    training, heldout = rng.normal(size=(40, 8)) - 4.0, rng.normal(size=(400, 8)) + 4.0
    generated = heldout[:10] + 0.1
    members = np.arange(440) < 40
    sides, pool = Sides.of(40, 400), np.concatenate([training, heldout])
    assert sides.search(generated, pool, members).distances.shape[1] > sides.depth
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
        if name == "authpct":  # weak: a shuffled membership moves it by as much as half of the images being copies
            assert after[name].raw < before[name].raw - 0.15
            assert after[name].p <= 0.1
            continue
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
    for seed in range(30):
        rng = np.random.default_rng(seed)
        for name, copying in measure_copying(*split(features, rng), rng=rng, permutations=29).items():
            chances[name].append(copying.p)
    for name, drawn in chances.items():
        # Of 30 draws, binomial limits that hold with probability 0.995; ties count against copying, and the shares at
        # a 1 % threshold have few values.
        assert sum(p <= 0.1 for p in drawn) <= 8, name
        assert (2 if name in RARE else 8) <= sum(p <= 0.5 for p in drawn) <= 22, name


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
    expected = {"copy_gap": 0.0, "closer_share": 0.5, "nn_ratio_share": 0.0, "amd": 1.0, "copied_share": 0.0}
    expected |= {"copied_training_share": 0.0, "authpct": 1.0}
    assert {name: measured[name].raw for name in expected} == expected
    assert measured["c_t"].raw > 5.0


def test_constant_images_everywhere_are_no_evidence() -> None:
    same = np.ones((60, 5))
    measured = measure_copying(same, same, same, same, rng=np.random.default_rng(0), permutations=9)
    expected = dict.fromkeys(BETTER, 0.0) | {"closer_share": 0.5}
    assert {name: copying.raw for name, copying in measured.items()} == pytest.approx(expected, abs=1e-6)
    assert {copying.p for copying in measured.values()} == {1.0}


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


def plant(features: NDArray[np.float32], copies: int) -> tuple[NDArray[np.float32], ...]:
    generated, *others = split(features, np.random.default_rng(7))
    planted = generated.copy()
    planted[:copies] = others[0][np.arange(copies) % len(others[0])]
    return planted, *others


def test_every_measure_is_monotone_in_the_share_of_planted_copies(features: NDArray[np.float32]) -> None:
    series = [
        measure_copying(*plant(features, copies), rng=np.random.default_rng(0), permutations=9)
        for copies in (0, 4, 8, 16, 32, 64, 128)
    ]
    for name, better in BETTER.items():
        values = np.array([measured[name].raw for measured in series]) * (1 if better == "lower" else -1)
        assert (np.diff(values) >= -1e-9).all(), name
        assert values[-1] > values[0], name
    assert series[-1]["copied_share"].raw == series[-1]["copied_training_share"].raw == 1.0
    assert series[-1]["authpct"].raw == 0.0


def test_honest_images_get_the_honest_values(features: NDArray[np.float32]) -> None:
    drawn: dict[str, list[float]] = {name: [] for name in ("copied_share", "memorized_share", "c_t")}
    for seed in range(12):
        rng = np.random.default_rng(seed)
        for name, copying in measure_copying(*split(features, rng), rng=rng, permutations=1, names=drawn).items():
            drawn[name].append(copying.raw)
    assert np.mean(drawn["copied_share"]) == pytest.approx(0.01, abs=0.01)
    assert np.mean(drawn["memorized_share"]) == pytest.approx(0.01, abs=0.01)
    assert np.mean(drawn["c_t"]) == pytest.approx(0.0, abs=0.6)


def test_duplicates_in_the_training_set_do_not_hide_copies_from_authpct(features: NDArray[np.float32]) -> None:
    generated, training, heldout, calibration = plant(features, 64)
    doubled = np.concatenate([training, training])
    for rows in (training, doubled):
        measured = measure_copying(
            generated, rows, heldout, calibration, rng=np.random.default_rng(0), permutations=1, names=["authpct"]
        )
        assert measured["authpct"].raw < 0.4


def test_flipped_copies_are_found_by_mirrored_queries(slices: NDArray[np.uint8], features: NDArray[np.float32]) -> None:
    mirrored = PixelEncoder()(slices[:, :, ::-1])
    order = np.random.default_rng(2).permutation(1000)
    rows = {"generated": order[:96], "training": order[96:128], "heldout": order[128:384], "honest": order[384:584]}
    # Half of the generated images are training images flipped.
    generated = np.concatenate([mirrored[rows["training"]], features[rows["generated"][32:]]])
    flipped = np.concatenate([features[rows["training"]], mirrored[rows["generated"][32:]]])
    sets = [generated, *(features[rows[name]] for name in ("training", "heldout", "honest"))]
    plain = measure_copying(*sets, rng=np.random.default_rng(0), permutations=49)
    both = measure_copying(
        *sets,
        rng=np.random.default_rng(0),
        permutations=49,
        mirrored=flipped,
        calibration_mirrored=mirrored[rows["honest"]],
    )
    for name in ("copied_share", "memorized_share", "copied_training_share"):
        assert both[name].raw >= 0.3 > plain[name].raw, name
        assert both[name].p == 0.02
    assert both["authpct"].raw < plain["authpct"].raw
    assert both["amd"].raw < plain["amd"].raw


def test_mirrored_queries_are_exact(features: NDArray[np.float32]) -> None:
    queries, mirrored, pool = features[:50], features[50:100], features[80:300]
    brute = np.minimum(cdist(queries, pool, "cosine"), cdist(mirrored, pool, "cosine"))
    for depth in (1, 10, 150, 220):
        found = Neighbourhood.search(queries, pool, depth, mirrored)
        np.testing.assert_allclose(found.distances, np.sort(brute, axis=1)[:, :depth], atol=2e-6)
        np.testing.assert_allclose(np.take_along_axis(brute, found.positions, axis=1), found.distances, atol=2e-6)
        assert all(len(set(row)) == depth for row in found.positions.tolist())


def test_asking_for_some_measures_changes_none_of_them(features: NDArray[np.float32]) -> None:
    sets = split(features, np.random.default_rng(5))
    every = measure_copying(*sets, rng=np.random.default_rng(1), permutations=9)
    assert tuple(every) == tuple(BETTER)
    for name in BETTER:
        assert measure_copying(*sets, rng=np.random.default_rng(1), permutations=9, names=[name]) == {name: every[name]}


def test_what_cannot_be_measured_is_refused(features: NDArray[np.float32]) -> None:
    sets = [features[:5], features[5:10], features[10:20], features[20:30]]
    rng = np.random.default_rng(0)
    for position, name in enumerate(("generated", "training", "held-out", "calibration")):
        broken = [rows.copy() for rows in sets]
        broken[position][3, 2] = np.nan
        with pytest.raises(MemControlError, match=f"features of {name} image 3 are not finite"):
            measure_copying(*broken, rng=rng)
    with pytest.raises(MemControlError, match="features of mirrored generated image 0 are not finite"):
        measure_copying(*sets, rng=rng, mirrored=np.full_like(sets[0], np.inf), calibration_mirrored=sets[3])
    with pytest.raises(MemControlError, match="give both, or neither"):
        measure_copying(*sets, rng=rng, mirrored=sets[0])
    with pytest.raises(MemControlError, match="one row for each image"):
        measure_copying(*sets, rng=rng, mirrored=sets[0][:3], calibration_mirrored=sets[3])
    with pytest.raises(MemControlError, match='unknown copying measure "copygap": did you mean copy_gap'):
        measure_copying(*sets, rng=rng, names=["copygap"])
    with pytest.raises(MemControlError, match="0 permutations"):
        measure_copying(*sets, rng=rng, permutations=0)


def test_a_reference_that_was_used_before_says_the_same(features: NDArray[np.float32]) -> None:
    generated, *real = split(features, np.random.default_rng(4))
    reference, others = CopyingReference(*real), features[:90]
    copying_against(reference, others, rng=np.random.default_rng(0), permutations=9)
    bars = reference.bars(np.random.default_rng(0).permutation(reference.members))
    assert "distance" in vars(bars), "what honest images say under the first shuffled membership was worked out"
    again = copying_against(reference, generated, rng=np.random.default_rng(0), permutations=9)
    assert again == measure_copying(generated, *real, rng=np.random.default_rng(0), permutations=9)
    assert reference.bars(np.random.default_rng(0).permutation(reference.members)) is bars
    assert copying_against(reference, generated, rng=np.random.default_rng(1), permutations=9) != again
