"""Proposals: baselines first, never one that was seen, a pure function of the history, None when all are seen."""

from dataclasses import replace
from datetime import datetime

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from memcontrol.errors import MemControlError
from memcontrol.groups import ParameterGroup
from memcontrol.mitigations.choices import MitigationChoices
from memcontrol.study.candidate import CandidateSpace, RateGrid
from memcontrol.study.proposals import HAMMING_GROUPS, HAMMING_TRIALS, RATE, Proposer, chosen_sampler


@pytest.fixture(autouse=True, scope="module")
def quiet():
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(before)


SAMPLERS = ("hamming", "gp", "tpe", "nsga2", "random")
BOTH = ("minimize", "maximize")


def proposer(
    names="abcde", *, sampler="random", rates=(1e-4, 1e-2), always=(), seed=0, directions=BOTH, mitigations=()
):
    def groups(names, always):
        return tuple(ParameterGroup(name, "full", (f"{name}.weight",), 10, always) for name in names)

    space = CandidateSpace(
        groups(names, False),
        groups(always, True),
        RateGrid.between(*rates),
        steps=5,
        mitigations=MitigationChoices.of(mitigations),
    )
    return Proposer(space, sampler, directions, seed)


def trial(made, candidate, number, *, state=TrialState.COMPLETE, error=None):
    """A trial of a candidate, with made-up scores."""
    values = [float(number % 3), float(sum(candidate.levels))][: len(made.directions)]
    return optuna.trial.FrozenTrial(
        number=number,
        trial_id=number,
        state=state,
        value=None,
        values=values if state == TrialState.COMPLETE else None,
        datetime_start=datetime(2020, 1, 1),
        datetime_complete=None if state == TrialState.RUNNING else datetime(2020, 1, 2),
        params=made.params(candidate),
        distributions=made.distributions(),
        user_attrs={"error": error} if error else {},
        system_attrs={},
        intermediate_values={},
    )


def proposed(made, count, history=()):
    """The trials that come of `count` proposals, and the candidates."""
    history, candidates = list(history), []
    for _ in range(count):
        candidate = made.next(history, len(history))
        if candidate is None:
            break
        candidates.append(candidate)
        history.append(trial(made, candidate, len(history)))
    return history, candidates


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_proposes_without_repeating(sampler):
    made = proposer(sampler=sampler)
    _, candidates = proposed(made, 24)
    assert len(candidates) == len(set(candidates)) == 24
    assert candidates[: len(made.space.baselines())] == made.space.baselines()
    rates = {made.space.rates.rate(i) for i in range(made.space.rates.first, made.space.rates.last + 1)}
    assert {candidate.learning_rate for candidate in candidates} - {None} <= rates


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_searches_strengths_until_the_space_is_exhausted(sampler):
    made = proposer("ab", sampler=sampler, rates=(1e-3, 1e-3), mitigations=["threshold:share=0.1|0.2|0.4"])
    _, candidates = proposed(made, 24)
    assert len(candidates) == len(set(candidates)) == made.space.size == 10
    assert {candidate.strengths for candidate in candidates} == {(), (0,), (1,), (2,)}
    assert [made.candidate(made.params(candidate)) for candidate in candidates] == candidates


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_proposal_is_a_pure_function_of_history(sampler):
    history, _ = proposed(proposer(), 14)
    first = proposer(sampler=sampler).next(history, 14)
    np.random.seed(1)  # samplers must not read the global generator
    assert proposer(sampler=sampler).next(history, 14) == first


def test_another_seed_or_number_is_another_draw():
    history, _ = proposed(proposer(), 14)
    first = proposer().next(history, 14)
    assert any(proposer(seed=seed).next(history, 14) != first for seed in range(1, 5))
    assert any(proposer().next(history, number) != first for number in range(15, 19))


def test_a_resumed_search_proposes_what_an_undisturbed_one_would():
    whole = proposed(proposer(sampler="tpe"), 16)[1]
    half, _ = proposed(proposer(sampler="tpe"), 9)
    assert proposed(proposer(sampler="tpe"), 7, half)[1] == whole[9:]


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(("names", "always", "size"), [("ab", "", 4), ("ab", "z", 4), ("", "z", 1)])
def test_a_tiny_space_is_proposed_whole_then_exhausted(sampler, names, always, size):
    made = proposer(names, sampler=sampler, rates=(1e-3, 1e-3), always=always)
    history, candidates = proposed(made, 10)
    assert len(candidates) == len(set(candidates)) == made.space.size == size
    assert made.next(history, len(history)) is None


def test_a_space_with_rates_is_proposed_whole():
    made = proposer("ab", sampler="gp", rates=(1e-3, 1.8e-3))
    assert len(set(proposed(made, 20)[1])) == made.space.size == 7


