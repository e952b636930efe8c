"""A carried mask has the target's groups and the bits of their counterparts; what has none is refused by name."""

import pytest
from diffusers import UNet2DConditionModel
from unet_configs import numel_of, unet_of

from memcontrol.carrying import carry, mapping_text
from memcontrol.errors import MaskError
from memcontrol.groups import architecture_fingerprint, parameter_groups
from memcontrol.mask import Mask
from memcontrol.mask_records import ModelIdentity
from memcontrol.space import load_space


def identity(unet, name="target"):
    return ModelIdentity(name, type(unet).__name__, architecture_fingerprint(unet), "sha256:unread")


def mask_on(model, space, *on):
    """The mask of these groups, or of every other group where none is named."""
    unet, chosen = unet_of(model), load_space(space)
    groups = parameter_groups(chosen, unet)
    bits = [group.name in on if on else place % 2 == 0 for place, group in enumerate(groups)]
    kept = {"data": {"name": "brain", "n": 32, "sha256": "sha256:x"}, "steps": 300}
    return Mask.build(
        chosen,
        groups,
        bits,
        model=identity(unet, model),
        unet_numel=numel_of(model),
        learning_rate=2e-3,
        scores={"fd@pixels": {"value": 1.0, "low": None, "high": None, "n": 8, "better": "lower"}},
        provenance=kept,
    )


def carried(mask, model, by="name"):
    return carry(mask, unet_of(model), identity(unet_of(model), model), by=by)


def on(mask):
    return {group.name for group in mask.trained}


@pytest.mark.parametrize("by", ["name", "position"])
def test_the_same_architecture_gets_the_mask_unchanged(by):
    mask = mask_on("tiny", "stage-kinds")
    found = carried(mask, "tiny", by)
    assert (found.mask, found.how, found.sources) == (mask, "unchanged", {})
    assert mapping_text(found) == "the same groups"


def test_other_widths_are_carried_by_name_and_fit_the_target():
    mask = mask_on("tiny-sd", "stage-kinds")
    found = carried(mask, "SD 1.5")
    assert found.how == "name"
    assert found.mask.key == mask.key
    found.mask.check(unet_of("SD 1.5"))
    assert found.mask.trainable.numel > 100 * mask.trainable.numel
    assert found.mask.trainable.percent == pytest.approx(100 * found.mask.trainable.numel / numel_of("SD 1.5"))
    assert (found.mask.learning_rate, found.mask.scores, found.mask.confirmed) == (2e-3, {}, None)
    assert found.mask.provenance["carried from"] == {
        "mask": mask.name,
        "model": "tiny-sd",
        "architecture": mask.model.architecture,
        "by": "name",
    }
    assert found.mask.provenance["data"] == mask.provenance["data"]
    assert Mask.from_json(found.mask.to_json()) == found.mask


def test_by_name_what_the_target_adds_and_lacks_is_listed():
    mask = mask_on("tiny", "stage-kinds", "up.0.attention", "ends")
    with pytest.raises(MaskError) as caught:
        carried(mask, "tiny-sd")
    message = str(caught.value)
    assert "it has nothing like up.0.attention;" in message
    assert "nothing in the mask decides its down.2.attention, down.2.resnets, down.3.resnets, up.2.attention" in message
    assert "use --map position" in message


def test_position_follows_relative_depth():
    """Two levels on four: the first two take the first one's bit; attention is where the target has it."""
    found = carried(
        mask_on("tiny", "stage-kinds", "down.0.resnets", "down.1.attention", "up.0.attention"), "tiny-sd", "position"
    )
    assert on(found.mask) == {"down.0.resnets", "down.1.resnets", "down.2.attention", "up.1.attention"}
    assert found.unused == ()
    text = mapping_text(found)
    assert "+down.0.resnets -> down.0.resnets, down.1.resnets" in text
    assert "-mid.attention -> mid.attention" in text


