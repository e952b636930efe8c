"""Whole searches on the shipped model: what they write, that they repeat and resume, and how they fail."""

import csv
import json
import shutil
from types import SimpleNamespace

import numpy as np
import optuna
import pytest
from filelock import FileLock
from optuna.trial import TrialState
from PIL import Image

from memcontrol.config import load_config
from memcontrol.errors import MemControlError, RunError
from memcontrol.mask import Mask
from memcontrol.run import RunFolder
from memcontrol.score import Score
from memcontrol.study.budget import SEARCH
from memcontrol.study.events import Finished, Note
from memcontrol.study.front import hypervolume
from memcontrol.study.results import reward
from memcontrol.study.search import default_folder, search
from memcontrol.study.trial import Laboratory


def other(config, **changes):
    """The configuration with these values of these sections."""
    sections = {
        key: getattr(config, key).model_copy(update=value) if isinstance(value, dict) else value
        for key, value in changes.items()
    }
    return config.model_copy(update=sections)


def searched(config, path, **options):
    """A finished search: its result, what it told, its configuration."""
    events = []
    result = search(config, path, **{"workers": 1, "listener": events.append, **options})
    return SimpleNamespace(result=result, folder=result.folder, front=result.front, events=events, config=config)


def study_of(folder):
    return optuna.load_study(study_name=SEARCH, storage=f"sqlite:///{folder.study}")


def rows(folder):
    with folder.trials.open(newline="") as file:
        return list(csv.DictReader(file))


def outcomes(folder):
    """What every completed trial tried and scored; times and workers left out."""
    trials = study_of(folder).get_trials(states=[TrialState.COMPLETE])
    return [(trial.params, trial.user_attrs["scores"], trial.user_attrs["loss"]) for trial in trials]


QUICK = {"trajectory_rates": ()}
"""Only the untuned model as a reference."""


