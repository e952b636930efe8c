"""Who goes on at a rung: against brute force, whatever the scale, and what a pruned candidate would have scored."""

import itertools

import numpy as np
import optuna
import pytest

from memcontrol.score import Score
from memcontrol.study.rungs import (
    Judgement,
    crowding,
    foreseen,
    front_numbers,
    hopeful,
    may_stand,
    places,
    records,
    undominated,
)


def slow_fronts(points):
    """Non-dominated sorting by the definition."""

    def dominates(one, other):
        return all(a <= b for a, b in zip(one, other, strict=True)) and any(
            a < b for a, b in zip(one, other, strict=True)
        )

    numbers, left, number = {}, set(range(len(points))), 0
    while left:
        free = {i for i in left if not any(dominates(points[j], points[i]) for j in left)}
        numbers |= dict.fromkeys(free, number)
        left -= free
        number += 1
    return [numbers[i] for i in range(len(points))]


def slow_crowding(points, fronts):
    """Crowding distances in ranks, neighbour by neighbour."""
    ranks = [[sorted({p[m] for p in points}).index(own[m]) for m in range(len(own))] for own in points]
    found = []
    for i, own in enumerate(ranks):
        total = 0.0
        for m in range(len(own)):
            front = sorted({ranks[j][m] for j in range(len(points)) if fronts[j] == fronts[i]})
            place = front.index(own[m])
            if place in (0, len(front) - 1):
                total = float("inf")
                break
            total += (front[place + 1] - front[place - 1]) / max(1, max(rank[m] for rank in ranks))
        found.append(total)
    return found


def drawn(seed, count=30, objectives=2, levels=None):
    rng = np.random.default_rng(seed)
    return (
        rng.integers(levels, size=(count, objectives)).astype(float) if levels else rng.normal(size=(count, objectives))
    )


CASES = [drawn(0), drawn(1, objectives=3), drawn(2, levels=6), drawn(3, levels=4, objectives=3), drawn(4, objectives=1)]


@pytest.mark.parametrize("points", CASES)
def test_fronts_and_crowding_are_those_of_the_definitions(points):
    fronts = front_numbers(points)
    assert fronts.tolist() == slow_fronts(points.tolist())
    np.testing.assert_allclose(crowding(points, fronts), slow_crowding(points.tolist(), fronts))


def test_the_first_front_is_optunas():
    points = drawn(5)
    study = optuna.create_study(directions=["minimize", "minimize"])
    for values in points:
        study.add_trial(optuna.trial.create_trial(values=values.tolist()))
    assert np.flatnonzero(front_numbers(points) == 0).tolist() == [trial.number for trial in study.best_trials]


@pytest.mark.parametrize("points", CASES)
def test_places_count_those_of_earlier_fronts_and_the_less_crowded(points):
    fronts, room = front_numbers(points), crowding(points, front_numbers(points))
    expected = [
        sum((fronts[j], -room[j]) < (fronts[i], -room[i]) for j in range(len(points))) for i in range(len(points))
    ]
    assert places(points).tolist() == expected


def test_neither_scale_nor_order_changes_a_place():
    points = np.exp(drawn(6, count=40) * 3)
    mixed = np.random.default_rng(0).permutation(len(points))
    assert places(np.log(points)).tolist() == places(points).tolist() == places(points * [1e-6, 1e6]).tolist()
    assert places(points[mixed]).tolist() == places(points)[mixed].tolist()


def scores(*values, width=0.0, better="lower"):
    return [Score(value, value - width, value + width, 8, better) for value in values]


@pytest.mark.parametrize("eta", [1.0, 2.0, 3.0, 4.0])
def test_the_best_share_goes_on_and_no_other(eta):
    """Each of a set judged against all others: as many stand before it as brute force says."""
    points, judgement = drawn(7, count=21), Judgement(eta=eta, minimum=8)
    fronts = slow_fronts(points.tolist())
    room = slow_crowding(points.tolist(), fronts)
    for i, own in enumerate(points):
        before = sum((fronts[j], -room[j]) < (fronts[i], -room[i]) for j in range(21))
        assert judgement.goes_on(scores(*own), np.delete(points, i, axis=0)) == (before < np.ceil(21 / eta))


def test_a_rung_stops_nobody_before_it_has_enough_scores():
    good, bad = np.zeros((7, 2)), scores(9.0, 9.0)
    assert Judgement(minimum=8).goes_on(bad, good)
    assert not Judgement(minimum=7).goes_on(bad, good)


def test_eta_of_one_stops_nobody():
    assert Judgement(eta=1.0, minimum=1).goes_on(scores(9.0, 9.0), np.zeros((30, 2)))


