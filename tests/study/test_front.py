"""Fronts against Optuna's, hypervolumes against counting cells, and each pick on a front drawn by hand."""

from itertools import product

import numpy as np
import optuna
import pytest

from memcontrol.errors import MemControlError
from memcontrol.study.front import PICKS, front_positions, hypervolume, picked


def optuna_front(points, directions):
    study = optuna.create_study(directions=directions)
    for point in points:
        study.add_trial(optuna.trial.create_trial(values=point.tolist()))
    return sorted(trial.number for trial in study.best_trials)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("directions", [("minimize", "minimize"), ("minimize", "maximize"), ("maximize",) * 3])
def test_front_is_optunas(seed, directions):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(25, len(directions)))
    if seed % 2:
        points = points.round()  # ties in single objectives, and equal points
    signs = [1.0 if direction == "minimize" else -1.0 for direction in directions]
    assert sorted(front_positions(points * signs)) == optuna_front(points, directions)


def test_front_is_sorted_by_the_first_objective_and_keeps_equal_points():
    points = np.array([[3.0, 1.0], [1.0, 3.0], [2.0, 2.0], [2.0, 2.0], [3.0, 3.0], [1.0, 4.0]])
    assert front_positions(points) == [1, 2, 3, 0]


def test_front_of_nothing_and_of_one():
    assert front_positions(np.empty((0, 2))) == []
    assert front_positions(np.array([[1.0, 2.0]])) == [0]


def counted_cells(points, reference):
    """Unit cells of a whole-number grid that some point dominates."""
    cells = product(*(range(int(top)) for top in reference))
    return sum(any(all(p <= c) for p in points) for c in map(np.array, cells))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
def test_hypervolume_counts_dominated_cells(seed, objectives):
    rng = np.random.default_rng(seed)
    points = rng.integers(0, 9, size=(7, objectives)).astype(float)
    reference = np.full(objectives, 7.0)  # some points lie outside, and must not count
    assert hypervolume(points, reference) == pytest.approx(counted_cells(points, reference))


def test_hypervolume_of_points_that_are_not_whole_numbers():
    points = np.array([[0.5, 2.0], [1.25, 0.5], [2.0, 2.5]])
    assert hypervolume(points, np.array([2.0, 3.0])) == pytest.approx(0.75 * 1.0 + 0.75 * 2.5)


def test_hypervolume_of_nothing_inside():
    assert hypervolume(np.empty((0, 2)), np.array([1.0, 1.0])) == 0.0
    assert hypervolume(np.array([[1.0, 0.0]]), np.array([1.0, 1.0])) == 0.0


FRONT = np.array([[0.0, 10.0], [1.0, 9.0], [2.0, 3.0], [6.0, 2.0], [10.0, 0.0]])


@pytest.mark.parametrize(
    ("pick", "expected"), [("knee", [2]), ("best-fidelity", [0]), ("least-copied", [4]), ("all", [0, 1, 2, 3, 4])]
)
def test_picks(pick, expected):
    assert picked(FRONT, pick) == expected
    # A pick goes by position on the front, not by the objectives' units or the order of rows.
    assert picked(FRONT * [1e-4, 1e3] + [5, -2], pick) == expected
    if pick != "all":
        assert picked(FRONT[::-1], pick) == [4 - i for i in expected]


def test_knee_is_farthest_below_the_line_between_the_ends():
    rng = np.random.default_rng(0)
    for _ in range(20):
        x, y = np.sort(rng.uniform(size=8)), np.sort(rng.uniform(size=8))[::-1]
        (x0, y0), (x1, y1) = (x[0], y[0]), (x[-1], y[-1])
        below = ((y0 - y1) * (x1 - x) + (x1 - x0) * (y1 - y)) / np.hypot(x1 - x0, y0 - y1)
        assert picked(np.stack([x, y], axis=1), "knee") == [int(np.argmax(below))]


def test_ties_go_to_the_better_in_the_other_objective():
    points = np.array([[1.0, 5.0], [1.0, 4.0], [3.0, 4.0]])
    assert picked(points, "best-fidelity") == [1]
    assert picked(points, "least-copied") == [1]


@pytest.mark.parametrize("pick", PICKS)
def test_a_front_of_one_is_every_pick(pick):
    assert picked(np.array([[2.0, 3.0]]), pick) == [0]


def test_an_unknown_pick_gets_the_nearest_names():
    with pytest.raises(MemControlError, match="unknown pick 'best-fid': did you mean best-fidelity"):
        picked(FRONT, "best-fid")
