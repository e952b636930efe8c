"""Areas under ROC curves and powers are those of SciPy and scikit-learn; too few scores and NaN are said."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, mannwhitneyu, norm
from sklearn.metrics import roc_auc_score, roc_curve

from memcontrol.errors import MemControlError, TooFewImages
from memcontrol.metrics.membership import auc, tpr_at_fpr


def scores(seed, m=40, n=70, shift=0.8, decimals=None):
    rng = np.random.default_rng(seed)
    drawn = rng.normal(shift, 1.3, m), rng.normal(0, 1, n)
    return drawn if decimals is None else tuple(np.round(part, decimals) for part in drawn)


def labelled(members, nonmembers):
    return np.r_[np.ones(len(members)), np.zeros(len(nonmembers))], np.r_[members, nonmembers]


# Area


@pytest.mark.parametrize("decimals", [None, 0])
@pytest.mark.parametrize("shift", [-1.0, 0.0, 1.5])
def test_area_is_that_of_scikit_learn_and_the_u_statistic_ties_included(shift, decimals):
    members, nonmembers = scores(1, shift=shift, decimals=decimals)
    value, low, high = auc(members, nonmembers)
    assert value == pytest.approx(roc_auc_score(*labelled(members, nonmembers)), abs=1e-12)
    assert value == pytest.approx(mannwhitneyu(members, nonmembers).statistic / (40 * 70), abs=1e-12)
    assert low < value < high


@pytest.mark.parametrize("decimals", [None, 0])
def test_interval_is_delongs_by_brute_force_over_pairs(decimals):
    members, nonmembers = scores(2, m=23, n=31, decimals=decimals)
    wins = (members[:, None] > nonmembers) + 0.5 * (members[:, None] == nonmembers)
    variance = wins.mean(axis=1).var(ddof=1) / 23 + wins.mean(axis=0).var(ddof=1) / 31
    value, low, high = auc(members, nonmembers)
    assert (low, high) == pytest.approx(norm.interval(0.95, wins.mean(), math.sqrt(variance)), abs=1e-6)
    assert value == pytest.approx(wins.mean())


def test_interval_holds_the_true_area_about_as_often_as_it_says():
    true = norm.cdf(1.0 / math.sqrt(2))
    rng = np.random.default_rng(0)
    drawn = [auc(rng.normal(1, 1, 40), rng.normal(0, 1, 60)) for _ in range(600)]
    assert 0.92 < np.mean([low <= true <= high for _, low, high in drawn]) < 0.98


def test_complete_separation_and_complete_ties_have_intervals_with_width():
    above, below = np.arange(10.0) + 100, np.arange(30.0)
    exact = binomtest(10, 10).proportion_ci(method="exact").low
    assert auc(above, below) == pytest.approx((1.0, exact, 1.0))
    assert auc(below, above) == pytest.approx((0.0, 0.0, 1 - exact))
    value, low, high = auc(np.zeros(10), np.zeros(30))
    assert value == 0.5
    assert (low, high) == pytest.approx((0.5 * exact, 1 - 0.5 * exact))


@given(
    st.lists(st.integers(-5, 5), min_size=2, max_size=12),
    st.lists(st.integers(-5, 5), min_size=2, max_size=12),
)
@settings(max_examples=200, deadline=None)
def test_area_is_symmetric_ordered_and_blind_to_monotone_changes(members, nonmembers):
    inside, outside = np.array(members, dtype=float), np.array(nonmembers, dtype=float)
    value, low, high = auc(inside, outside)
    assert 0 <= low <= value <= high <= 1
    mirrored = auc(outside, inside)
    assert (1 - mirrored[0], 1 - mirrored[2], 1 - mirrored[1]) == pytest.approx((value, low, high))
    assert auc(np.exp(inside)[::-1], np.exp(outside)[::-1]) == pytest.approx((value, low, high))


def test_both_rise_with_the_share_of_members_among_those_called_members():
    rng = np.random.default_rng(3)
    members, others, nonmembers = rng.normal(2.5, 1, 200), rng.normal(0, 1, 200), rng.normal(0, 1, 1000)
    mixed = [np.r_[members[:k], others[k:]] for k in (0, 50, 100, 150, 200)]
    areas = [auc(part, nonmembers)[0] for part in mixed]
    powers = [tpr_at_fpr(part, nonmembers, 0.01).value for part in mixed]
    assert areas == sorted(areas)
    assert powers == sorted(powers)
    assert areas[0] == pytest.approx(0.5, abs=0.05)
    assert areas[-1] > 0.95


# Power at few false alarms


@pytest.mark.parametrize("decimals", [None, 1, 0])
@pytest.mark.parametrize("fpr", [0.01, 0.07, 0.29, 0.5, 0.99])
def test_power_is_the_best_point_of_scikit_learns_curve(fpr, decimals):
    members, nonmembers = scores(4, m=60, n=100, decimals=decimals)
    alarms, found, _ = roc_curve(*labelled(members, nonmembers), drop_intermediate=False)
    measured = tpr_at_fpr(members, nonmembers, fpr)
    assert measured.value == pytest.approx(found[alarms <= fpr + 1e-12].max())
    assert measured.value == (members > measured.threshold).mean()
    assert measured.false_positives == (nonmembers > measured.threshold).sum() <= fpr * 100 + 1e-9


def test_interval_is_the_exact_one_of_scipy():
    members, nonmembers = scores(5, m=33)
    for fpr in (0.02, 0.1, 0.9):
        measured = tpr_at_fpr(members, nonmembers, fpr)
        exact = binomtest(round(measured.value * 33), 33).proportion_ci(method="exact")
        assert (measured.low, measured.high) == pytest.approx((exact.low, exact.high))
    none, all_of_them = tpr_at_fpr(members - 99, nonmembers, 0.1), tpr_at_fpr(members + 99, nonmembers, 0.1)
    assert (none.value, none.low) == (0, 0)
    assert (all_of_them.value, all_of_them.high) == (1, 1)
    assert none.high == pytest.approx(1 - all_of_them.low)


def test_too_few_nonmembers_for_the_rate_are_said_and_the_threshold_is_above_all_of_them():
    members, nonmembers = scores(6, n=99)
    members[:3] = nonmembers.max() + np.arange(3)
    measured = tpr_at_fpr(members, nonmembers, 0.01)
    assert measured.note == (
        "99 non-members cannot show a false positive rate of 0.01: the threshold is the highest of them; "
        "100 or more would show it"
    )
    assert measured.resolution == pytest.approx(1 / 99)
    assert measured.false_positives == 0
    assert measured.threshold == nonmembers.max()
    assert measured.value == (members > nonmembers.max()).mean(), "a tie with the highest non-member is not found"
    enough = tpr_at_fpr(members, np.append(nonmembers, -9.0), 0.01)
    assert enough.note is None
    assert enough.false_positives == 1
    assert "1000 or more" in tpr_at_fpr(members, nonmembers, 0.001).note


def test_constant_scores_find_nobody():
    assert tpr_at_fpr(np.ones(9), np.ones(500), 0.05).value == 0


# Bad input


@pytest.mark.parametrize("measure", [auc, lambda a, b: tpr_at_fpr(a, b, 0.1)])
def test_nan_and_tables_of_scores_are_refused(measure):
    with pytest.raises(MemControlError, match="1 of 3 scores of non-members are NaN"):
        measure(np.arange(3.0), np.array([0, np.nan, 1]))
    with pytest.raises(MemControlError, match=r"scores of members have shape \(3, 2\)"):
        measure(np.ones((3, 2)), np.arange(3.0))
    with pytest.raises(TooFewImages, match="scores of 0 members"):
        measure(np.array([]), np.arange(3.0))


def test_one_score_has_no_area_with_an_interval():
    with pytest.raises(TooFewImages, match="scores of 1 non-members: expected 2 or more"):
        auc(np.arange(3.0), np.ones(1))


@pytest.mark.parametrize("fpr", [0, 1, -0.1, math.nan])
def test_a_rate_outside_0_to_1_is_refused(fpr):
    with pytest.raises(MemControlError, match="expected above 0 and below 1"):
        tpr_at_fpr(np.arange(3.0), np.arange(3.0), fpr)
