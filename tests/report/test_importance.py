"""Importance finds a group that decides an objective, says which way, and lets chance speak where nothing does."""

import numpy as np
import pytest

from memcontrol.report.importance import FEWEST, RATE, importances

NAMES = [f"g{i}" for i in range(6)]


def trials(seed: int, count: int = 60) -> tuple[list[str], list[float], np.ndarray]:
    """Random masks and rates, and the masks as numbers."""
    rng = np.random.default_rng(seed)
    levels = rng.integers(0, 2, (count, len(NAMES)))
    return ["".join(map(str, row)) for row in levels], [float(r) for r in rng.choice([1e-3, 3e-3], count)], levels


def test_the_group_that_decides_comes_first_with_its_direction() -> None:
    bits, rates, levels = trials(0)
    values = 5.0 - 3.0 * levels[:, 2] + np.random.default_rng(1).normal(0, 0.3, len(bits))
    found = importances(NAMES, bits, rates, values, better="lower")
    assert found[0].name == "g2"
    assert found[0].above_chance
    assert found[0].difference == pytest.approx(-3.0, abs=0.4)
    assert found[0].low is not None
    assert found[0].high is not None
    assert found[0].low < found[0].difference < found[0].high < 0
    assert found[0].on + found[0].off == len(bits)


def test_where_higher_is_better_the_best_trials_are_the_highest() -> None:
    bits, rates, levels = trials(2)
    # Only trials with g1 off can be the lowest, and only such with g4 on the highest.
    values = np.where(levels[:, 4] == 1, 10.0, 5.0 * levels[:, 1]) + np.random.default_rng(3).normal(0, 0.1, len(bits))
    higher = importances(NAMES, bits, rates, values, better="higher")
    assert higher[0].name == "g4"


def test_noise_stays_mostly_below_chance() -> None:
    above = 0
    for seed in range(4):
        bits, rates, _ = trials(10 + seed)
        values = np.random.default_rng(seed).normal(size=len(bits))
        above += sum(one.above_chance for one in importances(NAMES, bits, rates, values, better="lower", seed=seed))
    assert above <= 6  # of 28, where 5 % are expected


def test_shares_add_up_to_one_and_the_same_seed_gives_the_same() -> None:
    bits, rates, _ = trials(4)
    values = np.random.default_rng(5).normal(size=len(bits))
    found = importances(NAMES, bits, rates, values, better="lower", seed=3)
    assert sum(one.share for one in found) == pytest.approx(1.0)
    assert {one.name for one in found} == {*NAMES, RATE}
    assert importances(NAMES, bits, rates, values, better="lower", seed=3) == found


def test_few_trials_or_equal_values_say_nothing() -> None:
    bits, rates, _ = trials(6, FEWEST - 1)
    assert importances(NAMES, bits, rates, np.arange(FEWEST - 1.0), better="lower") == []
    bits, rates, _ = trials(6)
    assert importances(NAMES, bits, rates, np.ones(len(bits)), better="lower") == []


def test_a_group_that_every_trial_trains_is_left_out() -> None:
    bits, rates, _ = trials(7)
    found = importances(NAMES, ["1" + mask[1:] for mask in bits], rates, np.arange(60.0), better="lower")
    assert "g0" not in {one.name for one in found}
