"""A whole search with rungs and checkpoints: its table, its front, its masks, and what is trained of them again."""

import csv
import json
from types import SimpleNamespace

import pytest
from PIL import Image

from memcontrol.config import Rung, TuningConfig
from memcontrol.confirming.rows import chosen_rows
from memcontrol.mask import Mask
from memcontrol.releasing.config import FinetuneConfig
from memcontrol.report.wording import member_name
from memcontrol.study.events import Finished
from memcontrol.study.search import search

BUDGET = 8


@pytest.fixture(scope="module")
def config(small_config):
    settings = {
        "budget": BUDGET,
        "trajectory_rates": (),
        "rungs": (Rung(share=0.5, images=17),),
        "eta": 4.0,
        "minimum": 4,
        "checkpoints": True,
    }
    return small_config.model_copy(update={"search": small_config.search.model_copy(update=settings)})


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    """Stopped after six candidates and resumed."""
    path, events = tmp_path_factory.mktemp("runs") / "run", []
    half = config.model_copy(update={"search": config.search.model_copy(update={"budget": 6})})
    search(half, path, workers=1, listener=events.append)
    result = search(config, path, workers=1, listener=events.append)
    with result.folder.trials.open(newline="") as file:
        table = list(csv.DictReader(file))
    finished = [event for event in events if isinstance(event, Finished) and event.trial is not None]
    return SimpleNamespace(folder=result.folder, front=result.front, table=table, finished=finished)


@pytest.fixture
def checkpoints(run):
    """The members of the front that are checkpoints."""
    found = [member for member in run.front["front"] if "of" in member]
    assert found, "no checkpoint on the front: this test would see nothing"
    return found


def test_pruned_candidates_count_and_their_rows_say_how_far_they_came(run):
    states = [row["state"] for row in run.table]
    assert len(states) == BUDGET
    assert set(states) == {"complete", "pruned"}
    assert states[:4] == ["complete"] * 4, "the known baselines"
    assert run.front["trials"] == {state: states.count(state) for state in ("complete", "pruned")}
    for row in run.table:
        pruned = row["state"] == "pruned"
        trains = row["learning_rate"] != ""
        assert row["steps"] == ("3" if pruned else "6" if trains else "0")
        assert row["fd@pixels"] != ""
        assert (row["kid@pixels"] == "") == pruned
        assert row["error"] == ""


def test_what_was_pruned_is_said_as_it_happens_and_in_the_log(run):
    pruned = {int(row["number"]) for row in run.table if row["state"] == "pruned"}
    assert {event.trial for event in run.finished if event.pruned} == pruned
    assert {event.pruned for event in run.finished if event.pruned} == {"pruned at 3 of 6 steps"}
    assert all(event.scores is None and event.error is None for event in run.finished if event.pruned)
    logged = [json.loads(line) for line in run.folder.log.read_text().splitlines()]
    assert [line["work"] for line in logged if "pruned" in line] == [f"trial {number}" for number in sorted(pruned)]


def test_a_pruned_candidate_has_a_picture_and_no_mask(run):
    for row in run.table:
        number = int(row["number"])
        assert run.folder.mask(number).exists() == (row["state"] == "complete")
        with Image.open(run.folder.samples(number)) as picture:
            assert picture.size == (12 * 66 - 2, 2 * 66 - 2)


def test_a_checkpoint_on_the_front_has_its_own_mask_which_says_where_it_was(run, checkpoints):
    for member in checkpoints:
        assert (member["steps"], member["of"]) == (3, 6)
        assert member["mask"] == f"masks/trial-{member['trial']:03d}-at-3.json"
        assert member_name(member) == f"{member['trial']} at 3"
        mask = Mask.from_pretrained(run.folder.path / member["mask"])
        assert mask.name == f"brain-three-groups-{member['trial']:03d}-at-3"
        assert mask.scores == member["scores"]
        assert {score["n"] for score in mask.scores.values()} == {24}, "scored as whole candidates are"
        assert (mask.provenance["steps"], mask.provenance["of"]) == (3, 6)
        assert run.folder.samples(member["trial"], 3).is_file()
    names = {path.name for path in (run.folder.path / "masks").glob("*-at-*.json")}
    assert {member["mask"].removeprefix("masks/") for member in checkpoints} <= names


def test_a_release_trains_a_checkpoint_to_where_it_was_unless_told_otherwise(run, checkpoints):
    mask = Mask.from_pretrained(run.folder.path / checkpoints[0]["mask"])
    tuning = FinetuneConfig().resolved(mask).tuning
    assert (tuning.steps, tuning.stop) == (6, 3)
    longer = FinetuneConfig(tuning=TuningConfig(steps=9)).resolved(mask).tuning
    assert (longer.steps, longer.stop) == (9, None)
    whole = Mask.from_pretrained(run.folder.mask(0))
    assert "stop" not in whole.provenance["settings"]["tuning"]
    assert FinetuneConfig().resolved(whole).tuning.stop is None


def test_a_confirmation_trains_checkpoints_and_random_masks_beside_them_as_far(run, config, checkpoints):
    chosen = chosen_rows(run.front, run.folder, config, 50)
    stops = {row.name: row.cell.recipe.stop for row in chosen.rows}
    for member in run.front["front"]:
        if member["learning_rate"] is None:
            continue
        name = f"trial-{member['trial']:03d}" + ("-at-3" if "of" in member else "")
        assert stops[name] == (3 if "of" in member else None)
        assert stops.get(f"{name}-random", stops[name]) == stops[name]
    contents = [row.cell.content for row in chosen.rows]
    assert len(set(contents)) == len(contents)
