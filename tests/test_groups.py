"""Groups partition every kind of U-Net, and their sizes are the published ones."""

import re
import subprocess
import sys
from collections import Counter
from functools import lru_cache

import pytest
import torch
from diffusers import UNet2DConditionModel, UNet2DModel
from diffusers.models.attention_processor import Attention
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import nn

from memcontrol.errors import ModelError, SpaceError
from memcontrol.groups import ParameterGroup, architecture_fingerprint, kind, parameter_groups, weights_fingerprint
from memcontrol.space import SearchSpace, load_space, space_names

WHOLE = ("stage-kinds", "stages", "layer-kinds")
TOPOLOGIES = ("tiny", "sd15", "sdxl", "unconditional", "ddpm", "fourier", "plain")


def tiny(channels: tuple[int, ...] = (16, 32)) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        block_out_channels=channels,
        layers_per_block=1,
        cross_attention_dim=32,
        attention_head_dim=2,
        norm_num_groups=8,
    )


def sdxl() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        block_out_channels=(320, 640, 1280),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 10),
        attention_head_dim=(5, 10, 20),
        cross_attention_dim=2048,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )


def two_levels(down: str, up: str, **settings: object) -> UNet2DModel:
    return UNet2DModel(
        sample_size=16,
        block_out_channels=(32, 64),
        down_block_types=("DownBlock2D", down),
        up_block_types=(up, "UpBlock2D"),
        **settings,
    )


@lru_cache
def unet(topology: str) -> nn.Module:
    with torch.device("meta"):
        match topology:
            case "tiny":
                return tiny()
            case "sd15":
                return UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8)
            case "sdxl":
                return sdxl()
            case "unconditional":
                return two_levels("AttnDownBlock2D", "AttnUpBlock2D", num_class_embeds=3)
            case "ddpm":
                return UNet2DModel(sample_size=32)
            case "fourier":
                return two_levels("AttnSkipDownBlock2D", "AttnSkipUpBlock2D", time_embedding_type="fourier")
            case _:
                return two_levels("DownBlock2D", "UpBlock2D", add_attention=False)


def groups_of(space: str, topology: str) -> tuple[ParameterGroup, ...]:
    return parameter_groups(load_space(space), unet(topology))


def numel(groups: tuple[ParameterGroup, ...]) -> int:
    return sum(group.numel for group in groups)


def names_of(groups: tuple[ParameterGroup, ...]) -> Counter[str]:
    return Counter(name for group in groups for name in group.parameters)


def owned_by(model: nn.Module, *kinds: type[nn.Module]) -> set[str]:
    """Parameters below modules of these classes: a reference that does not look at names."""
    found = ((path, module) for path, module in model.named_modules() if isinstance(module, kinds))
    return {f"{path}.{name}" for path, module in found for name, _ in module.named_parameters()}


def space(*parts: dict[str, object]) -> SearchSpace:
    return SearchSpace.model_validate(
        {"schema": "memcontrol/search-space@1", "name": "mine", "learning_rate": 1e-3, "parts": parts}
    )


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("name", WHOLE)
def test_whole_spaces_have_every_trainable_parameter_exactly_once(name: str, topology: str) -> None:
    fixed = {"time_proj.weight"}
    expected = {parameter for parameter, _ in unet(topology).named_parameters()} - fixed
    groups = groups_of(name, topology)
    assert names_of(groups) == Counter(expected)
    assert numel(groups) == sum(p.numel() for n, p in unet(topology).named_parameters() if n not in fixed)
    assert len({group.name for group in groups}) == len(groups)


@pytest.mark.parametrize("topology", [name for name in TOPOLOGIES if name != "plain"])
def test_attention_spaces_have_the_attention_modules_parameters(topology: str) -> None:
    model = unet(topology)
    inside = owned_by(model, Attention)
    blocks = owned_by(model, Transformer2DModel) or inside
    norms = owned_by(model, nn.GroupNorm)
    assert names_of(groups_of("attention-blocks", topology)) == Counter(blocks)
    assert names_of(groups_of("attention-matrices", topology)) == Counter(inside - norms)


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_layer_kinds_agree_with_the_modules_classes(topology: str) -> None:
    model = unet(topology)
    groups = {group.name: set(group.parameters) for group in groups_of("layer-kinds", topology)}
    assert groups["norms"] == owned_by(model, nn.GroupNorm, nn.LayerNorm)
    assert "other" not in groups
    attention = groups.get("self-attention", set()) | groups.get("cross-attention", set())
    assert attention == {n for n in owned_by(model, Attention) - groups["norms"] if n.endswith(".weight")}
    convolutions = {n for n in owned_by(model, nn.Conv2d) - owned_by(model, Transformer2DModel) if "bias" not in n}
    assert groups["convolutions"] == convolutions


