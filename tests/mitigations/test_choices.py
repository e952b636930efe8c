"""A strength with several values is a choice; every way to choose is a valid mitigation, or the text is refused."""

import pytest

from memcontrol.errors import MemControlError
from memcontrol.mitigations.choices import MitigationChoices, StrengthGrid
from memcontrol.mitigations.plan import MitigationPlan


def test_text_without_several_values_leaves_nothing_open():
    choices = MitigationChoices.of(["rwa:count=2,probability=0.5", "weight-decay"])
    assert (choices.count, choices.names, list(choices.all())) == (1, (), [()])
    assert choices.texts(()) == ("rwa:count=2,probability=0.5", "weight-decay")


def test_several_values_become_grids_in_the_order_of_the_text():
    choices = MitigationChoices.of(["rwa:count=1|2,probability=0.5|1", "embedding-noise:strength=0|0.1|0.2"])
    assert choices.grids[0] == StrengthGrid("rwa.count", ("1", "2"))
    assert choices.names == ("rwa.count", "rwa.probability", "embedding-noise.strength")
    assert choices.count == len(list(choices.all())) == 12
    assert choices.texts((1, 0, 2)) == ("rwa:count=2,probability=0.5", "embedding-noise:strength=0.2")
    assert choices.values((1, 0, 2)) == {
        "rwa.count": "2",
        "rwa.probability": "0.5",
        "embedding-noise.strength": "0.2",
    }


def test_every_choice_is_the_plan_of_its_text():
    choices = MitigationChoices.of(["threshold:share=0.1|0.2"])
    assert [choices.plan(indices) for indices in choices.all()] == [
        MitigationPlan.of([f"threshold:share={share}"]) for share in ("0.1", "0.2")
    ]


def test_the_middle_is_the_lower_of_two():
    assert MitigationChoices.of(["threshold:share=0.1|0.2|0.4"]).middle == (1,)
    assert MitigationChoices.of(["threshold:share=0.1|0.2"]).middle == (0,)
    assert MitigationChoices().middle == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("threshold:share=0.1|0.1", "expected different values"),
        ("threshold:share=0.1|", "expected different values"),
        ("threshold:share=0.1|0.10", "threshold:share=0.10 is the same as another choice"),
        ("threshold:share=0.1|0.2,share=0.3", "share=0.1,share=0.3: share is given twice"),
        ("threshold:share=0.1|x", 'strength "x"'),
        ("threshold:share=0.1|7", "expected a number, 0 to 1"),
        ("threshold:shar=0.1|0.2", 'no strength "shar=0.1"'),
        ("nothing:share=0.1|0.2", "unknown mitigation"),
    ],
)
def test_a_choice_that_is_no_mitigation_is_refused(text, message):
    with pytest.raises(MemControlError, match=message):
        MitigationChoices.of([text])


def test_one_name_cannot_be_searched_twice():
    with pytest.raises(MemControlError, match=r"rwa\.count is searched in two"):
        MitigationChoices.of(["rwa:count=1|2", "rwa:count=3|4"])
