"""A search over LoRA's ranks: levels, counts, and masks that say which rank was chosen."""

import json
import re

import pytest
import torch
from pydantic import ValidationError

from memcontrol.groups import parameter_groups
from memcontrol.mask import Mask
from memcontrol.mask_records import ModelIdentity
from memcontrol.methods import tuned
from memcontrol.space import LogRange, SearchSpace, load_space, validation_message
from memcontrol.study.candidate import CandidateSpace, RateGrid

LEVELS = (0, 1, 2, 3, 0, 2, 0)
RANKS = {1: 1, 2: 4, 3: 16}


@pytest.fixture(scope="module")
def ranks(tiny):
    return parameter_groups(load_space("lora-ranks"), tiny.unet)


@pytest.mark.parametrize("name", ["lora-blocks", "lora-ranks"])
def test_the_shipped_spaces(name):
    space = load_space(name)
    assert space.name == name
    assert space.learning_rate == LogRange(low=1e-3, high=3e-2)
    assert space.full_learning_rate == 1e-3
    assert {part.method for part in space.parts} == {"lora"}
    assert "1e-5 to 1e-3: override with --learning-rate LOW:HIGH" in space.description
    assert SearchSpace.model_validate(space.content()).sha256 == space.sha256


def test_the_spaces_have_the_sizes_that_they_state(tiny):
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        sd15 = UNet2DConditionModel(cross_attention_dim=768, sample_size=64)
    whole = sum(parameter.numel() for parameter in sd15.parameters())
    said = {name: load_space(name).description for name in ("lora-blocks", "lora-ranks")}
    for unet, count, model in ((tiny.unet, 7, "on tiny"), (sd15, 16, "on Stable Diffusion 1.5")):
        for name, text in said.items():
            groups = parameter_groups(load_space(name), unet)
            assert len(groups) == count
            assert re.search(rf"\b{count}( bits| blocks)? {model}\b", text)
            assert {parameter.split(".")[-1] for group in groups for parameter in group.parameters} == {"weight"}
    blocks = parameter_groups(load_space("lora-blocks"), sd15)
    assert sum(group.numel for group in blocks) == 797_184
    assert f"797,184 numbers, {100 * 797_184 / whole:.3f} %" in said["lora-blocks"]
    groups = parameter_groups(load_space("lora-ranks"), sd15)
    least, most = (sum(group.at(level).numel for group in groups) for level in (1, 3))
    assert f"{least:,} numbers where all have rank 1, {most:,} or {100 * most / whole:.3f} %" in said["lora-ranks"]


def test_groups_have_an_alternative_for_each_further_rank(ranks, tiny):
    blocks = parameter_groups(load_space("lora-blocks"), tiny.unet)
    for group, block in zip(ranks, blocks, strict=True):
        assert [other.settings["rank"] for other in (group, *group.alternatives)] == [1, 4, 16]
        assert [other.numel for other in group.alternatives] == [4 * group.numel, 16 * group.numel]
        assert group.at(2) == block
        assert (block.alternatives, block.settings) == ((), {"rank": 4, "alpha": 4.0})


def test_candidates_choose_a_rank_for_each_block(ranks):
    space = CandidateSpace(groups=ranks, always=(), rates=RateGrid.between(1e-3, 3e-2), steps=10)
    assert [space.highest(group) for group in space.groups] == [3] * 7
    assert space.size == (4**7 - 1) * 6 + 1
    candidate = space.candidate(LEVELS, space.rates.first)
    assert candidate.mask == "0123020"
    chosen = space.trained(LEVELS)
    assert [group.name for group in chosen] == [ranks[i].name for i in (1, 2, 3, 5)]
    assert [group.settings["rank"] for group in chosen] == [1, 4, 16, 4]
    assert space.customary_rate((1,) * 7) > space.customary_rate((3,) * 7), "small masks want larger rates"
    assert [baseline.mask for baseline in space.baselines()[:3]] == ["1" * 7, "2" * 7, "3" * 7]


@pytest.fixture(scope="module")
def mask(ranks, tiny):
    return Mask.build(
        load_space("lora-ranks"),
        [group.at(level or 1) for group, level in zip(ranks, LEVELS, strict=True)],
        [level > 0 for level in LEVELS],
        model=ModelIdentity("tiny", "UNet2DConditionModel", "sha256:a", "sha256:b"),
        unet_numel=sum(parameter.numel() for parameter in tiny.unet.parameters()),
        learning_rate=1e-2,
    )


def test_a_mask_records_the_ranks_that_were_chosen(mask, ranks):
    content = json.loads(mask.to_json())
    on = [group for group in content["groups"] if group["on"]]
    assert [group["settings"] for group in on] == [{"rank": RANKS[i], "alpha": float(RANKS[i])} for i in (1, 2, 3, 2)]
    assert content["trainable"]["numel"] == sum(ranks[i].at(LEVELS[i]).numel for i in (1, 2, 3, 5))
    again = Mask.from_json(mask.to_json())
    assert again == mask
    assert {type(group.settings["rank"]) for group in again.groups} == {int}


def test_a_mask_read_from_its_file_trains_at_those_ranks(mask, tiny):
    again = Mask.from_json(mask.to_json())
    names = list(tiny.unet.state_dict())
    with tuned(tiny.unet, again.trained) as tuning:
        assert sum(parameter.numel() for parameter in tuning.parameters.values()) == mask.trainable.numel
        for group in again.trained:
            for name in group.parameters:
                assert len(tuning.parameters[f"{name}.lora_A"]) == group.settings["rank"]
        assert len(tuning.parameters) == 2 * len(again.trainable_names("lora"))
    assert list(tiny.unet.state_dict()) == names


def test_masks_of_full_groups_say_nothing_of_settings(tiny):
    space = load_space("stages")
    groups = parameter_groups(space, tiny.unet)
    mask = Mask.build(
        space,
        groups,
        [True] * len(groups),
        model=ModelIdentity("tiny", "UNet2DConditionModel", "sha256:a", "sha256:b"),
        unet_numel=10**9,
        learning_rate=1e-3,
    )
    assert "settings" not in mask.to_json()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 0}, r"parts\.0\.rank\.number: Input should be greater than or equal to 1 \(got 0\)"),
        ({"rank": [1, 0]}, r"parts\.0\.rank\.list\.1: Input should be greater than or equal to 1 \(got 0\)"),
        ({"rank": []}, r"parts\.0\.rank\.list: .* at least 1 item"),
        ({"rank": 2.5}, r"parts\.0\.rank\.number: Input should be a valid integer.*got 2\.5"),
        ({}, r"parts\.0: method lora needs a rank"),
        ({"rank": 4, "alpha": 0}, r"parts\.0\.alpha: Input should be greater than 0"),
        ({"rank": [1, 4], "always": True}, "has one rank: nothing chooses among several"),
        ({"rank": 4, "method": "full"}, "settings of lora, not of full"),
    ],
)
def test_impossible_ranks_are_refused(settings, message):
    part = {"method": "lora", "select": ["*.to_q.weight"]} | settings
    content = {"schema": "memcontrol/search-space@1", "name": "mine", "learning_rate": 1e-3, "parts": [part]}
    with pytest.raises(ValidationError) as caught:
        SearchSpace.model_validate(content)
    assert re.search(message, validation_message(caught.value))