def test_tiny_has_the_fourteen_default_groups_in_order() -> None:
    assert [group.name for group in groups_of("stage-kinds", "tiny")] == [
        *("down.0.attention", "down.0.resnets", "down.1.attention", "down.1.resnets", "down.norms"),
        *("mid.attention", "mid.resnets", "mid.norms"),
        *("up.0.attention", "up.0.resnets", "up.1.attention", "up.1.resnets", "up.norms", "ends"),
    ]


def test_stage_kinds_put_each_parameter_where_it_belongs() -> None:
    owner = {name: group.name for group in groups_of("stage-kinds", "tiny") for name in group.parameters}
    assert owner["down_blocks.0.downsamplers.0.conv.weight"] == "down.0.resnets"
    assert owner["up_blocks.1.resnets.0.time_emb_proj.bias"] == "up.1.resnets"
    assert owner["mid_block.attentions.0.proj_in.weight"] == "mid.attention"
    assert owner["mid_block.attentions.0.transformer_blocks.0.norm2.bias"] == "mid.norms"
    assert owner["conv_norm_out.weight"] == "up.norms"
    assert owner["time_embedding.linear_1.weight"] == owner["conv_in.bias"] == owner["conv_out.weight"] == "ends"


def test_class_embeddings_are_ends() -> None:
    owner = {name: group.name for group in groups_of("stage-kinds", "unconditional") for name in group.parameters}
    assert owner["class_embedding.weight"] == "ends"


def test_published_sizes_on_stable_diffusion() -> None:
    sizes = dict(unet("sd15").named_parameters())
    assert sum(parameter.numel() for parameter in sizes.values()) == 859_520_964
    assert numel(groups_of("stage-kinds", "sd15")) == 859_520_964
    assert numel(groups_of("attention-blocks", "sd15")) == 267_239_360
    assert numel(groups_of("attention-matrices", "sd15")) == 93_536_640
    kinds = {group.name: group.numel for group in groups_of("layer-kinds", "sd15")}
    assert kinds["norms"] == 200_320
    norm_biases = sum(p.numel() for n, p in sizes.items() if kind(n) == "norms" and n.endswith(".bias"))
    assert kinds["biases"] + norm_biases == 343_684
    assert kinds["cross-attention"] + kinds["self-attention"] == 93_536_640 - 24_960  # the output biases


def test_sixteen_attention_blocks_in_the_published_bit_order_and_size() -> None:
    matrices = load_space("attention-matrices").parts[0].select
    groups = parameter_groups(space({"select": matrices, "group_by": "attention-block"}), unet("sd15"))
    assert [group.name for group in groups] == [
        *(f"down.{stage}.attentions.{i}" for stage in (0, 1, 2) for i in (0, 1)),
        "mid.attentions.0",
        *(f"up.{stage}.attentions.{i}" for stage in (1, 2, 3) for i in (0, 1, 2)),
    ]
    size = {group.name: round(group.numel / 1e6, 3) for group in groups}
    assert (size["down.0.attentions.0"], size["up.2.attentions.1"], size["mid.attentions.0"]) == (1.107, 3.442, 11.799)


@pytest.mark.parametrize("name", [name for name in space_names() if name != "layer-kinds"])
def test_descriptions_state_the_true_number_of_bits(name: str) -> None:
    on_tiny, on_sd = re.search(
        r"(\d+) (?:bits?|blocks)\s+on\s+tiny,\s+(\d+)\s+on\s+Stable\s+Diffusion", load_space(name).description
    ).groups()
    assert sum(not group.always for group in groups_of(name, "tiny")) == int(on_tiny)
    assert sum(not group.always for group in groups_of(name, "sd15")) == int(on_sd)


def test_self_and_cross_attention_are_apart() -> None:
    groups = {group.name: group.parameters for group in groups_of("attention-matrices", "sdxl")}
    assert all(".attn1." in name for name in groups["mid.attentions.0.self"])
    assert all(".attn2." in name for name in groups["mid.attentions.0.cross"])
    assert len(groups["mid.attentions.0.cross"]) == 10 * 5  # ten blocks: q, k, v, out and its bias


@pytest.mark.parametrize(
    ("group_by", "expected"),
    [
        ("matrix", {"mid.attentions.0.self.q", "mid.attentions.0.self.out"}),
        ("module", {"mid_block.attentions.0.to_q", "mid_block.attentions.0.to_out.0"}),
        ("name", {f"mid_block.attentions.0.{m}.{p}" for m in ("to_q", "to_out.0") for p in ("weight", "bias")}),
        ("side", {"mid"}),
        ("all", {"all"}),
    ],
)
def test_other_groupings(group_by: str, expected: set[str]) -> None:
    part = {"select": ["mid_block.attentions.*.to_q.*", "mid_block.*.to_out.0.*"], "group_by": group_by}
    assert {group.name for group in parameter_groups(space(part), unet("unconditional"))} == expected