def test_equals_go_on_together():
    assert Judgement(minimum=3).goes_on(scores(1.0, 1.0), np.ones((9, 2)))


def test_a_margin_spares_those_whose_intervals_reach_the_best():
    others = np.array([[i, i] for i in range(10)], dtype=float)
    own = scores(6.0, 6.0, width=3.0)
    assert not Judgement(margin=0.0).goes_on(own, others)
    assert Judgement(margin=1.0).goes_on(own, others)
    assert not Judgement(margin=0.1).goes_on(own, others)


def test_a_margin_helps_in_the_direction_of_the_score():
    (low,), (high,) = scores(5.0, width=2.0), scores(5.0, width=2.0, better="higher")
    assert (hopeful(low, 0.0), hopeful(low, 0.5), hopeful(high, 0.0), hopeful(high, 0.5)) == (5.0, 4.0, -5.0, -6.0)


def test_undominated_is_what_a_front_would_take():
    points = drawn(8)
    for i, own in enumerate(points):
        assert undominated(own, np.delete(points, i, axis=0)) == (slow_fronts(points.tolist())[i] == 0)
    assert undominated([1.0, 2.0], np.empty((0, 2)))


LOOKS = [(np.array([x, y]), np.array([x / 2, y])) for x, y in ((2.0, 4.0), (4.0, 3.0), (6.0, 2.0), (8.0, 1.0))]
"""Checkpoints whose first objective halves when all images are scored; signs as below."""
SIGNS = np.array([1.0, -1.0])
NONE = np.empty((0, 2))


def stands(own, *, others=NONE, looks=LOOKS, known=NONE):
    return may_stand(np.array(own), np.array(others), looks, np.array(known), logarithmic=(True, False), signs=SIGNS)


def test_a_checkpoint_that_another_dominates_at_its_rung_is_not_looked_at():
    assert not stands([5.0, 2.0], others=[[4.0, 3.0]])
    assert stands([5.0, 2.0], others=[[4.0, 1.0]]), "the second objective is maximised"
    assert not stands([5.0, 2.0], others=[[4.0, 3.0]], looks=[])


def test_a_checkpoint_is_compared_by_what_all_images_would_say_of_it():
    """It is foreseen at (2.5, 2): a rung of few images scores everything worse than all images do."""
    assert stands([5.0, 2.0], known=[[3.0, 3.0]])
    assert not stands([5.0, 2.0], known=[[2.4, 3.0]])
    assert stands([5.0, 2.0], known=[[2.4, 1.9]])


def test_before_enough_checkpoints_were_looked_at_only_the_rung_says():
    assert stands([5.0, 2.0], looks=LOOKS[:3], known=[[1.0, 9.0]])
    assert not stands([5.0, 2.0], looks=LOOKS[:4], known=[[1.0, 9.0]])


def test_a_trial_without_rungs_has_no_records():
    assert records({}) == []


# What a pruned candidate would have scored


def test_on_a_line_of_logarithms_what_is_foreseen_is_exact():
    pairs = [(np.array([x, x]), np.array([3 * x**0.5, 2 * x - 1])) for x in (2.0, 4.0, 8.0)]
    found = foreseen(np.array([16.0, 16.0]), pairs, (True, False))
    np.testing.assert_allclose(found, [12.0, 31.0])


def test_what_is_foreseen_never_falls_where_the_rung_rises():
    pairs = [(np.array([x]), np.array([10 - x])) for x in (1.0, 2.0, 3.0)]
    values = [foreseen(np.array([x]), pairs, (False,))[0] for x in (0.0, 2.0, 9.0)]
    assert values == [8.0, 8.0, 8.0]
    for seed in range(5):
        rng = np.random.default_rng(seed)
        noisy = [(rng.uniform(1, 2, 1), rng.uniform(1, 2, 1)) for _ in range(5)]
        for log in (True, False):
            line = [foreseen(np.array([x]), noisy, (log,))[0] for x in (0.5, 1.5, 3.0)]
            assert all(a <= b for a, b in itertools.pairwise(line))


def test_a_value_that_has_no_logarithm_is_foreseen_without():
    pairs = [(np.array([-0.01]), np.array([0.0])), (np.array([0.01]), np.array([0.02]))]
    assert foreseen(np.array([0.02]), pairs, (True,))[0] == pytest.approx(0.03)


def test_with_one_other_only_the_difference_is_taken_over_and_with_none_nothing():
    assert foreseen(np.array([5.0]), [(np.array([4.0]), np.array([1.0]))], (False,)).tolist() == [2.0]
    assert foreseen(np.array([5.0]), [], (False,)) is None
