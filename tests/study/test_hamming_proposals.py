"""Proposals find what a planted landscape hides, learn from the best of long histories, and know hints and rows."""

from dataclasses import replace

import numpy as np
import pytest

from memcontrol.groups import ParameterGroup
from memcontrol.study.candidate import CandidateSpace, RateGrid
from memcontrol.study.front import front_positions, hypervolume
from memcontrol.study.hamming_model import Model, best_and_random
from memcontrol.study.hamming_places import CandidateRows
from memcontrol.study.hamming_proposals import FIRST, LEARNED, Known, proposed

REFERENCE = np.array([1.0, 1.0])


def space_of(bits, *, rates=(1e-3, 1e-3)):
    groups = tuple(ParameterGroup(f"g{i}", "full", (f"g{i}.weight",), 10) for i in range(bits))
    return CandidateSpace(groups, (), RateGrid.between(*rates), 5)


def scored(rows, weights):
    """Two objectives, below 1, that the groups trade off by their own weights."""
    shares = rows[:, : weights.shape[1]] @ weights.T / weights.sum(axis=1)
    return np.stack([0.9 - 0.9 * shares[:, 0], 0.9 * shares[:, 1]], axis=1)


def searched(space, weights, count, seed=0):
    """Values of so many proposals in turn."""
    rows, done = CandidateRows(space), []
    for number in range(count):
        known = Known(done, scored(rows.rows(done), weights), [], done)
        done.append(proposed(space, known, np.random.default_rng([seed, number])))
    assert len(set(done)) == count
    return scored(rows.rows(done), weights)


def weights_of(bits):
    return np.random.default_rng(3).gamma(0.5, size=(2, bits))


@pytest.mark.parametrize(("bits", "rates"), [(6, (1e-3, 1e-3)), (24, (3e-4, 1e-2))])
def test_proposals_reach_more_than_random_rows(bits, rates):
    space, weights = space_of(bits, rates=rates), weights_of(bits)
    drawn = CandidateRows(space).random(30, np.random.default_rng(0))
    random = hypervolume(scored(drawn, weights), REFERENCE)
    assert hypervolume(searched(space, weights, 30), REFERENCE) > random + (0.005 if bits == 6 else 0.05)


def test_until_there_are_values_proposals_are_random_and_unseen():
    space = space_of(3)
    every = [space.candidate([int(bit) for bit in f"{number:03b}"], space.rates.first) for number in range(8)]
    for missing in range(8):
        seen = every[:missing] + every[missing + 1 :]
        known = Known([], np.zeros((0, 2)), seen[:3], seen)
        assert proposed(space, known, np.random.default_rng(0)) == every[missing]


def test_values_that_are_not_finite_are_left_out():
    space, weights = space_of(8), weights_of(8)
    rows = CandidateRows(space)
    drawn = rows.unseen(rows.random(40, np.random.default_rng(0)), set())[: FIRST + 4]
    done, values = [rows.candidate(row) for row in drawn], scored(drawn, weights)
    broken = values.copy()
    broken[:3] = np.inf
    found = proposed(space, Known(done, broken, [], done), np.random.default_rng(1))
    assert found == proposed(space, Known(done[3:], values[3:], [], done), np.random.default_rng(1))
    assert found not in done


def test_what_trains_nothing_is_not_learned_from_and_comes_last():
    """However far off the untuned model is, what is proposed next is what would have been without it."""
    space, weights = space_of(8), weights_of(8)
    rows = CandidateRows(space)
    drawn = rows.unseen(rows.random(40, np.random.default_rng(0)), set())
    drawn = drawn[drawn[:, :8].any(axis=1)][: FIRST + 4]
    done, values = [rows.candidate(row) for row in drawn], scored(drawn, weights)
    nothing = space.candidate([0] * 8, space.rates.first)
    untuned = Known([nothing, *done], np.vstack([[50.0, 20.0], values]), [], [nothing, *done])
    for number in range(20):
        rng = (np.random.default_rng(number) for _ in range(2))
        without = proposed(space, Known(done, values, [], done), next(rng))
        assert without == proposed(space, untuned, next(rng)) != nothing