@pytest.fixture(scope="module")
def config(small_config):
    return other(small_config, search={"budget": 6})


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    """One undisturbed search of six candidates, to be read only."""
    return searched(config, tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def resumed(config, tmp_path_factory):
    """The same search, stopped at three candidates and resumed to six."""
    path = tmp_path_factory.mktemp("runs") / "run"
    half = searched(other(config, search={"budget": 3}), path)
    rest = searched(config, path)
    return SimpleNamespace(half=half, rest=rest, folder=rest.folder)


@pytest.fixture
def copied(run, tmp_path):
    """A folder with a finished search in it, to be spoiled."""
    shutil.copytree(run.folder.path, tmp_path / "copied")
    return RunFolder(tmp_path / "copied")


# What is written


def test_a_run_folder_holds_the_files_of_the_design(run):
    files = {path.relative_to(run.folder.path).as_posix() for path in run.folder.path.rglob("*") if path.is_file()}
    numbered = {
        f"{folder}/trial-{n:03d}.{kind}" for folder, kind in (("masks", "json"), ("samples", "png")) for n in range(6)
    }
    written = {"config.yaml", "study.db", "trials.csv", "front.json", "log.jsonl"}
    references = {"references/freeze.json", "references/full-0.001.json"}
    assert files - {".claim.lock", ".run.lock"} == numbered | written | references


def test_the_written_configuration_is_the_one_that_ran(run):
    assert load_config(run.folder.config) == run.config


def test_trials_are_a_row_each_with_every_score(run):
    table = rows(run.folder)
    scores = ["fd@pixels", "copy_gap@pixels", "kid@pixels", "amd@pixels"]
    columns = ["number", "state", "mask", "learning_rate", *scores, "reward", "seconds", "worker", "error"]
    assert [list(row) for row in table] == [columns] * 6
    assert [row["number"] for row in table] == [str(n) for n in range(6)]
    for row, trial in zip(table, study_of(run.folder).trials, strict=True):
        assert (row["state"], row["error"], row["worker"]) == ("complete", "", "0")
        assert [float(row[name]) for name in scores[:2]] == trial.values
        assert [float(row[name]) for name in scores] == [trial.user_attrs["scores"][name]["value"] for name in scores]
        assert float(row["seconds"]) > 0
    assert len({(row["mask"], row["learning_rate"]) for row in table}) == 6
    assert [row["mask"] for row in table[:4]] == ["111", "100", "010", "001"]


def test_front_is_that_of_the_study(run):
    best = {trial.number: trial for trial in study_of(run.folder).best_trials}
    assert {member["trial"] for member in run.front["front"]} == best.keys()
    for member in run.front["front"]:
        assert [member["scores"][name]["value"] for name in run.config.scoring.objectives] == best[
            member["trial"]
        ].values
        assert member["mask"] == f"masks/trial-{member['trial']:03d}.json"
        assert member["confirmed"] is None
    fidelity = [member["scores"]["fd@pixels"]["value"] for member in run.front["front"]]
    assert fidelity == sorted(fidelity)


def test_front_file_says_what_was_compared_with_what(run):
    content = json.loads(run.folder.front.read_text())
    assert content == run.front == run.folder.read_front()
    assert content["schema"] == "memcontrol/front@1"
    assert content["objectives"] == [
        {"name": "fd@pixels", "better": "lower"},
        {"name": "copy_gap@pixels", "better": "lower"},
    ]
    assert (content["budget"], content["sampler"], content["seed"]) == (6, "hamming", 0)
    assert content["trials"] == {"complete": 6}
    assert content["references"].keys() == {"freeze", "full-0.001"}
    assert [point["steps"] for point in content["references"]["full-0.001"]] == [6]
    for points in content["references"].values():
        for point in points:
            assert point["scores"].keys() == run.front["front"][0]["scores"].keys()


def test_hypervolume_is_measured_from_the_worst_reference(run):
    names = run.config.scoring.objectives
    scored = [point["scores"] for points in run.front["references"].values() for point in points]
    points = [[scores[name]["value"] for name in names] for scores in scored]
    worst = np.max(points, axis=0)
    assert run.front["reference_point"] == worst.tolist()
    values = np.array([trial.values for trial in study_of(run.folder).trials])
    assert run.front["hypervolume"] == pytest.approx(hypervolume(values, worst))


def test_every_trial_has_a_mask_that_fits_and_says_where_it_comes_from(run, laboratory):
    for trial in study_of(run.folder).trials:
        mask = Mask.from_pretrained(run.folder.mask(trial.number))
        mask.check(laboratory.frozen.unet)
        assert mask.bits == tuple(trial.params[name] for name in ("attention", "resnets", "ends"))
        assert mask.scores == trial.user_attrs["scores"]
        assert (mask.provenance["trial"], mask.provenance["seed"], mask.provenance["steps"]) == (trial.number, 0, 6)
        assert mask.provenance["data"] == {"name": "brain", "n": 8, "sha256": laboratory.data_fingerprint}
        assert mask.model == laboratory.model
        assert mask.space.content == laboratory.space.content()
        assert mask.trainable.percent == pytest.approx(
            100 * mask.trainable.numel / sum(parameter.numel() for parameter in laboratory.frozen.unet.parameters())
        )
        assert (mask.learning_rate is None) == (not any(mask.bits))


def test_sample_pictures_show_generated_above_nearest_training_images(run):
    for number in range(6):
        with Image.open(run.folder.samples(number)) as picture:
            assert picture.size == (12 * 66 - 2, 2 * 66 - 2)


def test_listeners_hear_of_everything_that_finished(run):
    finished = [event for event in run.events if isinstance(event, Finished)]
    assert [(event.work, event.trial) for event in finished] == [
        ("full-0.001", None),
        ("freeze", None),
        *((f"trial {n}", n) for n in range(6)),
    ]
    for event, trial in zip(finished[2:], study_of(run.folder).trials, strict=True):
        assert list(event.scores.values()) == trial.values
    notes = [event.text for event in run.events if isinstance(event, Note)]
    assert notes[0].startswith("brain: 8 training slices")
    assert notes[-1] == "budget 6 candidates of 36 (3 groups, 5 learning rates), sampler hamming, 1 worker, seed 0"
    logged = [json.loads(line) for line in run.folder.log.read_text().splitlines()]
    assert [entry["work"] for entry in logged] == [event.work for event in finished]


# The same again, and resuming


def test_the_same_command_gives_the_same_scores_even_when_resumed(run, resumed):
    assert outcomes(resumed.folder) == outcomes(run.folder)
    assert resumed.rest.front["references"]["freeze"][0]["scores"] == run.front["references"]["freeze"][0]["scores"]
    assert [member["trial"] for member in resumed.rest.front["front"]] == [m["trial"] for m in run.front["front"]]


def test_resuming_runs_the_difference_and_keeps_what_was_done(resumed):
    assert [len(resumed.half.front["trials"]), resumed.half.front["trials"]["complete"]] == [1, 3]
    done = [event for event in resumed.rest.events if isinstance(event, Finished)]
    assert [event.trial for event in done] == [3, 4, 5], "references and earlier trials are not run again"
    plan = [event.text for event in resumed.rest.events if isinstance(event, Note)][-1]
    assert plan.startswith("3 of 6 candidates are done already; budget 6 candidates")
    assert not resumed.rest.result.exhausted


def test_a_finished_search_has_nothing_left_to_run(run, copied):
    before = copied.front.read_bytes()
    again = searched(run.config, copied.path)
    assert not [event for event in again.events if isinstance(event, Finished)]
    assert copied.front.read_bytes() == before


def test_another_seed_in_the_same_folder_is_refused_and_changes_nothing(run, copied):
    before = {path: path.read_bytes() for path in copied.path.rglob("*") if path.suffix in (".yaml", ".csv", ".json")}
    with pytest.raises(RunError, match=r"made with other settings: .*seed was 0, now 1.*or another --out"):
        searched(other(run.config, seed=1), copied.path)
    with pytest.raises(RunError, match=r"tuning\.steps was 6, now 7"):
        searched(other(run.config, tuning={"steps": 7}), copied.path)
    assert {path: path.read_bytes() for path in before} == before


def test_a_folder_that_another_search_writes_to_is_refused(run, copied):
    with FileLock(copied.launch_lock), pytest.raises(RunError, match="another search is writing to"):
        searched(run.config, copied.path)


# Failures


def test_a_failing_trial_fails_alone_and_says_why(config, tmp_path, monkeypatch):
    evaluate = Laboratory.evaluate

    def failing(self, groups, *args, **options):
        if [group.name for group in groups] == ["attention"]:
            raise RuntimeError("made to\nfail")
        return evaluate(self, groups, *args, **options)

    monkeypatch.setattr(Laboratory, "evaluate", failing)
    run = searched(other(config, search={"budget": 3, **QUICK}), tmp_path / "run")
    table = rows(run.folder)
    assert [row["state"] for row in table] == ["complete", "fail", "complete", "complete"]
    assert table[1]["mask"] == "100"
    assert table[1]["error"] == "RuntimeError: made to\nfail"
    assert table[1]["fd@pixels"] == ""
    assert run.front["trials"] == {"complete": 3, "fail": 1}
    assert 1 not in [member["trial"] for member in run.front["front"]]
    assert not run.folder.mask(1).exists()
    (failed,) = [event for event in run.events if isinstance(event, Finished) and event.error]
    assert (failed.trial, failed.error) == (1, "RuntimeError: made to\nfail")


def test_an_interrupt_keeps_everything_and_the_candidate_comes_again(run, config, tmp_path, monkeypatch):
    evaluate, path = Laboratory.evaluate, tmp_path / "run"

    def interrupted(self, groups, *args, **options):
        if [group.name for group in groups] == ["attention"]:
            raise KeyboardInterrupt
        return evaluate(self, groups, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Laboratory, "evaluate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            searched(other(config, search={"budget": 3, **QUICK}), path)
    folder = RunFolder(path)
    assert folder.read_front()["trials"] == {"complete": 1, "interrupted": 1}
    assert [member["trial"] for member in folder.read_front()["front"]] == [0]
    assert [(row["state"], row["mask"]) for row in rows(folder)] == [("complete", "111"), ("interrupted", "100")]
    rest = searched(other(config, search={"budget": 3, **QUICK}), path)
    assert [(row["state"], row["mask"]) for row in rows(folder)[2:]] == [("complete", "100"), ("complete", "010")]
    assert rest.front["trials"] == {"complete": 3, "interrupted": 1}
    assert outcomes(folder) == outcomes(run.folder)[:3]


def test_a_trial_whose_claim_was_killed_does_not_stop_the_folder_from_being_resumed(run, copied):
    study = study_of(copied)
    study.ask().suggest_categorical("attention", (False, True))
    again = searched(run.config, copied.path)
    assert again.front["trials"] == {"complete": 6, "interrupted": 1}
    assert [(row["state"], row["mask"]) for row in rows(copied)[6:]] == [("interrupted", "")]


def test_a_small_space_is_exhausted_and_a_diverging_reference_is_not_the_end(config, tmp_path):
    space = tmp_path / "space.yaml"
    space.write_text(
        "{schema: memcontrol/search-space@1, name: two, learning_rate: 1.0e-3, "
        'parts: [{select: ["conv_out.*"], name: out}, {select: ["conv_in.*"], name: in, always: true}]}'
    )
    changed = other(config, space=str(space), search={"budget": 5, "trajectory_rates": (1e20,)})
    run = searched(changed, tmp_path / "run")
    assert run.result.exhausted
    assert [row["mask"] for row in rows(run.folder)] == ["1", "0"]
    assert [row["learning_rate"] for row in rows(run.folder)] == ["0.001", "0.001"], "one group always trains"
    masks = [Mask.from_pretrained(run.folder.mask(number)) for number in range(2)]
    assert [mask.trainable_names()[:1] for mask in masks] == [("conv_out.weight",), ("conv_in.weight",)]
    assert run.front["references"].keys() == {"freeze"}
    (failed,) = [event for event in run.events if isinstance(event, Finished) and event.error]
    assert failed.work == "full-1e+20"
    assert failed.error.startswith("DivergedError: loss is")


def test_a_mitigations_strength_is_searched_with_the_mask(config, tmp_path):
    changed = other(config, mitigations=("threshold:share=0|0.5",), search={"budget": 8, **QUICK})
    run = searched(changed, tmp_path / "run")
    table = {int(row["number"]): row for row in rows(run.folder)}
    assert {row["threshold.share"] for row in table.values()} == {"0", "0.5"}
    for number, row in table.items():
        settings = Mask.from_pretrained(run.folder.mask(number)).provenance["settings"]
        assert settings["mitigations"] == [f"threshold:share={row['threshold.share']}"]
    for member in run.front["front"]:
        assert member["mitigations"] == [f"threshold:share={table[member['trial']]['threshold.share']}"]
    plain = searched(other(config, search={"budget": 1, **QUICK}), tmp_path / "plain")
    assert table[0]["threshold.share"] == "0", "baselines take the middle strength"
    assert outcomes(run.folder)[0][1:] == outcomes(plain.folder)[0][1:], "zero strength is plain training"


def test_a_mitigation_that_does_not_suit_the_data_is_refused_before_anything_is_trained(config, tmp_path):
    data = config.data.model_copy(update={"captions": "none"})
    with pytest.raises(MemControlError, match="captions"):
        searched(other(config, data=data, mitigations=("rwa:count=1|2",)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_place_that_cannot_be_written_is_refused(config, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write to"):
        searched(config, tmp_path / "file" / "run")


# Several workers


def test_two_workers_run_the_budget_once_with_one_workers_scores(run, config, tmp_path):
    both = searched(other(config, search={"budget": 4, **QUICK}), tmp_path / "run", workers=2)
    table = rows(both.folder)
    assert [row["state"] for row in table] == ["complete"] * 4
    assert {row["mask"] for row in table} == {"111", "100", "010", "001"}
    assert {row["worker"] for row in table} <= {"0", "1"}
    assert both.front["references"] == {"freeze": both.front["references"]["freeze"]}
    alone = {row["mask"]: row for row in rows(run.folder)[:4]}
    for row in table:
        scored = ("learning_rate", "fd@pixels", "copy_gap@pixels", "kid@pixels", "amd@pixels")
        assert {key: row[key] for key in scored} == {key: alone[row["mask"]][key] for key in scored}
    assert {event.work for event in both.events if isinstance(event, Finished)} == {
        "freeze",
        *(f"trial {n}" for n in range(4)),
    }


# Small parts


def test_default_folder_names_data_model_and_space(small_config):
    assert default_folder(small_config).as_posix() == "runs/brain-tiny-three-groups"
    moved = other(small_config, data={"source": "/data/chest x-rays/meta.csv"}, model="owner/model")
    assert default_folder(moved).as_posix() == "runs/meta-model-three-groups"
    under = other(small_config, mitigations=("rwa", "threshold:share=0.1|0.2"))
    assert default_folder(under).as_posix() == "runs/brain-tiny-three-groups-rwa-threshold"


def test_reward_weighs_minimised_values_by_their_scales():
    scores = {"fd@pixels": Score(8.0, 7, 9, 8, "lower"), "amd@pixels": Score(0.3, 0.2, 0.4, 8, "higher")}
    assert reward(scores, {"fd@pixels": 4.0, "amd@pixels": 0.1}, (0.5, 0.25)) == pytest.approx(-0.5 * 2 + 0.25 * 3)
    assert reward(scores, None, (0.5, 0.5)) is None


def test_what_a_reference_trained_is_not_trained_again(config, tmp_path, monkeypatch):
    trained, evaluate = [], Laboratory.evaluate

    def watched(self, groups, rate, steps, *others, **named):
        trained.append((len(groups), rate, steps))
        return evaluate(self, groups, rate, steps, *others, **named)

    monkeypatch.setattr(Laboratory, "evaluate", watched)
    run = searched(other(config, space="stage-kinds", search={"budget": 2}), tmp_path / "run")
    first, second = rows(run.folder)
    assert set(first["mask"]) == {"1"}
    assert trained == [(len(first["mask"]), 0.001, 6), (second["mask"].count("1"), float(second["learning_rate"]), 6)]
    (point,) = run.front["references"]["full-0.001"]
    for name, score in point["scores"].items():
        assert float(first[name]) == score["value"]
    assert run.folder.samples(0).exists()
    assert any("its scores are taken over" in event.text for event in run.events if isinstance(event, Note))
