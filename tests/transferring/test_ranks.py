"""Ranks among random masks and full fine-tuning at equal fidelity, against cases whose answers are known."""

import itertools

import numpy as np
import pytest

from memcontrol.comparison.intervals import paired_difference
from memcontrol.study.front import weights_at
from memcontrol.transferring.ranks import ahead_in_all, at_equal_fidelity, rank_among


def flat(value, seeds=(1, 2)):
    return dict.fromkeys(seeds, float(value))


@pytest.mark.parametrize(("better", "rank"), [("lower", 3), ("higher", 18)])
def test_the_rank_is_by_the_mean_and_in_the_scores_direction(better, rank):
    found = rank_among(flat(2.5), [flat(value) for value in range(1, 20)], better=better)
    assert (found.rank, found.twins, found.p) == (rank, 19, rank / 20)
    assert found.by_seed == {1: rank, 2: rank}
    assert found.difference.value == pytest.approx(2.5 - 10)


def test_best_of_nineteen_is_the_least_p_and_a_tie_counts_against_the_mask():
    twins = [flat(value) for value in range(1, 20)]
    assert rank_among(flat(0), twins, better="lower").p == 0.05
    assert rank_among(flat(1), twins, better="lower").p == 0.1


def test_p_is_the_share_of_relabellings_that_do_as_well():
    """By brute force: each of the eight masks in turn is called the mask."""
    rng = np.random.default_rng(0)
    for _ in range(5):
        draws = rng.normal(size=(8, 3))
        own, *twins = [dict(enumerate(map(float, draw))) for draw in draws]
        by_hand = np.mean([draws[i].mean() <= draws[0].mean() for i in range(8)])
        assert rank_among(own, twins, better="lower").p == pytest.approx(by_hand)


def test_ranks_are_uniform_where_the_mask_is_one_more_random_draw():
    rng = np.random.default_rng(2)
    ps = []
    for _ in range(1500):
        draws = rng.normal(size=(20, 1)) + rng.normal(size=(20, 3))
        own, *twins = [dict(enumerate(map(float, draw))) for draw in draws]
        ps.append(rank_among(own, twins, better="lower").p)
    assert np.mean(np.array(ps) <= 0.05) == pytest.approx(0.05, abs=0.02)
    assert np.mean(np.array(ps) <= 0.5) == pytest.approx(0.5, abs=0.06)


def test_only_seeds_that_all_have_count_and_a_twin_without_any_is_left_out():
    twins = [{1: 5.0, 2: 0.0}, {1: 6.0}, {}]
    found = rank_among({1: 1.0, 2: 9.0}, twins, better="lower")
    assert (found.rank, found.twins, found.by_seed) == (1, 2, {1: 1})
    assert rank_among({}, twins, better="lower") is None
    assert rank_among({1: 1.0}, [], better="lower") is None
    assert rank_among({1: 1.0}, [{2: 1.0}], better="lower") is None


def test_twins_that_are_ahead_in_all_are_counted():
    ways = {"fd": "lower", "amd": "higher"}
    own = {"fd": flat(2), "amd": flat(2)}
    twins = [{"fd": flat(fd), "amd": flat(amd)} for fd, amd in itertools.product((1, 2, 3), repeat=2)]
    assert ahead_in_all(own, twins, ways) == 4
    assert ahead_in_all(own, [{"fd": {}, "amd": {}}], ways) is None


CURVE = {"full, 10 steps": (8.0, 0.00), "full": (4.0, 0.02), "full, 40 steps": (2.0, 0.10), "worse": (9.0, 0.2)}
NAMES, LOWER = ("fd", "copy_gap"), ("lower", "lower")


def beside(fd, gap, *, noise=0.0):
    """A mask of these means against `CURVE`, each seed with noise that all rows share."""
    rng = np.random.default_rng(0)
    shared = {seed: rng.normal(0.0, noise) if noise else 0.0 for seed in range(6)}
    shift = np.mean(list(shared.values()))

    def scores(one, other):
        gaps = {seed: other + extra - shift for seed, extra in shared.items()}
        return {"fd": dict.fromkeys(shared, one), "copy_gap": gaps}

    curve = {row: scores(*values) for row, values in CURVE.items()}
    return at_equal_fidelity(scores(fd, gap), curve, NAMES, LOWER)


def test_between_two_lengths_the_straight_line_stands():
    found = beside(3.0, 0.01)
    assert (found.case, found.shares) == ("equal", {"full": 0.5, "full, 40 steps": 0.5})
    assert found.full.value == pytest.approx(0.06)
    assert found.difference.value == pytest.approx(-0.05)


@pytest.mark.parametrize(
    ("fd", "case", "row", "difference"),
    [(1.0, "beyond", "full, 40 steps", -0.05), (30.0, "short", "full, 10 steps", 0.05), (4.0, "equal", "full", 0.03)],
)
def test_outside_its_range_the_nearest_end_stands(fd, case, row, difference):
    found = beside(fd, 0.05)
    assert (found.case, found.shares) == (case, {row: 1.0})
    assert found.difference.value == pytest.approx(difference)


def test_what_seeds_share_cancels():
    found = beside(3.0, 0.05, noise=1.0)
    assert found.full.half > 0.3
    assert found.difference.value == pytest.approx(-0.01)
    assert found.difference.half < 1e-6


def test_scores_that_are_better_higher_turn():
    own = {"fd": flat(3.0), "amd": flat(0.5)}
    curve = {"a": {"fd": flat(4.0), "amd": flat(0.4)}, "b": {"fd": flat(2.0), "amd": flat(0.2)}}
    found = at_equal_fidelity(own, curve, ("fd", "amd"), ("lower", "higher"))
    assert (found.case, found.full.value) == ("equal", pytest.approx(0.3))
    assert found.difference.value == pytest.approx(0.2)


def test_rows_that_have_nothing_are_left_out_and_without_seeds_there_is_nothing_to_say():
    own = {"fd": flat(3.0), "amd": flat(0.5)}
    curve = {"a": {"fd": flat(3.0), "amd": flat(0.4)}, "b": {"fd": {}, "amd": {}}}
    found = at_equal_fidelity(own, curve, ("fd", "amd"), ("lower", "higher"))
    assert found.shares == {"a": 1.0}
    assert found.difference == paired_difference(own["amd"], curve["a"]["amd"])
    assert at_equal_fidelity({"fd": {}, "amd": {}}, curve, ("fd", "amd"), ("lower", "higher")) is None
    assert at_equal_fidelity(own, {}, ("fd", "amd"), ("lower", "higher")) is None


def test_shares_of_a_trajectory_sum_to_one_and_reproduce_its_points():
    points = np.random.default_rng(2).random((12, 2))
    for fidelity in np.linspace(-0.2, 1.2, 29):
        case, shares = weights_at(points, float(fidelity))
        assert shares.sum() == pytest.approx(1.0)
        assert (case == "equal") == (shares @ points[:, 0] == pytest.approx(fidelity))
