"""A confirmed run: what is trained again and how it is scored, what is written, and that it resumes and is refused."""

import json
import pickle
import shutil
from dataclasses import replace

import numpy as np
import pytest
from filelock import FileLock
from schema_problems import schema_problems
from typer.testing import CliRunner

from memcontrol.cache import Cache, default_cache_folder
from memcontrol.cli import app
from memcontrol.config import load_config
from memcontrol.confirming.confirming import confirm
from memcontrol.confirming.settings import Fresh
from memcontrol.errors import MaskError, MemControlError, RunError
from memcontrol.mask import Mask
from memcontrol.run import RunFolder
from memcontrol.study.events import Finished
from memcontrol.study.search import search
from memcontrol.study.trial import Laboratory


def document(folder):
    return json.loads((folder.confirmation / "confirmation.json").read_text())


def files(folder):
    """The contents of what people read of a folder."""
    kept = (".json", ".csv", ".yaml")
    return {path.relative_to(folder.path): path.read_bytes() for path in folder.path.rglob("*") if path.suffix in kept}


def trained(events):
    return [event.work for event in events if isinstance(event, Finished)]


def knee(folder):
    return next(row for row in document(folder)["rows"] if row["kind"] == "front")


def test_members_full_fine_tuning_and_a_random_mask_are_trained_again_on_every_seed(confirmed):
    rows = document(confirmed.folder)["rows"]
    assert [row["kind"] for row in rows] == ["front", "full", "random"]
    assert [row["seeds"] for row in rows] == [[101, 102]] * 3
    assert rows[1]["name"] == "full-0.001"
    assert rows[2]["trial"] == rows[0]["trial"]
    assert rows[2]["bits"] != rows[0]["bits"]
    assert all(row["learning_rate"] and row["steps"] == 3 and row["numel"] > 0 for row in rows)


def test_confirmed_scores_stand_beside_the_searchs_in_front_and_mask_files(confirmed):
    folder, row = confirmed.folder, knee(confirmed.folder)
    front = folder.read_front()
    member = next(member for member in front["front"] if member["trial"] == row["trial"])
    assert member["confirmed"] == {"seeds": [101, 102], "scores": row["scores"]}
    assert isinstance(member["dominated_after_confirmation"], bool)
    mask = Mask.from_pretrained(folder.path / member["mask"])
    assert mask.confirmed.seeds == (101, 102)
    assert dict(mask.confirmed.scores) == row["scores"]
    assert mask.scores == member["scores"]
    others = [one for one in front["front"] if one["trial"] != row["trial"]]
    assert all(one["confirmed"] is None for one in others)
    assert [one["name"] for one in front["confirmation"]["rows"]] == ["full-0.001", f"{row['name']}-random"]
    twin = Mask.from_pretrained(folder.confirmation / "masks" / f"{row['name']}-random.json")
    assert twin.provenance["random twin of"] == mask.name
    assert twin.confirmed.seeds == (101, 102)


def test_a_mean_has_students_interval_and_the_seeds_own_values(confirmed):
    scores = knee(confirmed.folder)["scores"]
    assert scores.keys() == {"fd@pixels", "copy_gap@pixels", "fd@latents"}
    for score in scores.values():
        values = np.array(score["values"])
        half = 12.706204736 * values.std(ddof=1) / np.sqrt(2)
        found = (score["value"], score["low"], score["high"])
        assert found == pytest.approx((values.mean(), values.mean() - half, values.mean() + half))
        assert score["n"] == 12


def test_training_is_the_runs_and_seed_and_held_out_images_are_not(confirmed):
    config = load_config(confirmed.folder.config)
    cache = Cache(default_cache_folder())
    searched = Laboratory(config, cache=cache, device="cpu")
    fresh = Laboratory(Fresh(config, (101,), ("fd@latents",)).run(101), cache=cache, device="cpu")
    assert fresh.dataset.training.keys == searched.dataset.training.keys
    third = searched.frozen.reconstruct(searched.dataset.heldout.confirmation)
    for part in ("fidelity", "copying"):
        assert np.array_equal(getattr(fresh.scorer.real, part), third)
        assert not np.array_equal(getattr(searched.scorer.real, part)[:24], third)
    assert fresh.attacker.nonmembers.keys == searched.dataset.heldout.confirmation.keys
    assert np.array_equal(fresh.scorer.real.training, searched.scorer.real.training)
    assert fresh.prompts != searched.prompts
    row = knee(confirmed.folder)
    mask = Mask.from_pretrained(confirmed.folder.path / row["mask"])
    groups = [g for g in searched.candidates.groups if g.name in {group.name for group in mask.trained}]
    evaluation = fresh.evaluate(tuple(groups), mask.learning_rate, 3, lambda *_: None)
    assert {name: score.value for name, score in evaluation.scores.items()} == {
        name: score["values"][0] for name, score in row["scores"].items()
    }


