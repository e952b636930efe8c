"""Rows are what was asked for, once each; what cannot be is refused in one line before anything is trained."""

import pytest
from small_comparison import saved_mask, uncaptioned

from memcontrol.comparison.cells import cells_of
from memcontrol.comparison.config import ComparisonConfig, Grid, load_comparison, parts_of
from memcontrol.comparison.methods import METHODS, Recipe
from memcontrol.config import DataConfig
from memcontrol.data import load_dataset
from memcontrol.errors import DataError, MaskError, MemControlError


def grids(*grids, **more):
    return ComparisonConfig.model_validate({"grids": list(grids)} | more)


def names(config):
    return [cell.name for cell in cells_of(config)]


def test_methods_are_crossed_with_mitigations_and_the_untuned_model_is_not():
    grid = {"methods": "freeze,full,norm", "mitigations": ["none", "rwa,threshold+fewer-steps:share=0.5"]}
    rows = [
        *("freeze", "full", "full + rwa", "full + threshold + fewer-steps:share=0.5"),
        *("norm", "norm + rwa", "norm + threshold + fewer-steps:share=0.5"),
    ]
    assert names(grids(grid)) == rows


def test_plain_full_fine_tuning_is_always_there_and_no_row_twice():
    rwa = {"methods": ["norm", "norm"], "mitigations": ["rwa", "rwa"]}
    assert names(grids(rwa)) == ["full", "norm + rwa"]
    assert names(grids(rwa, {"methods": ["full"]}, rwa)) == ["norm + rwa", "full"]


def test_commas_separate_mitigations_and_their_strengths():
    grid = Grid(methods="full", mitigations="rwa:count=2,probability=0.5,none,threshold+rt:count=1,probability=1")
    assert grid.mitigations == ("rwa:count=2,probability=0.5", "none", "threshold+rt:count=1,probability=1")
    joined = ("threshold", "rt:probability=1e+0", "deduplication")
    assert parts_of("threshold + rt:probability=1e+0+deduplication") == joined
    assert parts_of("none") == ()


@pytest.mark.parametrize(
    ("given", "expected"),
    [("5-8", (5, 6, 7, 8)), (["5,7", "9"], (5, 7, 9)), ([3, 1], (3, 1)), ("4", (4,)), (7, (7,))],
)
def test_seeds_are_numbers_or_ranges(given, expected):
    assert ComparisonConfig(seeds=given).seeds == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"grids": [{"methods": ["fulll"]}]}, "unknown method 'fulll': did you mean full"),
        ({"grids": [{"mitigations": ["rwa"]}]}, "neither methods nor masks: name at least one"),
        ({"grids": [{"methods": ["full"], "mitigation": ["rwa"]}]}, "Extra inputs are not permitted"),
        ({"seeds": [1, 1]}, "expected each once"),
        ({"seeds": "1-x"}, "'1-x' is no seed: expected whole numbers"),
        ({"seeds": [-1]}, "'-1' is no seed"),
        ({"seeds": "1,8-5"}, "8-5 is no range of seeds: expected the smaller one first, 5-8"),
        ({"data": {"seed": 3}}, "data.seed fixes the training set: leave it out"),
        ({"rates": ["norms=1"]}, "a learning rate of 'norms': did you mean norm"),
        ({"rates": ["full"]}, "expected METHOD=RATE, such as full=3e-3"),
        ({"rates": ["full=-1"]}, "a learning rate of -1 for full: expected a number above 0"),
        ({"rates": {"full": -1}}, "greater than 0"),
    ],
)
def test_bad_settings_are_refused(content, message):
    with pytest.raises(ValueError, match=message):
        ComparisonConfig.model_validate(content)


@pytest.mark.parametrize(
    ("mitigation", "message"),
    [
        ("rwaa", 'unknown mitigation "rwaa": did you mean rwa'),
        ("rwa:counts=2", 'mitigation rwa has no strength "counts=2"'),
        ("fewer-steps:share=2", "share 2: expected above 0 and at most 1"),
        ("threshold+iet-agc", "threshold and ensembles both decide which samples count"),
    ],
)
def test_bad_mitigations_are_refused(mitigation, message):
    with pytest.raises(MemControlError, match=message):
        cells_of(grids({"methods": ["norm"], "mitigations": [mitigation]}))


