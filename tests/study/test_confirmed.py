"""Confirmed scores stand beside a front's own, stay as long as they belong, and mark what they dominate."""

import copy
import json

import pytest

from memcontrol.errors import RunError
from memcontrol.run import RunFolder
from memcontrol.study.confirmed import SCHEMA, read_confirmation, with_confirmed

OBJECTIVES = [{"name": "fd@pixels", "better": "lower"}, {"name": "amd@pixels", "better": "higher"}]


def row(name, fd, amd, *, kind="front", trial=0, seeds=(101, 102)):
    values = {"fd@pixels": fd, "amd@pixels": amd}
    scores = {key: {"value": sum(each) / max(1, len(each)), "values": list(each)} for key, each in values.items()}
    return {
        "name": name,
        "kind": kind,
        "trial": trial,
        "bits": "01",
        "learning_rate": 1e-3,
        "steps": 6,
        "seeds": list(seeds),
        "scores": scores if seeds else {},
    }


def confirmation(*rows, seed=0):
    return {
        "schema": SCHEMA,
        "run": {"seed": seed},
        "seeds": [101, 102],
        "held_out": {"set": "confirmation"},
        "scores": [],
        "confidence": 0.95,
        "failed": [],
        "rows": list(rows),
    }


def front(*trials):
    members = [{"trial": trial, "bits": "01", "learning_rate": 1e-3, "steps": 6} for trial in trials]
    return {"schema": "memcontrol/front@1", "seed": 0, "objectives": OBJECTIVES, "front": members}


def marks(content):
    return {member["trial"]: member["dominated_by"] for member in content["front"]}


def test_a_front_without_confirmation_is_unconfirmed():
    content = with_confirmed(front(0), None)
    assert content["confirmation"] is None
    assert content["front"][0]["confirmed"] is None
    assert content["front"][0]["dominated_after_confirmation"] is None


def test_members_that_confirmation_dominates_are_marked_and_stay():
    good, bad = row("trial-000", (1.0, 1.0), (0.5, 0.5)), row("trial-001", (2.0, 2.0), (0.4, 0.4), trial=1)
    full = row("full-0.001", (3.0, 3.0), (0.4, 0.4), kind="full", trial=None)
    content = with_confirmed(front(0, 1), confirmation(good, bad, full))
    assert marks(content) == {0: [], 1: ["trial-000"]}
    assert [member["dominated_after_confirmation"] for member in content["front"]] == [False, True]
    assert content["front"][1]["confirmed"] == {"seeds": [101, 102], "scores": bad["scores"]}
    assert [one["name"] for one in content["confirmation"]["rows"]] == ["full-0.001"]


def test_full_fine_tuning_and_random_masks_can_dominate_and_equals_do_not():
    own = row("trial-000", (2.0, 2.0), (0.5, 0.5))
    full = row("full-0.001", (2.0, 2.0), (0.6, 0.6), kind="full", trial=None)
    same = row("trial-000-random", (2.0, 2.0), (0.5, 0.5), kind="random")
    assert marks(with_confirmed(front(0), confirmation(own, full, same))) == {0: ["full-0.001"]}


def test_rows_are_compared_on_the_seeds_that_both_have():
    own = row("trial-000", (1.0, 9.0), (0.5, 0.5))
    half = row("full-0.001", (2.0,), (0.6,), kind="full", trial=None, seeds=(101,))
    assert marks(with_confirmed(front(0), confirmation(own, half))) == {0: []}
    late = row("full-0.001", (2.0,), (0.6,), kind="full", trial=None, seeds=(102,))
    assert marks(with_confirmed(front(0), confirmation(own, late))) == {0: ["full-0.001"]}


def test_confirmed_scores_stay_only_with_what_they_were_measured_on():
    document = confirmation(
        row("trial-000", (1.0, 1.0), (0.5, 0.5)), row("trial-000-random", (1.0, 1.0), (0.5, 0.5), kind="random")
    )
    assert with_confirmed(front(0, 5), document)["front"][1]["confirmed"] is None
    gone = with_confirmed(front(5), document)
    assert gone["confirmation"] is None
    other = front(0)
    other["front"][0]["bits"] = "11"
    assert with_confirmed(other, document)["front"][0]["confirmed"] is None
    assert with_confirmed(front(0), confirmation(*document["rows"], seed=1))["front"][0]["confirmed"] is None
    rows = with_confirmed(front(0), document)["confirmation"]["rows"]
    assert [one["kind"] for one in rows] == ["random"]


def test_a_row_of_which_nothing_is_trained_yet_confirms_nothing():
    assert with_confirmed(front(0), confirmation(row("trial-000", (), (), seeds=())))["front"][0]["confirmed"] is None


def test_it_changes_neither_of_its_inputs_and_can_be_done_again():
    document, before = confirmation(row("trial-000", (1.0, 1.0), (0.5, 0.5))), front(0)
    kept = copy.deepcopy((document, before))
    once = with_confirmed(before, document)
    assert (document, before) == kept
    assert with_confirmed(once, document) == once


def test_another_file_in_its_place_is_refused(tmp_path):
    folder = RunFolder(tmp_path)
    assert read_confirmation(folder) is None
    folder.confirmation.mkdir()
    path = folder.confirmation / "confirmation.json"
    path.write_text("{")
    with pytest.raises(RunError, match="is not JSON"):
        read_confirmation(folder)
    path.write_text(json.dumps({"schema": "other"}))
    with pytest.raises(RunError, match="expected schema memcontrol/confirmation@1, got 'other'"):
        read_confirmation(folder)
