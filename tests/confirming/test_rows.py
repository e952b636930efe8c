"""Which masks are trained again for how many trainings, on which seeds, and by which measures."""

from types import SimpleNamespace

import numpy as np
import pytest

from memcontrol.config import RunConfig, load_config, validated
from memcontrol.confirming.rows import chosen_rows, spread
from memcontrol.confirming.settings import Fresh, check_fresh, fresh_seeds, judged_on, other_measures
from memcontrol.errors import MemControlError
from memcontrol.groups import parameter_groups
from memcontrol.mask import Mask
from memcontrol.mask_records import ModelIdentity
from memcontrol.run import RunFolder
from memcontrol.space import load_space


@pytest.fixture(scope="module")
def searched(tiny, tmp_path_factory):
    """A run folder with a front of five masks, the first of which trains nothing."""
    folder, space = RunFolder(tmp_path_factory.mktemp("front")), load_space("stage-kinds")
    groups, members = parameter_groups(space, tiny.unet), []
    numel = sum(parameter.numel() for parameter in tiny.unet.parameters())
    model = ModelIdentity.of(tiny.unet, "tiny")
    for trial, bits in enumerate(["0", "10011", "01100", "110", "1"]):
        on = "".join(bits[i % len(bits)] for i in range(len(groups)))
        rate = 1e-3 if trial else None
        mask = Mask.build(space, groups, on, model=model, unet_numel=numel, learning_rate=1e-3)
        mask.save(folder.mask(trial))
        name = folder.mask(trial).relative_to(folder.path).as_posix()
        # The knee is trial 1, the second best in fidelity among those that train.
        scores = {"fd@efficientnet-lite0": 50.0 - trial, "copy_gap@pixels": (0.0, 0.3, 0.1, 0.0, 0.5)[trial]}
        scored = {key: {"value": value} for key, value in scores.items()}
        members.append({"trial": trial, "mask": name, "bits": on, "learning_rate": rate, "scores": scored})
    objectives = [{"name": name, "better": "lower"} for name in scores]
    points = [
        {"learning_rate": rate, "steps": steps, "scores": {"fd@efficientnet-lite0": {"value": fd}}}
        for rate, steps, fd in ((None, 0, 1.0), (1e-3, 300, 5.0), (3e-3, 300, 4.0), (1e-2, 600, 1.0))
    ]
    for point in points:
        point["scores"]["copy_gap@pixels"] = {"value": 0.0}
    front = {"objectives": objectives, "references": {"all": points}, "front": sorted(members, key=fidelity)}
    return SimpleNamespace(front=front, folder=folder)


def fidelity(member):
    return member["scores"]["fd@efficientnet-lite0"]["value"]


def names(searched, count, **changes):
    return [row.name for row in chosen_rows(searched.front | changes, searched.folder, RunConfig(), count).rows]


def test_the_knee_full_fine_tuning_and_a_twin_come_first_and_more_only_add(searched):
    assert names(searched, 1) == ["trial-003"]
    assert names(searched, 2) == ["trial-003", "full-0.003"]
    assert names(searched, 3) == ["trial-003", "full-0.003", "trial-003-random"]
    assert names(searched, 5) == ["trial-003", "trial-001", "trial-004", "full-0.003", "trial-003-random"]
    for count in range(1, 12):
        assert set(names(searched, count)) <= set(names(searched, count + 1))
        assert len(names(searched, count)) == min(count, 9)
    twins = {f"trial-{trial:03d}-random" for trial in range(1, 5)}
    assert set(names(searched, 20)) == {"trial-001", "trial-002", "trial-003", "trial-004", "full-0.003"} | twins


def test_full_fine_tuning_has_its_best_rate_at_the_candidates_own_steps(searched):
    points = [point for point in searched.front["references"]["all"] if point["steps"] != 300]
    assert "full-0.01" in names(searched, 5, references={"all": points})
    turned = searched.front["objectives"][::-1]
    assert "full-0.003" in names(searched, 5, objectives=turned), "best in fidelity, wherever that stands"
    chosen = chosen_rows(searched.front | {"references": {}}, searched.folder, RunConfig(), 5)
    assert [row.kind for row in chosen.rows] == ["front", "front", "front", "front", "random"]
    assert chosen.notes == ("full fine-tuning was not scored in the search, and is not trained again",)


def test_what_is_not_trained_again_is_said(searched):
    chosen = chosen_rows(searched.front, searched.folder, RunConfig(), 5)
    assert chosen.notes == ("3 of 4 masks on the front are trained again: ask for more trainings for all",)