def test_the_third_held_out_set_is_another_identity_and_the_searchs_own_is_that_of_earlier_runs(confirmed, laboratory):
    config = load_config(confirmed.folder.config)
    assert not [key for key in laboratory.identity if key == "scoring.held_out" or key.startswith("confirm")]
    assert "held_out" not in confirmed.folder.config.read_text()
    run = Fresh(config, (101,), ()).run(101)
    assert run.model_dump(mode="json")["scoring"]["held_out"] == "confirmation"


def test_workers_are_sent_the_settings(confirmed):
    fresh = Fresh(load_config(confirmed.folder.config), (101, 102), ("fd@latents",))
    assert pickle.loads(pickle.dumps(fresh)) == fresh


def test_the_search_prints_the_confirmed_table_and_its_words(confirmed):
    text = confirmed.printed
    assert "confirming on seeds 101, 102, on 24 held-out images that the search did not use, and by fd@latents" in text
    assert "3 rows x 2 seeds = 6 trainings" in text
    assert text.index("Pareto front") < text.index("seed 102  6/6") < text.index("Confirmed")
    assert "Trained again with 2 fresh seeds" in text


def test_the_same_search_again_trains_nothing_and_keeps_what_is_confirmed(confirmed, copied):
    before = files(copied)
    args = [*confirmed.args[:-1], str(copied.path), "--json"]
    result = CliRunner().invoke(app, args)
    assert result.exit_code == 0, result.output
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert [event for event in events if event["event"] == "finished"] == []
    assert events[-1]["confirmation"]["seeds"] == [101, 102]
    assert files(copied) == before


def test_a_longer_search_keeps_confirmed_scores(copied):
    row = knee(copied)
    config = load_config(copied.config)
    longer = config.model_copy(update={"search": config.search.model_copy(update={"budget": 3})})
    front = search(longer, copied.path, workers=1).front
    kept = {member["trial"]: member["confirmed"] for member in front["front"] if member["confirmed"]}
    on_front = row["trial"] in {member["trial"] for member in front["front"]}
    assert kept == ({row["trial"]: {"seeds": [101, 102], "scores": row["scores"]}} if on_front else {})
    assert Mask.from_pretrained(copied.path / row["mask"]).confirmed.seeds == (101, 102)