def test_sizes_tell_what_groups_alone_do_not():
    """Values fall with the logarithm of what trains, where the groups' sizes span decades."""
    groups = tuple(ParameterGroup(f"g{i}", "full", (f"g{i}",), 4**i) for i in range(8))
    rows, rng = CandidateRows(CandidateSpace(groups, (), RateGrid.between(1e-3, 1e-3), 5)), np.random.default_rng(0)
    every = rows.every()[1:]
    order, sizes = rng.permutation(len(every)), rows.sizes(every)
    values, shown, hidden = np.stack([-sizes, np.exp(sizes)], axis=1), order[:40], order[40:]
    model = Model.fitted(rows, every[shown], values[shown], rng)
    blind = replace(model, variances=tuple(own * (1, 1, 1, 1e-9, 1) for own in model.variances))
    for place, column in enumerate(values[hidden].T):
        found = [
            np.corrcoef(one.processes[place].mean(one.between(every[hidden])[place]), column)[0, 1]
            for one in (model, blind)
        ]
        assert found[0] > max(0.94, found[1] + 0.04)


def test_of_a_large_space_whose_neighbourhood_was_seen_something_is_left():
    space = space_of(11)
    rows = CandidateRows(space)
    everything = rows.unseen(rows.every(), set())
    left = np.random.default_rng(0).integers(len(everything))
    seen = [rows.candidate(row) for row in np.delete(everything, left, axis=0)]
    known = Known(seen[:20], scored(rows.rows(seen[:20]), weights_of(11)), [], seen)
    assert rows.candidate(everything[left]) == proposed(space, known, np.random.default_rng(0))


def test_of_many_values_the_front_and_some_others_are_learned_from():
    values = np.random.default_rng(0).normal(size=(300, 2))
    kept = best_and_random(values, 40, np.random.default_rng(1))
    assert len(kept) == len(set(kept.tolist())) == 40
    assert set(front_positions(values)) <= set(kept.tolist())
    assert (values[kept].sum(axis=1) > 1).any(), "not the best alone"
    np.testing.assert_array_equal(best_and_random(values[:40], 40, np.random.default_rng(1)), np.arange(40))
    assert 7 in best_and_random(np.abs(np.arange(60.0) - 7)[:, None], 10, np.random.default_rng(1)), "of one objective"


def test_a_long_history_is_learned_from_in_part():
    space, weights = space_of(12), weights_of(12)
    rows = CandidateRows(space)
    drawn = rows.unseen(rows.random(3 * LEARNED, np.random.default_rng(0)), set())[: LEARNED + 60]
    done = [rows.candidate(row) for row in drawn]
    values = scored(drawn, weights)
    found = proposed(space, Known(done, values, [], done), np.random.default_rng(0))
    own = scored(rows.rows([found]), weights)
    assert found not in done
    assert hypervolume(np.vstack([values, own]), REFERENCE) > hypervolume(values, REFERENCE)


@pytest.fixture(scope="module")
def model():
    rows = CandidateRows(space_of(8))
    drawn = rows.unseen(rows.random(40, np.random.default_rng(0)), set())[:20]
    return Model.fitted(rows, drawn, scored(drawn, weights_of(8)), np.random.default_rng(0))


def test_what_runs_is_believed_and_adds_nothing_any_more(model):
    every = model.space.every()
    best, gain = model.best(every)
    believing = model.believing(best[None])
    assert believing.gains(best[None])[0] < 0.3 * gain
    np.testing.assert_allclose(believing.means[: len(model.rows)], model.means, atol=1e-5)
    assert model.believing(every[:0]) is model


def test_the_model_is_the_same_in_any_scale_of_the_values(model):
    values = scored(model.rows, weights_of(8)) * (100, 0.01) + (7, -3)
    scaled = Model.fitted(model.space, model.rows, values, np.random.default_rng(0))
    every = model.space.every()
    np.testing.assert_allclose(scaled.gains(every), model.gains(every), rtol=1e-3, atol=1e-6)


def test_hints_tell_what_the_groups_do_not():
    """Values are random for each mask; a hint that knows them predicts masks that were not seen."""
    rows, rng = CandidateRows(space_of(6)), np.random.default_rng(0)
    every = rows.every()
    values = rng.normal(size=(len(every), 2))
    table = {row.tobytes(): value for row, value in zip(every, values, strict=True)}

    def hints(asked):
        return np.array([table[row.tobytes()] for row in asked])

    shown, hidden = every[::2], every[1::2]
    model = Model.fitted(rows, shown, values[::2], rng, hints)
    for own, part, column in zip(model.processes, model.between(hidden), values[1::2].T, strict=True):
        assert np.corrcoef(own.mean(part), column)[0, 1] > 0.9
    known = Known([rows.candidate(row) for row in shown], values[::2], [], [rows.candidate(row) for row in shown])
    found = rows.rows([proposed(rows.space, known, rng, hints)])[0]
    gain = hypervolume(np.vstack([values[::2], table[found.tobytes()]]), np.array([3.0, 3.0]))
    assert gain > hypervolume(values[::2], np.array([3.0, 3.0]))
