"""Rows are candidates, one each; neighbours are what a definition by brute force says; places are as documented."""

from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pytest

from memcontrol.groups import ParameterGroup
from memcontrol.mitigations.choices import MitigationChoices
from memcontrol.study.candidate import CandidateSpace, RateGrid
from memcontrol.study.hamming_places import CandidateRows


def rows_of(names="abc", *, rates=(1e-3, 1e-2), alternatives=(), always=False, mitigations=()):
    """The rows of a space; so many alternatives of the first groups."""

    def group(name, more=0):
        plain = ParameterGroup(name, "lora", (f"{name}.weight",), 10, settings={"rank": 4})
        return replace(plain, alternatives=tuple(replace(plain, settings={"rank": 8 + i}) for i in range(more)))

    groups = tuple(group(name, more) for name, more in zip(names, [*alternatives, *[0] * len(names)], strict=False))
    trained = (replace(group("z"), always=True),) if always else ()
    choices = MitigationChoices.of(mitigations)
    return CandidateRows(CandidateSpace(groups, trained, RateGrid.between(*rates), 7, mitigations=choices))


SPACES = {
    "masks": {"rates": (1e-3, 1e-3)},
    "rates": {},
    "alternatives": {"alternatives": (1, 2)},
    "always": {"always": True},
    "strengths": {"mitigations": ["threshold:share=0.1|0.2|0.4"]},
}


@pytest.fixture(params=SPACES)
def rows(request):
    return rows_of(**SPACES[request.param])


def test_each_candidate_is_one_row(rows):
    every = rows.unseen(rows.every(), set())
    candidates = [rows.candidate(row) for row in every]
    assert len(set(candidates)) == len(every) == rows.space.size
    np.testing.assert_array_equal(rows.rows(candidates), every)


def test_what_was_seen_is_left_out_at_any_rate(rows):
    nothing = rows.space.candidate((0, 0, 0), rows.space.rates.last)
    seen = {row.tobytes() for row in rows.rows([nothing])}
    left = [rows.candidate(row) for row in rows.unseen(rows.every(), seen)]
    assert nothing not in left
    assert len(left) == rows.space.size - 1


def test_random_rows_are_of_the_space_and_their_sizes_uniform(rows):
    drawn = rows.random(4000, np.random.default_rng(0))
    assert (drawn >= 0).all()
    np.testing.assert_array_equal(drawn.max(axis=0), rows.counts - 1)
    sizes = np.bincount((drawn[:, :3] > 0).sum(axis=1)) / 4000
    np.testing.assert_allclose(sizes, 0.25, atol=0.03)


def neighbours(rows, member):
    """Up to two groups at any other level, and up to one step of the rate or of a strength."""
    found, groups = set(), len(rows.levels)
    for many in (0, 1, 2):
        for places in combinations(range(groups), many):
            others = [[v for v in range(rows.levels[p]) if v != member[p]] for p in places]
            for values in product(*others):
                row = list(member)
                for place, value in zip(places, values, strict=True):
                    row[place] = value
                found.add(tuple(row))
                for place in range(groups, len(row)):
                    for step in (-1, 1):
                        if 0 <= row[place] + step < rows.counts[place]:
                            found.add((*row[:place], row[place] + step, *row[place + 1 :]))
    return found


def test_near_rows_are_all_within_two_changes_and_a_step(rows):
    members = rows.random(3, np.random.default_rng(1))
    near = rows.near(members, 10_000, np.random.default_rng(0))
    expected = set().union(*(neighbours(rows, member) for member in members.tolist()))
    assert set(map(tuple, near.tolist())) == expected


def test_where_too_many_are_near_some_of_them_are_drawn(rows):
    members = rows.random(2, np.random.default_rng(1))
    near = rows.near(members, 12, np.random.default_rng(0))
    assert len(near) == 12
    assert set(map(tuple, near.tolist())) <= set().union(*(neighbours(rows, member) for member in members.tolist()))
    assert len(np.unique(near, axis=0)) > 4


def test_rows_beside_one_are_a_change_or_a_step_away(rows):
    row = rows.random(1, np.random.default_rng(2))[0]
    beside = np.unique(rows.beside(row), axis=0)
    differences = (beside != row).sum(axis=1)
    assert sorted(set(differences.tolist())) == [0, 1]
    expected = sum(rows.levels - 1) + sum(
        (0 <= row[place] + step < count) for place, count in enumerate(rows.counts) if place >= 3 for step in (-1, 1)
    )
    assert (differences == 1).sum() == expected


def test_groups_are_plus_and_minus_one_and_a_rate_has_its_square():
    rows = rows_of("ab")
    space = rows.space
    chosen = [space.candidate((0, 1), space.rates.first), space.candidate((1, 1), space.rates.first + 2)]
    np.testing.assert_allclose(rows.places(rows.rows(chosen)), [[-1, 1, -1, -1], [1, 1, 0, 1]])


def test_a_fixed_rate_has_no_place_and_one_of_two_no_square():
    assert rows_of("ab", rates=(1e-3, 1e-3)).places(np.zeros((1, 3), dtype=np.int64)).shape == (1, 2)
    np.testing.assert_allclose(rows_of("a", rates=(1e-3, 1.8e-3)).places(np.array([[1, 1]])), [[1, 1]])


def test_settings_of_a_group_differ_from_one_another_as_much_as_a_switch():
    rows = rows_of("a", rates=(1e-3, 1e-3), alternatives=(2,))
    places = rows.places(np.array([[0, 0], [1, 0], [2, 0], [3, 0]]))
    np.testing.assert_allclose(places[0], [-1, 0, 0, 0])
    np.testing.assert_allclose(places[2], [1, -1 / 3, 2 / 3, -1 / 3])
    distances = np.abs(places[:, None] - places).sum(axis=-1)
    np.testing.assert_allclose(distances[1:, 1:], 2 - 2 * np.eye(3))
    assert (distances[0, 1:] >= 2).all()


def test_sizes_are_logarithms_of_what_trains_between_the_smallest_group_and_everything():
    groups = tuple(ParameterGroup(name, "full", (name,), numel) for name, numel in (("a", 10), ("b", 90), ("c", 900)))
    rows = CandidateRows(CandidateSpace(groups, (), RateGrid.between(1e-3, 1e-3), 7))
    chosen = np.array([[0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0]])
    np.testing.assert_allclose(rows.sizes(chosen), [0, 0, 0.5, 1], atol=1e-12)
    always = CandidateRows(replace(rows.space, always=(ParameterGroup("z", "full", ("z",), 90),)))
    expected = np.log(np.array([100, 100, 190, 1090]) / 100) / np.log(10.9)
    np.testing.assert_allclose(always.sizes(chosen), expected)


def test_a_groups_size_is_that_of_its_setting():
    large = ParameterGroup("a", "lora", ("a.weight",), 160)
    group = replace(large, numel=10, alternatives=(replace(large, numel=40), large))
    rows = CandidateRows(CandidateSpace((group,), (), RateGrid.between(1e-3, 1e-3), 7))
    np.testing.assert_allclose(rows.sizes(np.array([[0, 0], [1, 0], [2, 0], [3, 0]])), [0, 0, 0.5, 1])
    alone = CandidateRows(CandidateSpace((replace(group, alternatives=()),), (), RateGrid.between(1e-3, 1e-3), 7))
    np.testing.assert_array_equal(alone.sizes(np.array([[0, 0], [1, 0]])), 0)