def test_rates_are_the_methods_own_unless_given():
    cells = {c.name: c for c in cells_of(grids({"methods": ["norm", "svdiff"]}, rates=["norm=0.5"]))}
    assert (cells["norm"].recipe.rate, cells["svdiff"].recipe.rate) == (0.5, METHODS["svdiff"].rate)
    assert cells["norm"].content != Recipe.of_method("norm").content


@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_all_groups_of_its_space(name, tiny):
    groups = Recipe.of_method(name).groups(tiny.unet)
    whole = sum(p.numel() for key, p in tiny.unet.named_parameters() if not key.startswith("time_proj."))
    numel = sum(group.numel for group in groups)
    assert numel == 0 if name == "freeze" else numel == whole if name == "full" else 0 < numel < whole


def test_a_mask_brings_its_groups_and_its_rate(tiny, tmp_path):
    path = saved_mask(tiny, tmp_path / "found.json", bits="010", rate=0.0178)
    (_, cell) = cells_of(grids({"masks": [str(path)]}))
    assert (cell.name, cell.recipe.rate) == ("found", 0.0178)
    assert [group.name for group in cell.recipe.groups(tiny.unet)] == ["resnets"]


def test_masks_that_cannot_be_are_refused(tiny, tmp_path):
    good = saved_mask(tiny, tmp_path / "a" / "found.json", bits="010")
    twin = saved_mask(tiny, tmp_path / "b" / "found.json", bits="100")
    with pytest.raises(MaskError, match="another row is named found: give the file another name"):
        cells_of(grids({"masks": [str(good), str(twin)]}))
    named = saved_mask(tiny, tmp_path / "full.json", bits="010")
    with pytest.raises(MaskError, match="another row is named full"):
        cells_of(grids({"masks": [str(named)]}))
    with pytest.raises(MaskError, match="no mask file"):
        cells_of(grids({"masks": [str(tmp_path / "none.json")]}))
    idle = saved_mask(tiny, tmp_path / "idle.json", bits="000")
    with pytest.raises(MaskError, match="trains nothing: leave it out, method freeze is the same"):
        cells_of(grids({"masks": [str(idle)]}))


@pytest.mark.parametrize(
    "mitigation", ["rwa", "threshold", "embedding-noise", "inference-noise", "inference-optimisation", "other-caption"]
)
def test_mitigations_that_need_captions_are_refused_on_data_without(mitigation, tiny, tmp_path):
    without = load_dataset(DataConfig(**uncaptioned(tmp_path / "images")), resolution=tiny.resolution, seed=0)
    (_, cell) = cells_of(grids({"methods": ["norm"], "mitigations": [mitigation]}))
    with pytest.raises(DataError, match=f"norm \\+ {mitigation}: .* needs captions, and none of the 8 training images"):
        cell.check(tiny, without)
    for plain in ("none", "fewer-steps", "embedding-noise:strength=0", "iet-agc:shards=2"):
        (_, *cells) = cells_of(grids({"methods": ["norm"], "mitigations": [plain]}))
        cells[0].check(tiny, without)


def test_more_shards_than_images_are_refused(tiny):
    few = load_dataset(
        DataConfig(train_size=3, fidelity=4, copying=4, confirmation=4), resolution=tiny.resolution, seed=0
    )
    (_, cell) = cells_of(grids({"methods": ["norm"], "mitigations": ["iet-agc:shards=4"]}))
    with pytest.raises(MemControlError, match="4 shards for 3 training images"):
        cell.check(tiny, few)


def test_yaml_is_read_back_and_its_masks_lie_beside_it(tiny, tmp_path):
    config = grids({"methods": ["full"], "masks": ["m.json"], "mitigations": ["rwa"]}, seeds="5-6", rates=["full=1e-3"])
    (tmp_path / "grid.yaml").write_text(config.to_yaml())
    read = load_comparison(tmp_path / "grid.yaml")
    assert read.grids[0].masks == (str(tmp_path / "m.json"),)
    assert read.model_copy(update={"grids": config.grids}) == config
    with pytest.raises(MemControlError, match="no configuration file"):
        load_comparison(tmp_path / "none.yaml")
    (tmp_path / "wrong.yaml").write_text("seeds: [5]\nseed: 5\n")
    with pytest.raises(MemControlError, match="seed: unknown key"):
        load_comparison(tmp_path / "wrong.yaml")