def test_an_interrupted_confirmation_keeps_what_is_done_and_goes_on(confirmed, copied, monkeypatch):
    shutil.rmtree(copied.confirmation)
    evaluate, calls = Laboratory.evaluate, []

    def interrupted(self, *args, **more):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return evaluate(self, *args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Laboratory, "evaluate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            confirm(copied.path, trainings=2, workers=1)
    assert knee(copied)["seeds"] == [101]
    assert knee(copied)["scores"]["fd@pixels"]["low"] is None
    events = []
    front = confirm(copied.path, trainings=2, workers=1, listener=events.append).front
    assert trained(events) == [f"{knee(copied)['name']}, seed 102"]
    assert knee(copied) == knee(confirmed.folder)
    assert front == copied.read_front()


def test_seeds_that_an_earlier_command_confirmed_are_kept(copied):
    earlier, name = document(copied)["rows"][1:], knee(copied)["name"]
    events = []
    confirm(copied.path, seeds=(103,), trainings=1, workers=1, listener=events.append)
    assert trained(events) == [f"{name}, seed 103"]
    row = knee(copied)
    assert row["seeds"] == document(copied)["seeds"] == [101, 102, 103]
    assert [len(score["values"]) for score in row["scores"].values()] == [3, 3, 3]
    assert document(copied)["rows"][1:] == earlier
    confirm(copied.path, workers=1, listener=events.append)
    assert len(trained(events)) == 1
    assert knee(copied) == row
    assert Mask.from_pretrained(copied.path / row["mask"]).confirmed.seeds == (101, 102, 103)


def test_the_measures_of_an_earlier_command_are_those_of_the_next(copied):
    shutil.rmtree(copied.confirmation)
    config = load_config(copied.config)
    asked = config.confirm.model_copy(update={"measures": None})
    copied.config.write_text(config.model_copy(update={"confirm": asked}).to_yaml())
    events = []
    confirm(copied.path, seeds=(101,), trainings=1, measures=["fd@pixels", "kid@pixels"], workers=1)
    confirm(copied.path, seeds=(101,), trainings=1, workers=1, listener=events.append)
    assert trained(events) == []
    assert document(copied)["measures"] == ["fd@pixels", "kid@pixels"]


def test_other_measures_are_refused_until_the_earlier_ones_are_moved_away(copied):
    before = files(copied)
    with pytest.raises(RunError, match=r"scoring\.reported was .*fd@latents.*move .*confirmation away to confirm anew"):
        confirm(copied.path, measures=["kid@pixels"], workers=1)
    assert files(copied) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": (0, 101)}, "seed 0 is the search's own: confirm with seeds that it did not use"),
        ({"seeds": (101, 101)}, "seeds 101, 101: expected one or more, each once"),
        ({"seeds": ()}, "seeds none: expected one or more"),
        ({"seeds": (1, 2, 3), "trainings": 2}, "2 trainings for 3 seeds: ask for at least one training a seed"),
        ({"measures": ["fdd@pixels"]}, 'unknown measure "fdd"'),
    ],
)
def test_bad_choices_are_refused(options, message, confirmed):
    before = files(confirmed.folder)
    with pytest.raises(MemControlError, match=message):
        confirm(confirmed.folder.path, workers=1, **options)
    assert files(confirmed.folder) == before


def test_a_folder_that_is_written_to_or_is_no_run_is_refused(copied, tmp_path):
    with (
        FileLock(copied.launch_lock),
        pytest.raises(RunError, match=r"another search or confirmation is writing to \S+: wait for it$"),
    ):
        confirm(copied.path, workers=1)
    with pytest.raises(RunError, match=r"no front\.json in"):
        confirm(tmp_path, workers=1)


def test_data_that_changed_and_missing_masks_are_refused(copied):
    row = knee(copied)
    path = copied.path / row["mask"]
    mask = Mask.from_pretrained(path)
    data = mask.provenance["data"] | {"sha256": "sha256:0"}
    replace(mask, provenance=dict(mask.provenance) | {"data": data}).save(path)
    with pytest.raises(RunError, match=r"the data changed since .* was searched"):
        confirm(copied.path, workers=1)
    path.unlink()
    with pytest.raises(MaskError, match="no mask file"):
        confirm(copied.path, workers=1)


def test_the_command_refuses_in_one_line(confirmed, tmp_path):
    for args, message in (
        ([str(tmp_path)], "no front.json in"),
        ([str(confirmed.folder.path), "--seeds", "five"], "--seeds five: 'five' is no seed"),
        ([str(confirmed.folder.path), "--seeds", "0-2"], "seed 0 is the search's own"),
        ([str(confirmed.folder.path), "--trainings", "0"], "--trainings 0: expected a number of at least 1"),
        ([str(confirmed.folder.path), "--workers", "many"], "--workers many: expected auto or a number"),
    ):
        result = CliRunner().invoke(app, ["confirm", *args])
        assert (result.exit_code, result.stdout) == (1, ""), result.output
        assert result.stderr.startswith(f"memcontrol: {message}"), result.stderr
        assert result.stderr.count("\n") == 1


def test_fewer_trainings_than_seeds_are_refused_before_a_search(confirmed, tmp_path):
    out = tmp_path / "run"
    args = [*confirmed.args[:-1], str(out), "--confirm", "9"]
    result = CliRunner().invoke(app, args)
    assert result.exit_code == 1
    assert "confirming on 9 seeds needs as many trainings or more, got 6" in result.stderr
    assert not RunFolder(out).path.exists()


def test_files_of_a_run_are_what_their_schemas_say(confirmed):
    folder = confirmed.folder
    assert schema_problems("front", folder.front) == []
    assert schema_problems("confirmation", folder.confirmation / "confirmation.json") == []
    assert schema_problems("config", folder.config) == []
    masks = [*folder.path.glob("masks/*.json"), *folder.path.glob("confirmation/masks/*.json")]
    assert masks
    assert [problem for mask in masks for problem in schema_problems("mask", mask)] == []