def test_a_random_mask_that_is_not_quite_of_its_masks_size_is_told(searched, monkeypatch):
    monkeypatch.setattr("memcontrol.random_masks.CLOSE", -1.0)  # no share is near enough
    notes = chosen_rows(searched.front, searched.folder, RunConfig(), 3).notes
    assert notes[0].startswith("random masks of trial-003 train ")


def test_a_front_that_trains_nothing_has_nothing_to_confirm(searched):
    idle = [member for member in searched.front["front"] if member["learning_rate"] is None]
    with pytest.raises(MemControlError, match="trains anything: there is nothing to confirm"):
        chosen_rows(searched.front | {"front": idle}, searched.folder, RunConfig(), 5)


def test_a_mask_brings_its_mitigations_and_its_twin_has_the_same(searched, tmp_path):
    member = searched.front["front"][0]
    mask = Mask.from_pretrained(searched.folder.path / member["mask"])
    content = mask.to_json().replace('"provenance": {}', '"provenance": {"settings": {"mitigations": ["rwa"]}}')
    (tmp_path / "masks").mkdir()
    (tmp_path / member["mask"]).write_text(content)
    front = searched.front | {"front": [member]}
    config = RunConfig(mitigations=("threshold:share=0.1|0.2|0.4",))
    rows = chosen_rows(front, RunFolder(tmp_path), config, 5).rows
    assert [row.cell.mitigations for row in rows] == [("rwa",), ("threshold:share=0.2",), ("rwa",)]


@pytest.mark.parametrize(
    ("fd", "order"),
    [([0, 1, 2, 3, 4], [2, 0, 4, 1, 3]), ([0, 1], [0, 1]), ([7], [0])],
)
def test_members_are_spread_along_the_front_from_its_knee(fd, order):
    gap = [4.0, 2.5, 0.5, 0.2, 0.0][: len(fd)]
    assert spread(np.column_stack([np.array(fd, dtype=float), gap])) == order


def test_seeds_are_fresh():
    assert fresh_seeds(3, RunConfig()) == (101, 102, 103)
    assert fresh_seeds(3, RunConfig(seed=102)) == (101, 103, 104)
    check_fresh((1, 2), RunConfig())
    with pytest.raises(MemControlError, match="seed 102 is the search's own"):
        check_fresh((101, 102), RunConfig(seed=102))


def test_the_training_set_stays_the_runs():
    run = Fresh(RunConfig(seed=4), (101,), ()).run(101)
    assert (run.seed, run.data.seed) == (101, 4)
    fixed = RunConfig.model_validate({"seed": 4, "data": {"seed": 9}})
    assert Fresh(fixed, (101,), ()).run(101).data.seed == 9


@pytest.mark.parametrize(
    ("objectives", "weights", "autoencoder", "expected"),
    [
        ("default", {}, True, ("fd@latents", "copy_gap@latents")),
        ("default", {}, False, ("fd@pixels", "copy_gap@efficientnet-lite0")),
        ("fd@pixels,amd@pixels", {}, True, ("fd@efficientnet-lite0", "amd@efficientnet-lite0")),
        ("default", {"clip": "x"}, True, ("fd@clip", "copy_gap@clip")),
        ("fid,membership_auc@pia,my.module:score", {}, True, ()),
    ],
)
def test_objectives_are_also_measured_on_an_encoder_that_no_objective_uses(objectives, weights, autoencoder, expected):
    config = validated({"scoring": {"objectives": objectives, "encoder_weights": weights}}, where="tests")
    assert other_measures(config, has_autoencoder=autoencoder) == expected


def test_a_third_set_that_is_too_small_is_said_and_the_searchs_sets_are_used(laboratory):
    fresh = Fresh(laboratory.config, (101,), ("fd@latents",))
    on, notes = judged_on(fresh, laboratory.dataset)
    assert on.held_out == "search"
    assert on.run(101).scoring.held_out == "search"
    (note,) = notes
    assert note == "the third held-out set has 16 images, too few for fd@pixels: scored on the search's held-out sets"
    fewer = laboratory.config.scoring.model_copy(update={"components": 8})
    enough = Fresh(laboratory.config.model_copy(update={"scoring": fewer}), (101,), ("fd@latents",))
    assert judged_on(enough, laboratory.dataset) == (enough, ())


def test_settings_are_read_from_yaml_and_checked(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("confirm: {seeds: 4, trainings: 40, measures: [fd]}")
    assert load_config(path).confirm.measures == ("fd@efficientnet-lite0",)
    path.write_text("confirm: {seeds: 4, trainings: 3}")
    with pytest.raises(MemControlError, match="confirming on 4 seeds needs as many trainings or more, got 3"):
        load_config(path)