def test_always_and_name_reach_the_groups() -> None:
    parts = (
        {"select": ["*.attentions.*"], "exclude": ["*norm*"], "group_by": "stage", "name": "attention"},
        {"select": ["*norm*"], "name": "norms", "always": True},
    )
    groups = {group.name: group.always for group in parameter_groups(space(*parts), unet("tiny"))}
    assert groups == {**{f"{s}.attention": False for s in ("down.0", "down.1", "mid", "up.0", "up.1")}, "norms": True}


def test_a_part_that_selects_nothing_is_named() -> None:
    with pytest.raises(SpaceError, match=r"mine: part 2 \(select \*\.attn9\.\*\) selects none of the 286 parameters"):
        parameter_groups(space({"select": ["conv_in.*"]}, {"select": ["*.attn9.*"]}), unet("tiny"))
    with pytest.raises(SpaceError, match=r"select conv_in\.\* without \*weight, \*bias"):
        parameter_groups(space({"select": ["conv_in.*"], "exclude": ["*weight", "*bias"]}), unet("tiny"))


def test_an_optional_part_may_select_nothing() -> None:
    parts = ({"select": ["conv_in.*"], "name": "first"}, {"select": ["*.attn9.*"], "name": "ninth", "optional": True})
    assert [group.name for group in parameter_groups(space(*parts), unet("tiny"))] == ["first"]


def test_a_parameter_in_two_groups_is_named_with_both() -> None:
    parts = ({"select": ["conv_in.*"], "name": "first"}, {"select": ["*.bias"], "name": "biases"})
    with pytest.raises(SpaceError, match=r"conv_in\.bias is in two groups, first and biases"):
        parameter_groups(space(*parts), unet("tiny"))


def test_two_parts_may_not_make_one_name() -> None:
    parts = ({"select": ["*.bias"], "group_by": "stage"}, {"select": ["*.weight"], "group_by": "stage"})
    with pytest.raises(SpaceError, match=r"two parts make a group ends: give one of them a name"):
        parameter_groups(space(*parts), unet("tiny"))


@pytest.mark.parametrize("group_by", ["attention-block", "attention-layer", "matrix"])
def test_attention_groupings_refuse_other_parameters(group_by: str) -> None:
    with pytest.raises(SpaceError, match=r"conv_in\.weight is (in )?no"):
        parameter_groups(space({"select": ["*"], "group_by": group_by}), unet("tiny"))


def test_attention_spaces_refuse_a_unet_without_attention() -> None:
    with pytest.raises(SpaceError, match=r"attention-blocks: part 1 .* selects none .* UNet2DModel"):
        groups_of("attention-blocks", "plain")


def test_fingerprints_see_architecture_and_weights_apart() -> None:
    torch.manual_seed(0)
    one, other = tiny(), tiny()
    assert architecture_fingerprint(one) == architecture_fingerprint(other) == architecture_fingerprint(unet("tiny"))
    assert architecture_fingerprint(one) != architecture_fingerprint(tiny((16, 24)))
    assert weights_fingerprint(one) != weights_fingerprint(other)
    other.load_state_dict(one.state_dict())
    before = weights_fingerprint(one)
    assert weights_fingerprint(other.requires_grad_(False)) == before
    other.get_parameter("conv_out.bias").data[-1] += 1e-4
    assert weights_fingerprint(other) != before
    assert weights_fingerprint(one.to(torch.bfloat16)) != before


def test_fingerprints_do_not_depend_on_the_order_of_modules() -> None:
    layers = {"a": nn.Linear(2, 3), "b": nn.Conv2d(1, 2, 3).to(memory_format=torch.channels_last)}
    forward, backward = nn.ModuleDict(layers), nn.ModuleDict(dict(reversed(layers.items())))
    assert architecture_fingerprint(forward) == architecture_fingerprint(backward)
    assert weights_fingerprint(forward) == weights_fingerprint(backward)
    assert architecture_fingerprint(forward) != architecture_fingerprint(nn.ModuleDict({"a": layers["a"]}))


def test_equal_bytes_of_another_type_are_other_weights() -> None:
    whole, half = nn.ParameterDict({"a": torch.zeros(2)}), nn.ParameterDict({"a": torch.zeros(4, dtype=torch.float16)})
    assert weights_fingerprint(whole) != weights_fingerprint(half)


def test_weights_on_the_meta_device_are_refused() -> None:
    with pytest.raises(ModelError, match="no values"):
        weights_fingerprint(unet("tiny"))


def test_spaces_groups_and_masks_import_without_torch() -> None:
    modules = "memcontrol.groups, memcontrol.mask, memcontrol.report.inspection"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
