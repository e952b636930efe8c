"""Candidates lie on a quarter-decade grid, and a mask that trains nothing has no rate."""

from dataclasses import replace
from itertools import product

import pytest

from memcontrol.groups import ParameterGroup
from memcontrol.mitigations.choices import MitigationChoices
from memcontrol.study.candidate import Candidate, CandidateSpace, RateGrid


def group(name, numel=10, always=False):
    return ParameterGroup(name, "full", (f"{name}.weight",), numel, always)


def space(*names, always=(), rates=(1e-4, 1e-2), numel=10, mitigations=()):
    return CandidateSpace(
        groups=tuple(group(name, numel) for name in names),
        always=tuple(group(name, always=True) for name in always),
        rates=RateGrid.between(*rates),
        steps=7,
        mitigations=MitigationChoices.of(mitigations),
    )


def test_rates_are_a_quarter_decade_apart_with_both_ends():
    grid = RateGrid.between(1e-4, 1e-3)
    rates = [grid.rate(i) for i in range(grid.first, grid.last + 1)]
    assert rates == [1e-4, 1.78e-4, 3.16e-4, 5.62e-4, 1e-3]
    assert [grid.nearest(rate) for rate in rates] == list(range(grid.first, grid.last + 1))


def test_rates_stay_within_the_range():
    grid = RateGrid.between(3e-4, 1e-2)
    assert grid.rate(grid.first) == 3.16e-4
    assert grid.rate(grid.last) == 1e-2
    assert grid.nearest(1.0) == grid.last
    assert grid.nearest(1e-9) == grid.first


@pytest.mark.parametrize(
    ("low", "high", "rate"), [(1e-3, 1e-3, 1e-3), (2e-3, 2.5e-3, 2.24e-3), (1.1e-3, 1.2e-3, 1.15e-3)]
)
def test_a_fixed_or_narrow_range_has_one_rate(low, high, rate):
    grid = RateGrid.between(low, high)
    assert grid.first == grid.last
    assert grid.rate(grid.first) == rate


def test_a_mask_that_trains_nothing_has_no_rate():
    plain, with_always = space("a", "b"), space("a", "b", always=("head",))
    assert plain.candidate([False, False], -8) == Candidate((False, False), None, 7)
    assert plain.candidate([False, True], -8) == Candidate((False, True), 0.01, 7)
    assert with_always.candidate([False, False], -8).learning_rate == 0.01


@pytest.mark.parametrize("always", [(), ("head",)])
@pytest.mark.parametrize("names", ["a", "abc"])
@pytest.mark.parametrize("rates", [(1e-3, 1e-3), (1e-4, 1e-3)])
def test_size_counts_distinct_candidates(names, always, rates):
    made = space(*names, always=always, rates=rates)
    indices = range(made.rates.first, made.rates.last + 1)
    bits = product((False, True), repeat=len(names))
    assert made.size == len({made.candidate(chosen, index) for chosen in bits for index in indices})


@pytest.mark.parametrize("always", [(), ("head",)])
def test_size_counts_searched_strengths(always):
    made = space(
        "a", "b", always=always, rates=(1e-4, 1e-3), mitigations=["threshold:share=0.1|0.2", "rwa:count=1|2|4"]
    )
    indices = range(made.rates.first, made.rates.last + 1)
    masks, strengths = product((False, True), repeat=2), list(made.mitigations.all())
    assert made.size == len({made.candidate(m, i, s) for m in masks for i in indices for s in strengths})


def test_a_mask_that_trains_nothing_has_no_strengths_and_others_the_middle_ones_unless_given():
    made = space("a", mitigations=["threshold:share=0.1|0.2|0.4"])
    assert made.candidate([False], -8, [2]).strengths == ()
    assert made.mitigation_texts(made.candidate([False], -8, [2])) == ("threshold:share=0.2",)
    assert made.mitigation_texts(made.candidate([True], -8)) == ("threshold:share=0.2",)
    assert made.mitigation_texts(made.candidate([True], -8, [2])) == ("threshold:share=0.4",)
    assert made.plan(made.candidate([True], -8, [2])) == made.mitigations.plan((2,))


def test_bits_read_as_text():
    assert Candidate((True, False, True), 1e-3, 5).mask == "101"


def test_trained_groups_are_the_always_ones_and_the_chosen():
    made = space("a", "b", "c", always=("head",))
    assert [group.name for group in made.trained((True, False, True))] == ["head", "a", "c"]
    with pytest.raises(ValueError, match="zip"):
        made.trained((True,))


def test_baselines_are_everything_then_each_family():
    made = space("down.0.attention", "down.0.resnets", "mid.attention", "mid.resnets", "ends", rates=(1e-3, 1e-3))
    assert [candidate.mask for candidate in made.baselines()] == [
        "11111",
        "10100",  # attention
        "01010",  # resnets
        "00001",  # ends, found by both its first and its last part, once
        "11000",  # down
        "00110",  # mid
    ]
    assert all(candidate.learning_rate == 1e-3 for candidate in made.baselines())


def test_small_masks_are_first_tried_at_larger_rates():
    made = CandidateSpace((group("all-but", 990), group("few", 10)), (), RateGrid.between(1e-4, 1e-2), steps=1)
    whole, most, few = ((True, True), (True, False), (False, True))
    assert made.customary_rate(few) == made.rates.last
    assert made.customary_rate(few) > made.customary_rate(most) >= made.customary_rate(whole)
    assert made.rates.rate(made.customary_rate(whole)) == pytest.approx(5.62e-4)
    assert made.rates.first <= made.customary_rate((False, False)) <= made.rates.last


def test_full_fine_tunings_rates_surround_the_customary_one_for_everything():
    assert space("a", "b", rates=(3e-4, 1e-2)).trajectory_rates() == (3e-4, 1e-3, 3e-3)
    assert space("a", "b", rates=(1e-5, 1e-3)).trajectory_rates() == (2e-5, 6e-5, 2e-4)
    assert space("a", "b", rates=(1e-4, 1e-4)).trajectory_rates() == (3e-5, 1e-4, 3e-4)


@pytest.fixture
def ranked():
    """A switch and a group that may train at two ranks, of 10 and of 40 numbers."""
    low, high = (ParameterGroup("b", "lora", ("b.weight",), n, settings={"rank": r}) for n, r in ((10, 1), (40, 4)))
    return CandidateSpace((group("a"), replace(low, alternatives=(high,))), (), RateGrid.between(1e-3, 1e-3), 7)


def test_a_level_chooses_among_a_groups_settings(ranked):
    assert [ranked.trained(levels)[-1].settings for levels in ((0, 1), (0, 2))] == [{"rank": 1}, {"rank": 4}]
    assert ranked.trained((1, 2))[-1].numel == 40
    assert ranked.trained((1, 2))[-1].alternatives == ()
    assert ranked.candidate((1, 2), 0).mask == "12"


def test_alternatives_multiply_the_candidates(ranked):
    assert ranked.size == 2 * 3
    assert ranked.candidate((0, 0), 0).learning_rate is None


def test_everything_is_a_baseline_at_each_level(ranked):
    assert [candidate.levels for candidate in ranked.baselines()][:2] == [(1, 1), (1, 2)]


def test_full_fine_tuning_has_its_own_rates_where_the_space_says_so(ranked):
    assert replace(ranked, full_rate=1e-3).trajectory_rates() == (3e-4, 1e-3, 3e-3)
