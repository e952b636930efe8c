"""When looks end a training, and the table of looks."""

import pytest
from pydantic import ValidationError

from memcontrol.monitoring.config import MonitorConfig
from memcontrol.monitoring.look import Look, columns, judged
from memcontrol.score import Score

GAP = "copy_gap@pixels"


def score(raw, null=(-0.02, 0.0, 0.02)):
    value = max(raw, null[1])
    return Score(value, value - 0.02, value + 0.02, 64, "lower", p=0.5, null=null, raw=raw)


def looked(raws, **settings):
    """The looks at every hundredth step whose copy_gap is each of `raws`."""
    config, looks = MonitorConfig(every=100, measures=(GAP,), **settings), []
    for number, raw in enumerate(raws):
        looks.append(judged(100 * number, {GAP: score(raw)}, looks, config))
    return looks


def stops(raws, **settings):
    return [look.stop for look in looked(raws, **settings)]


def test_without_a_rule_nothing_stops():
    looks = looked([0.5, 0.5, 0.5])
    assert [(look.stop, look.clear, look.reason) for look in looks] == [(False, True, None)] * 3


def test_the_lower_end_of_the_interval_is_held_against_the_bound():
    assert stops([0.03, 0.029, 0.031], stop_copy_gap=0.01, patience=1) == [False, False, True]


def test_copying_counts_from_above_the_null_band_on():
    assert stops([-0.5, 0.02, 0.021], stop_above_null=True, patience=1) == [False, False, True]


def test_either_rule_is_enough():
    both = {"stop_copy_gap": 0.01, "stop_above_null": True, "patience": 1}
    assert stops([0.025], **both) == [True]
    assert stops([0.025], stop_copy_gap=0.01, patience=1) == [False]


def test_patience_asks_for_looks_in_a_row():
    looks = looked([0.1, 0.1, 0.0, 0.1, 0.1, 0.1], stop_copy_gap=0.01, patience=3)
    assert [look.clear for look in looks] == [False, False, True, False, False, False]
    assert [look.stop for look in looks] == [False] * 5 + [True]
    assert looks[-1].reason == (
        "copy_gap@pixels is 0.1 (0.08 to 0.12), all of it above 0.01, at 3 looks in a row (steps 300 to 500)"
    )


def test_the_reason_names_the_null_band():
    (look,) = looked([0.1], stop_above_null=True, patience=1)
    assert look.reason == "copy_gap@pixels is 0.1 (0.08 to 0.12), above its null band (-0.02 to 0.02) (step 0)"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"stop_copy_gap": 0.1}, r"set monitor\.every \(--monitor-every\)"),
        ({"every": 5, "stop_above_null": True, "measures": "fd,kid"}, "needs copy_gap among monitor.measures, got fd@"),
        ({"every": 5, "stop_copy_gap": float("nan")}, "finite number"),
        ({"every": 0}, "greater than or equal to 1"),
        ({"patience": 0}, "greater than or equal to 1"),
        ({"measures": ()}, "at least 1 item"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, said):
    with pytest.raises(ValidationError, match=said):
        MonitorConfig(**settings)


@pytest.mark.parametrize("name", ["copy_gap@latents", "copy_gap_raw@pixels", "copy_gap_same_subjects@pixels"])
def test_any_copy_gap_can_stop(name):
    config = MonitorConfig(every=1, measures=("fd@pixels", name), stop_copy_gap=0.0, patience=1)
    assert config.copy_gap == name
    assert judged(1, {name: score(0.5)}, [], config).stop


def test_a_look_is_read_back_as_it_was():
    (look,) = looked([0.1], stop_copy_gap=0.0, patience=1)
    assert Look.from_json(look.to_json()) == look


def test_rows_have_the_columns_of_the_table():
    names = ("fd@pixels", GAP, "package.module:function")
    plain = Score(1.0, 0.5, 1.5, 64, "lower")
    row = Look(300, {"fd@pixels": plain, GAP: score(0.1), "package.module:function": plain}).row()
    assert sorted(row) == sorted(columns(names))
    assert row[f"{GAP} null high"] == 0.02
    assert row["fd@pixels high"] == 1.5
    assert (row["step"], row["stopped"]) == (300, "")
