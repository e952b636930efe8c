"""Each mask comes with its twins, all groups of its space, full fine-tuning's lengths; bad masks are one line."""

import json

import pytest
from small_transfer import small, stage_kinds_mask

from memcontrol.cache import Cache
from memcontrol.errors import MaskError, MemControlError
from memcontrol.mask_records import ModelIdentity
from memcontrol.pipeline import load_pipeline
from memcontrol.transferring.config import TransferConfig, load_transfer
from memcontrol.transferring.rows import named_masks, rows_of


@pytest.fixture(scope="module")
def model(tiny):
    return ModelIdentity.of(tiny.unet, "tiny")


@pytest.fixture
def masks(tiny, tmp_path):
    """Two masks of one rate, one of another, and one that trains everything."""
    return {
        "one": stage_kinds_mask(tiny, tmp_path / "one.json", "down.0.attention", "mid.resnets", "up.norms"),
        "two": stage_kinds_mask(tiny, tmp_path / "two.json", "up.0.attention", "ends"),
        "fast": stage_kinds_mask(tiny, tmp_path / "fast.json", "up.0.attention", "ends", rate=1e-2),
        "none": stage_kinds_mask(tiny, tmp_path / "none.json"),
    }


def rows(tiny, model, **changes):
    return rows_of(small(**changes), tiny.unet, model)


def test_rows_are_the_masks_and_all_that_they_are_compared_with(tiny, model, masks):
    found = rows(tiny, model, masks=[str(masks["one"]), str(masks["two"])], target_masks=[str(masks["fast"])], random=2)
    assert [(row.role, row.name, row.of) for row in found.rows] == [
        ("mask", "one", None),
        ("mask", "two", None),
        ("freeze", "freeze", None),
        ("full", "full", None),
        ("full", "full, 1 steps", None),
        ("all groups", "all of stage-kinds, rate 0.001", None),
        ("target", "fast", None),
        *(("random", f"{name}, random {number}", name) for name in ("one", "two") for number in (1, 2)),
    ]
    assert found.whole == dict.fromkeys(("one", "two"), "all of stage-kinds, rate 0.001")
    by_name = {row.name: row.recipe for row in found.rows}
    assert (by_name["full"].rate, by_name["full"].steps, by_name["full, 1 steps"].steps) == (3e-3, None, 1)
    whole = by_name["all of stage-kinds, rate 0.001"]
    assert all(whole.mask.bits)
    assert whole.mask.trainable.percent == pytest.approx(100)
    for name, number in (("one", 1), ("one", 2), ("two", 1), ("two", 2)):
        twin = by_name[f"{name}, random {number}"]
        assert twin.rate == 1e-3
        assert twin.mask.bits != by_name[name].mask.bits
        assert twin.mask.trainable.numel == pytest.approx(by_name[name].mask.trainable.numel, rel=0.25)
    assert len({row.recipe.content for row in found.rows}) == len(found.rows)


def test_masks_of_two_rates_have_two_rows_of_all_groups(tiny, model, masks):
    found = rows(tiny, model, masks=[str(masks["two"]), str(masks["fast"])], random=0)
    assert found.whole == {"two": "all of stage-kinds, rate 0.001", "fast": "all of stage-kinds, rate 0.01"}
    assert found.named("random") == ()


def test_full_fine_tuning_has_its_lengths_at_each_rate(tiny, model, masks):
    changes = {"rates": {"full": 1e-3}, "full_rates": [1e-3, 1e-2], "full_points": [0.5, 2.0]}
    found = rows(tiny, model, masks=[str(masks["one"])], random=0, **changes)
    own = [(row.name, row.recipe.rate, row.recipe.steps) for row in found.rows if row.role == "full"]
    assert own == [
        ("full", 1e-3, None),
        ("full, 1 steps", 1e-3, 1),
        ("full, 4 steps", 1e-3, 4),
        ("full, rate 0.01", 1e-2, None),
        ("full, 1 steps, rate 0.01", 1e-2, 1),
        ("full, 4 steps, rate 0.01", 1e-2, 4),
    ]


def test_bad_masks_are_refused_in_one_line(tiny, model, masks, tmp_path):
    given = {name: str(path) for name, path in masks.items()}
    refused = [
        ({}, "no mask to transfer: name a mask's JSON file or a search's folder with --mask"),
        ({"masks": [given["none"]]}, "mask none trains nothing"),
        ({"masks": [str(tmp_path / "nowhere.json")]}, "no mask file"),
        ({"masks": [given["one"]], "target_masks": [given["one"]]}, "one is given as a mask and as the target's own"),
        ({"masks": [given["one"]], "random": 100_000}, "100000 random masks of .* were asked for"),
        ({"masks": [str(masks["two"].rename(tmp_path / "full.json"))]}, "another row is named full"),
        ({"masks": [str(masks["fast"].rename(tmp_path / "untuned.json"))]}, "another row is named untuned"),
    ]
    for changes, message in refused:
        with pytest.raises(MaskError, match=message):
            rows(tiny, model, **changes)


