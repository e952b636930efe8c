"""A seeded fraction of the training images is repeated."""

import numpy as np
import pytest

from memcontrol.data.repeats import repeat_counts
from memcontrol.errors import DataError


def test_no_repeats():
    assert repeat_counts(5, None, seed=0).tolist() == [1] * 5


@pytest.mark.parametrize(("repeat", "often", "times"), [("0.1:50", 4, 50), ("1:3", 40, 3), ("0.001:7", 1, 7)])
def test_a_fraction_is_repeated(repeat, often, times):
    counts = repeat_counts(40, repeat, seed=0)
    assert counts.dtype == np.int64
    assert sorted(counts.tolist()) == [1] * (40 - often) + [times] * often


def test_the_seed_chooses():
    first = repeat_counts(40, "0.25:5", seed=1)
    assert first.tolist() == repeat_counts(40, "0.25:5", seed=1).tolist()
    assert first.tolist() != repeat_counts(40, "0.25:5", seed=2).tolist()


@pytest.mark.parametrize(
    "repeat",
    ["", "0.1", "0.1:", ":5", "a:b", "0:5", "1.1:5", "-0.1:5", "nan:5", "0.1:0", "0.1:2.5", "0.1:5:6", "0.1:9999999"],
)
def test_malformed_repeats_are_refused(repeat):
    with pytest.raises(DataError) as caught:
        repeat_counts(40, repeat, seed=0)
    message = str(caught.value)
    assert message.startswith(f'repeat "{repeat}": expected F:K')
    assert "--repeat 0.1:50" in message
    assert "\n" not in message
