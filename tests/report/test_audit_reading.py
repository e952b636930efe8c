"""What an audit document says is arranged without a change, and every measure is explained."""

from pathlib import Path

import pytest
from audited import CONTROLS, audit_document

from memcontrol.auditing.document import AuditDocument, CaptionFact
from memcontrol.measures import COPYING, MEASURES, OTHERS, VARIANTS
from memcontrol.report.audit_reading import ranked_captions, readings
from memcontrol.report.audit_words import MEANINGS, meaning
from memcontrol.report.facts import facts
from memcontrol.report.wording import counted_text


@pytest.fixture
def document(tmp_path: Path) -> AuditDocument:
    return audit_document(tmp_path)


def test_captions_of_equal_gap_are_ranked_by_their_nearest_image(document: AuditDocument) -> None:
    same = [
        CaptionFact(caption=c, training=1, generated=1, copy_gap=0.1, nearest=d, noise_magnitude=None)
        for c, d in (("far", 0.3), ("near", 0.1))
    ]
    ranked = ranked_captions(document.model_copy(update={"captions": same}))
    assert [fact.caption for fact in ranked] == ["near", "far"]


def test_every_measure_and_every_ending_has_a_meaning() -> None:
    assert set(MEANINGS) == {*OTHERS, *COPYING}
    assert len({meaning(f"amd{ending}@pixels") for ending in VARIANTS}) == len(VARIANTS)
    assert all(meaning(name).endswith(".") for name in MEASURES)
    assert "own subjects" in meaning("copy_gap_same_subjects_raw@pixels")
    assert "autoencoder" in meaning("copy_gap_same_subjects_raw@pixels")


@pytest.mark.parametrize("name", CONTROLS)
def test_a_place_is_0_at_the_floor_and_1_at_the_ceiling(document: AuditDocument, name: str) -> None:
    one = CONTROLS[name]
    if one.ceiling is None:
        places = [
            row.place for kind in ("fidelity", "memorization") for row in readings(document, kind) if row.name == name
        ]
        assert places == [None]
        return
    for end, expected in ((one.floor, 0.0), (one.ceiling, 1.0)):
        moved = document.model_copy(update={"scores": {name: document.scores[name].model_copy(update={"score": end})}})
        (row,) = readings(moved, "memorization")
        assert row.place is not None
        assert row.place.value == pytest.approx(expected)
        assert row.place.low < row.place.value < row.place.high


def test_nested_facts_become_labelled_lines() -> None:
    told = facts(
        {"name": "x", "training": {"n": 32, "sha256": "ab" * 16}, "keys": list(range(20)), "none": None},
        without=("name",),
    )
    assert [(fact.label, fact.lines, fact.exact) for fact in told] == [
        ("training, images", ("32",), False),
        ("training, SHA-256", ("ab" * 16,), True),
        ("keys", ("0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 8 more",), False),
    ]


@pytest.mark.parametrize(("count", "text"), [(0, "no pairs"), (1, "1 pair"), (1200, "1,200 pairs")])
def test_counts_are_words(count: int, text: str) -> None:
    assert counted_text(count, "pair") == text