def test_masks_for_another_model_are_carried_and_its_images_may_be_grey(masks, ddpm_folders, cache_folder):
    """From a model on latents with captions to one on single-channel pixels without."""
    frozen = load_pipeline(str(ddpm_folders[1]), cache=Cache(cache_folder))
    target = ModelIdentity.of(frozen.unet, "grey")
    with pytest.raises(
        MaskError, match=r"one: mask stage-kinds-\S+ cannot be carried by name to UNet2DModel grey: it has"
    ):
        rows_of(small(masks=[str(masks["one"])]), frozen.unet, target)
    found = rows_of(small(masks=[str(masks["one"])], map="position"), frozen.unet, target)
    assert found.carried["one"].how == "position"
    for cell in found.cells:
        if cell.recipe.mask is not None:
            cell.recipe.mask.check(frozen.unet)


def run_folder(tiny, path):
    """What a search leaves, with a front of three masks."""
    scores = [(1.0, 0.3), (1.5, 0.1), (4.0, 0.0)]
    members = []
    for trial, (fd, gap) in enumerate(scores):
        stage_kinds_mask(tiny, path / "masks" / f"trial-{trial:03d}.json", "ends", provenance={"trial": trial})
        values = {"fd@pixels": fd, "copy_gap@pixels": gap}
        kept = {
            name: {"value": one, "low": one, "high": one, "n": 8, "better": "lower"} for name, one in values.items()
        }
        facts = {"trial": trial, "bits": "1", "trains": ["ends"], "numel": 6, "learning_rate": 1e-3, "steps": 6}
        members.append({"mask": f"masks/trial-{trial:03d}.json", "scores": kept} | facts)
    objectives = [{"name": name, "better": "lower"} for name in ("fd@pixels", "copy_gap@pixels")]
    content = {"schema": "memcontrol/front@1", "objectives": objectives, "front": members, "references": {}}
    facts = {"budget": 3, "sampler": "gp", "seed": 0, "trials": {}, "hypervolume": None, "reference_point": None}
    (path / "front.json").write_text(json.dumps(content | facts))
    return path


def test_a_run_folder_means_what_is_picked_of_its_front(tiny, tmp_path):
    run = run_folder(tiny, tmp_path / "search")
    (knee,) = named_masks([str(run)], "knee").items()
    assert (knee[0], knee[1].provenance["trial"]) == ("search-knee", 1)
    (least,) = named_masks([str(run)], "least-copied").items()
    assert (least[0], least[1].provenance["trial"]) == ("search-least-copied", 2)
    assert list(named_masks([str(run)], "all")) == ["search-0", "search-1", "search-2"]
    for trial in range(3):
        stage_kinds_mask(tiny, run / "masks" / f"trial-{trial:03d}.json")
    with pytest.raises(MaskError, match=r"no mask on the front of .* trains anything: there is nothing to transfer"):
        named_masks([str(run)], "all")


def test_a_checkpoint_on_the_front_is_told_from_its_trial(tiny, tmp_path):
    run = run_folder(tiny, tmp_path / "search")
    facts = {"trial": 1, "steps": 3, "of": 6}
    stage_kinds_mask(tiny, run / "masks" / "trial-002.json", "ends", provenance=facts)
    assert list(named_masks([str(run)], "all")) == ["search-0", "search-1", "search-1-at-3"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"rates": {"norm": 1e-2}}, "a learning rate of 'norm': expected full=RATE alone, since masks bring their own"),
        ({"map": "order"}, "Input should be 'name' or 'position'"),
        ({"random": -1}, "greater than or equal to 0"),
        ({"data": {"seed": 1}}, "data.seed fixes the training set"),
        ({"grids": []}, "Extra inputs are not permitted"),
    ],
)
def test_settings_that_mean_nothing_are_refused(content, message):
    with pytest.raises(ValueError, match=message):
        TransferConfig.model_validate(content)


def test_a_files_masks_are_found_beside_it(tmp_path):
    path = tmp_path / "transfer.yaml"
    path.write_text("masks: found/knee.json\ntarget_masks: [own.json]\n")
    config = load_transfer(path)
    assert config.masks == (str(tmp_path / "found" / "knee.json"),)
    assert config.target_masks == (str(tmp_path / "own.json"),)
    path.write_text("mask: knee.json\n")
    with pytest.raises(MemControlError, match=r"transfer\.yaml: mask: unknown key"):
        load_transfer(path)