def test_position_follows_the_relative_index_within_a_level():
    found = carried(mask_on("tiny", "attention-blocks", "up.0.attentions.1"), "tiny-sd", "position")
    assert on(found.mask) == {"up.1.attentions.2"}
    assert found.sources["up.1.attentions.1"] == "up.0.attentions.0", "of two as near, the lower number"


@pytest.mark.parametrize("space", ["stage-kinds", "attention-blocks", "paper-attention", "attention-matrices", "mixed"])
def test_there_and_back_is_the_same_mask(space):
    mask = mask_on("tiny", space)
    back = carried(carried(mask, "tiny-sd", "position").mask, "tiny", "position")
    assert back.mask.bits == mask.bits
    assert back.mask.groups == mask.groups


def test_bits_that_no_group_takes_are_told():
    found = carried(mask_on("tiny-sd", "stage-kinds", "down.1.resnets", "down.0.resnets"), "tiny", "position")
    assert on(found.mask) == {"down.0.resnets"}
    assert found.unused == ("down.1.resnets",)
    assert mapping_text(found).endswith("; on there and carried nowhere: down.1.resnets")


def test_a_mask_of_which_nothing_would_train_is_refused():
    with pytest.raises(MaskError, match="would train nothing of tiny: no group took the bit of one that is on"):
        carried(mask_on("tiny-sd", "stage-kinds", "down.1.resnets"), "tiny", "position")


def without_mid_attention():
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        cross_attention_dim=8,
        attention_head_dim=2,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        mid_block_type=None,
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )


@pytest.mark.parametrize("by", ["name", "position"])
def test_a_trained_group_without_its_like_is_refused_and_a_frozen_one_is_not(by):
    unet = without_mid_attention()
    mask = mask_on("tiny", "stage-kinds", "mid.attention", "mid.norms", "ends")
    with pytest.raises(
        MaskError, match=r"carried by \w+ to UNet2DConditionModel target: it has nothing like mid.attention, mid"
    ):
        carry(mask, unet, identity(unet), by=by)
    found = carry(mask_on("tiny", "stage-kinds", "down.0.attention", "ends"), unet, identity(unet), by=by)
    assert on(found.mask) == {"down.0.attention", "ends"}


def test_unconditional_u_nets_take_masks_and_refuse_what_needs_captions():
    mask = mask_on("tiny", "stage-kinds", "down.0.attention", "up.1.resnets")
    found = carried(mask, "unconditional", "position")
    assert on(found.mask) == {"down.1.attention", "up.2.resnets"}
    with pytest.raises(MaskError, match="cannot be carried to UNet2DModel unconditional: search space paper-svdiff"):
        carried(mask_on("tiny", "paper-svdiff"), "unconditional", "position")
    with pytest.raises(
        MaskError, match=r"nothing like mid\.attentions\.0\.cross; use a mask of a search space that both"
    ):
        carried(mask_on("tiny", "attention-matrices", "mid.attentions.0.cross"), "unconditional", "position")


def test_lora_keeps_the_rank_that_was_chosen():
    space, unet = load_space("lora-ranks"), unet_of("tiny")
    groups = parameter_groups(space, unet)
    high = [group.at(1 + len(group.alternatives)) for group in groups]
    mask = Mask.build(
        space, high, [True] * len(high), model=identity(unet, "tiny"), unet_numel=numel_of("tiny"), learning_rate=1e-2
    )
    (rank,) = {group.settings["rank"] for group in mask.groups}
    found = carried(mask, "tiny-sd", "position").mask
    assert {group.settings["rank"] for group in found.groups} == {rank} != {groups[0].settings["rank"]}
    found.check(unet_of("tiny-sd"))


def test_what_a_space_always_trains_is_on_and_needs_no_counterpart():
    mask = mask_on("tiny-sd", "paper-svdiff", "mid.attentions.0")
    found = carried(mask, "tiny", "position")
    always = {group.name for group in parameter_groups(load_space("paper-svdiff"), unet_of("tiny")) if group.always}
    assert always
    assert on(found.mask) == {"mid.attentions.0", *always}
    assert found.unused == ()