def test_baselines_that_were_seen_are_not_proposed_again():
    made = proposer()
    baselines = made.space.baselines()
    history = [trial(made, baselines[0], 0), trial(made, baselines[2], 1)]
    assert made.next(history, 2) == baselines[1]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_candidates_that_others_are_running_are_avoided(sampler):
    made = proposer("ab", sampler=sampler, rates=(1e-3, 1e-3))
    everything = [made.space.candidate(bits, made.space.rates.first) for bits in ((0, 0), (0, 1), (1, 0), (1, 1))]
    for missing in everything:
        others = [candidate for candidate in everything if candidate != missing]
        history = [trial(made, candidate, i, state=TrialState.RUNNING) for i, candidate in enumerate(others)]
        assert made.next(history, 3) == missing


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_candidate_that_failed_is_not_proposed_again(sampler):
    made = proposer("ab", sampler=sampler, rates=(1e-3, 1e-3))
    history = [
        trial(made, made.space.candidate(bits, made.space.rates.first), i, state=TrialState.FAIL, error="diverged")
        for i, bits in enumerate(((1, 1), (1, 0), (0, 1)))
    ]
    assert made.next(history, 3).levels == (0, 0)


def test_a_mask_that_trains_nothing_comes_at_one_rate_only():
    made = proposer("ab", rates=(1e-4, 1e-2))
    _, candidates = proposed(made, made.space.size)
    assert sum(not any(candidate.levels) for candidate in candidates) == 1


def test_parameters_give_the_candidate_back():
    made = proposer("abc")
    for candidate in proposed(made, 20)[1]:
        params = made.params(candidate)
        assert made.candidate(params) == candidate
        assert params.keys() == made.distributions().keys() == {"a", "b", "c", RATE}


def asked(made, history, number):
    """What a sampler proposes where no known baseline comes first."""
    if made.sampler == "hamming":
        return made._modelled(history, {made.candidate(one.params) for one in history}, number)
    return made._asked(history, number, 0)


@pytest.mark.parametrize("sampler", ["hamming", "gp", "tpe", "nsga2"])
def test_a_sampler_learns_from_the_scores(sampler):
    """Where both objectives count groups, masks grow; the history comes from a study, as the ledger's does."""
    made = proposer("abcdefgh", sampler=sampler, rates=(1e-3, 1e-3), directions=("maximize", "maximize"))
    study = optuna.create_study(directions=made.directions)
    rng, sizes = np.random.default_rng(0), []
    for number in range(40):
        history = study.get_trials(deepcopy=False)
        if number < 24:
            candidate = made.space.candidate(rng.random(8) < 0.5, made.space.rates.first)
        else:
            candidate = asked(made, history, number)
        sizes.append(sum(candidate.levels))
        study.enqueue_trial(made.params(candidate))
        study.tell(study.ask(made.distributions()), [float(sizes[-1])] * 2)
    assert np.mean(sizes[24:]) > np.mean(sizes[:24]) + 1


def test_auto_goes_by_budget_groups_and_objectives():
    def auto(budget, groups, objectives):
        return chosen_sampler("auto", budget=budget, groups=groups, objectives=objectives)

    assert [auto(50, 14, objectives) for objectives in (1, 2, 3)] == ["gp", "hamming", "gp"]
    assert [auto(201, 14, objectives) for objectives in (1, 2, 3)] == ["tpe", "hamming", "tpe"]
    assert auto(50, 33, 1) == "tpe"
    assert auto(HAMMING_TRIALS, HAMMING_GROUPS, 2) == "hamming"
    assert auto(HAMMING_TRIALS + 1, 14, 2) == auto(50, HAMMING_GROUPS + 1, 2) == "tpe"
    assert chosen_sampler("nsga2", budget=50, groups=14, objectives=2) == "nsga2"


def test_hamming_refuses_three_objectives_in_one_line():
    expected = "^sampler hamming searches for one or two objectives, got 3: choose gp or tpe, or auto$"
    with pytest.raises(MemControlError, match=expected):
        chosen_sampler("hamming", budget=50, groups=5, objectives=3)
    with pytest.raises(MemControlError, match=expected):
        proposer(sampler="hamming", directions=("minimize",) * 3)
    assert proposer(sampler="hamming", directions=("minimize",)).next([], 0) is not None


@pytest.mark.parametrize("directions", [("minimize",), ("maximize",), ("minimize", "maximize")])
def test_hamming_goes_the_way_that_each_objective_asks_for(directions):
    """The first objective counts groups; the second, where there is one, is best at the same masks."""
    made = proposer("abcdefgh", sampler="hamming", rates=(1e-3, 1e-3), directions=directions)
    rng, history = np.random.default_rng(0), []
    for number in range(12):
        candidate = made.space.candidate(rng.random(8) < 0.5, made.space.rates.first)
        history.append(trial(made, candidate, number))
        size = float(sum(candidate.levels))
        history[-1].values = [size, -size][: len(directions)]
    wanted = 0 if directions[0] == "minimize" else 8
    assert abs(sum(asked(made, history, 12).levels) - wanted) <= 1


