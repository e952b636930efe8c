"""Random masks of a mask's size: how many numbers they train, what they keep, and when there are too few of them."""

from dataclasses import replace

import pytest

from memcontrol.errors import MaskError
from memcontrol.groups import parameter_groups
from memcontrol.mask import Mask
from memcontrol.mask_records import ModelIdentity
from memcontrol.random_masks import CLOSE, TOLERANCE, always_trained, random_twins, size_notes
from memcontrol.space import SearchSpace, load_space

MODEL = ModelIdentity("tiny", "UNet2DConditionModel", "sha256:0", "sha256:0")


@pytest.fixture(scope="module")
def made(tiny):
    unet = tiny.unet

    def build(space, bits, **more):
        found = load_space(space) if isinstance(space, str) else SearchSpace.model_validate(space)
        groups = parameter_groups(found, unet)
        on = [bits[i % len(bits)] == "1" for i in range(len(groups))]
        numel = sum(parameter.numel() for parameter in unet.parameters())
        given = {"model": MODEL, "unet_numel": numel, "learning_rate": 1e-3, "name": "found"}
        return Mask.build(found, groups, on, **(given | more))

    return build


def test_twins_are_distinct_and_train_as_many_numbers_as_the_mask(made):
    mask = made("stage-kinds", "10011")
    twins = random_twins(mask, 19, seed=0)
    assert len({twin.bits for twin in twins} | {mask.bits}) == 20
    for twin in twins:
        assert abs(twin.trainable.numel / mask.trainable.numel - 1) <= CLOSE
        assert sum(group.numel for group in twin.trained) == twin.trainable.numel
        assert twin.trainable.percent == pytest.approx(
            mask.trainable.percent * twin.trainable.numel / mask.trainable.numel
        )


def test_a_twin_differs_from_its_mask_by_its_bits_alone(made):
    score = {"value": 1.0, "low": 0.5, "high": 1.5, "n": 8, "better": "lower"}
    mask = made("stage-kinds", "10011", scores={"fd@pixels": score}, provenance={"trial": 3})
    first, second = random_twins(mask, 2, seed=5)
    assert (first.name, second.name) == ("found-random-1", "found-random-2")
    for twin in (first, second):
        assert twin.learning_rate == mask.learning_rate
        assert (twin.scores, twin.confirmed) == ({}, None)
        assert twin.provenance == {"random twin of": "found", "seed": 5}
        assert [replace(group, on=True) for group in twin.groups] == [replace(group, on=True) for group in mask.groups]
        assert Mask.from_json(twin.to_json()) == twin


def test_the_seed_decides_which(made):
    mask = made("stage-kinds", "10011")
    same = [[twin.bits for twin in random_twins(mask, 5, seed=seed)] for seed in (1, 1, 2)]
    assert same[0] == same[1] != same[2]


def test_they_are_drawn_from_all_masks_of_that_size_and_not_the_mask_with_one_small_group_more(made):
    mask = made("stage-kinds", "10011")
    changed = [
        sum(one != other for one, other in zip(twin.bits, mask.bits, strict=True))
        for twin in random_twins(mask, 19, seed=0)
    ]
    assert sum(changed) / len(changed) > 3


def test_groups_that_always_train_and_those_named_stay_on(made):
    mask = made("paper-difffit", "1010")
    always = always_trained(mask)
    assert always == {group.name for group in groups_of_always_parts(mask)}
    assert always
    first = next(group.name for group in mask.groups if group.name not in always and group.on)
    for twin in random_twins(mask, 3, seed=0, always=[first]):
        on = {group.name for group in twin.trained}
        assert always | {first} <= on


def groups_of_always_parts(mask):
    """The groups of a mask all of whose parameters a part that always trains selects."""
    space = SearchSpace.model_validate(mask.space.content)
    parts = [part for part in space.parts if part.always]
    return [g for g in mask.groups if any(all(map(part.selects, g.parameters)) for part in parts)]


def test_settings_of_alternatives_are_the_masks_own(made):
    mask = made("lora-blocks", "1100")
    (twin,) = random_twins(mask, 1, seed=0)
    assert [dict(group.settings) for group in twin.groups] == [dict(group.settings) for group in mask.groups]


def test_twins_that_are_not_close_in_size_are_told(made):
    mask = made("stage-kinds", "10011")
    assert size_notes("found", mask, random_twins(mask, 19, seed=0)) == ()
    twins = random_twins(made("stage-kinds", "1"), 100, seed=0)
    (note,) = size_notes("whole", made("stage-kinds", "1"), twins)
    least = min(twin.trainable.percent for twin in twins)
    assert note.startswith(f"random masks of whole train {least:.0f}% to 100% of its numbers: too few of its space")


def test_large_spaces_are_drawn_from(made):
    part = {"select": ["*.attentions.*"], "group_by": "module"}
    space = {"schema": "memcontrol/search-space@1", "name": "modules", "learning_rate": 1e-3, "parts": [part]}
    mask = made(space, "1001")
    assert len(mask.groups) > 40
    for twin in random_twins(mask, 19, seed=0):
        assert abs(twin.trainable.numel / mask.trainable.numel - 1) <= TOLERANCE


def test_too_few_masks_of_a_size_are_refused_with_their_number(made):
    whole = made("stage-kinds", "1")
    with pytest.raises(MaskError, match=r"mask found: 2000 random masks of .* to within 25%.*there are \d+ over its 1"):
        random_twins(whole, 2000, seed=0)
    parts = [{"select": ["*.attentions.*"], "name": "attention"}, {"select": ["conv_in.*"], "name": "in"}]
    small = {"schema": "memcontrol/search-space@1", "name": "two", "learning_rate": 1e-3, "parts": parts}
    with pytest.raises(MaskError, match="there are 0 over its 2 groups: ask for fewer, or use a mask of a space"):
        random_twins(made(small, "01"), 1, seed=0)


def test_a_mask_that_trains_nothing_and_one_of_an_unreadable_space_are_refused(made):
    with pytest.raises(MaskError, match="trains nothing"):
        random_twins(made("stage-kinds", "0"), 1, seed=0)
    mask = made("stage-kinds", "10")
    broken = replace(mask, space=replace(mask.space, content={"name": "x"}))
    with pytest.raises(MaskError, match="its search space: schema: Field required"):
        random_twins(broken, 1, seed=0)