def test_hamming_is_told_logarithms_of_objectives_that_are_positive_and_to_be_minimised():
    made = proposer(sampler="hamming", directions=BOTH)
    values = np.array([[1.0, 2.0], [10.0, 5.0]])
    np.testing.assert_allclose(made._modelled_values(values), values * (1, -1))
    logarithmic = replace(made, logarithmic=(True, False))
    np.testing.assert_allclose(logarithmic._modelled_values(values), [[0, -2], [np.log(10), -5]])
    values[0, 0] = -1.0
    np.testing.assert_allclose(logarithmic._modelled_values(values), values * (1, -1))


def test_hamming_looks_elsewhere_than_where_others_are_running():
    made = proposer("abcdefgh", sampler="hamming", rates=(1e-3, 1e-3), directions=("minimize", "minimize"))
    rng, history = np.random.default_rng(0), []
    for number in range(20):
        candidate = made.space.candidate(rng.random(8) < 0.5, made.space.rates.first)
        history.append(trial(made, candidate, number))
        levels = np.array(candidate.levels)
        history[-1].values = [float(8 - levels.sum()), float(levels @ np.linspace(0.2, 2, 8))]
    running = list(history)
    for number in range(20, 26):
        running.append(trial(made, asked(made, running, number), number, state=TrialState.RUNNING))
    chosen = [made.candidate(one.params) for one in running]
    assert len(set(chosen[20:])) == 6
    assert not set(chosen[20:]) & set(chosen[:20])
    assert len({sum(candidate.levels) for candidate in chosen[20:]}) >= 3, "along the front, not at one place of it"


def reached(made, candidate, number, *, early, late=None):
    """A trial that scored `early` at a rung; pruned there where it has no `late` scores."""
    state = TrialState.PRUNED if late is None else TrialState.COMPLETE
    found = trial(made, candidate, number, state=state)
    record = {"share": 0.25, "images": 8, "steps": 1, "of": 5, "values": list(early), "goes_on": late is not None}
    found.user_attrs = {"rungs": [record]}
    if late is not None:
        found.values = list(late)
    return found


def pruned_history(made, *, count=20):
    """Every other candidate had a low rate and was pruned with the worst scores; rates matter no further."""
    rng, history, rates = np.random.default_rng(1), [], made.space.rates
    middle = (rates.first + rates.last) // 2
    for number in range(count):
        pruned = number % 2 == 0
        rate = rng.integers(rates.first, middle) if pruned else rng.integers(middle, rates.last + 1)
        candidate = made.space.candidate([int(bit) for bit in rng.random(len(made.space.groups)) < 0.5], int(rate))
        early = np.array([2.0 + pruned, 2.0 + pruned]) + rng.normal(scale=0.1, size=2)
        history.append(reached(made, candidate, number, early=early, late=None if pruned else early / 2))
    return history


@pytest.mark.parametrize("sampler", ["hamming", "gp", "tpe"])
def test_a_sampler_learns_from_candidates_that_were_pruned(sampler):
    made = proposer("abcdef", sampler=sampler, directions=("minimize", "minimize"))
    history = pruned_history(made)
    found = [asked(made, history, number) for number in range(100, 108)]
    assert sum((candidate.learning_rate or 1) < 9e-4 for candidate in found) <= 2, "low rates were pruned"


def test_a_pruned_trial_is_told_as_one_that_ended_where_its_rung_says():
    made = proposer("abcdef", sampler="gp", directions=("minimize", "minimize"))
    history = pruned_history(made)
    told = made._foreseen(history)
    assert [one.state for one in history[:2]] == [TrialState.PRUNED, TrialState.COMPLETE], "left as it was"
    assert [one.state for one in told] == [TrialState.COMPLETE] * len(history)
    assert [one.params for one in told] == [one.params for one in history]
    for one, before in zip(told, history, strict=True):
        expected = np.array(before.user_attrs["rungs"][0]["values"]) / 2
        np.testing.assert_allclose(one.values, expected)
    assert made._foreseen(history[:1]) == [], "with nothing to go by it is left out"


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_pruned_candidate_is_not_proposed_again(sampler):
    made = proposer("ab", sampler=sampler, rates=(1e-3, 1e-3))
    rate = made.space.rates.first
    history = [
        reached(made, made.space.candidate((1, 1), rate), 0, early=(1.0, 1.0), late=(1.0, 1.0)),
        reached(made, made.space.candidate((1, 0), rate), 1, early=(1.0, 1.0)),
        reached(made, made.space.candidate((0, 1), rate), 2, early=(2.0, 1.0)),
    ]
    assert made.next(history, 3).levels == (0, 0)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_proposal_after_pruning_is_a_pure_function_of_history(sampler):
    made = proposer("abcdef", sampler=sampler, directions=("minimize", "minimize"))
    history = pruned_history(made, count=14)
    first = made.next(history, 14)
    np.random.seed(2)
    assert made.next(history, 14) == first
