"""The papers' own search spaces have the published bits, order and sizes, and say so where they do not fit."""

from collections import Counter
from functools import lru_cache

import pytest
import torch
from spaces_table import PAGE, table
from unet_configs import MODELS, numel_of, unet_of

from memcontrol.errors import SpaceError
from memcontrol.groups import ParameterGroup, parameter_groups
from memcontrol.methods import tuned
from memcontrol.pipeline import load_unet
from memcontrol.space import load_space, space_names

PAPER = ("paper-svdiff", "paper-difffit", "paper-attention")
CLEAN = tuple(f"{name}-clean" for name in PAPER)
ROWS = ("full-tuning", "attention-tuning", "bias-tuning", "norm-tuning")
CHANNELS = (320, 320, 640, 640, 1280, 1280)  # of the down side's attention blocks


@lru_cache
def groups_of(space: str, model: str = "SD 1.5") -> tuple[ParameterGroup, ...]:
    return parameter_groups(load_space(space), unet_of(model))


def gated(space: str, model: str = "SD 1.5") -> list[ParameterGroup]:
    return [group for group in groups_of(space, model) if not group.always]


def numel(groups: list[ParameterGroup] | tuple[ParameterGroup, ...]) -> int:
    return sum(group.numel for group in groups)


def all_zero(space: str, model: str = "SD 1.5") -> int:
    return numel([group for group in groups_of(space, model) if group.always])


def down(stages: tuple[int, ...] = (0, 1, 2)) -> list[str]:
    return [f"down.{stage}.attentions.{i}" for stage in stages for i in (0, 1)]


def up(places: tuple[int, ...]) -> list[str]:
    return [f"up.{stage}.attentions.{i}" for stage in (1, 2, 3) for i in places]


@pytest.mark.parametrize(
    ("model", "expected"), [("SD 1.5", 859_520_964), ("SD 2.1", 865_910_724), ("SDXL", 2_567_463_684)]
)
def test_the_models_have_their_published_size(model: str, expected: int) -> None:
    assert numel_of(model) == expected


def test_stable_diffusion_has_391_layers_that_svdiff_fits() -> None:
    layers = [module for module in unet_of("SD 1.5").modules() if list(module.parameters(recurse=False))]
    assert len(layers) == 391
    assert Counter(type(layer).__name__ for layer in layers) == {
        "Conv2d": 98,
        "Linear": 184,
        "GroupNorm": 61,
        "LayerNorm": 48,
    }
    assert sum(len(group.parameters) for group in groups_of("paper-svdiff")) == 391, "each is in one group"


@pytest.mark.parametrize("model", ["SD 1.5", "tiny-sd", "SD 2.1"])
@pytest.mark.parametrize(
    ("space", "places"), [("paper-svdiff", (0, 1)), ("paper-difffit", (0, 1)), ("paper-attention", (0, 1, 2))]
)
def test_bits_are_in_the_published_order(space: str, places: tuple[int, ...], model: str) -> None:
    assert [group.name for group in gated(space, model)] == [*down(), "mid.attentions.0", *up(places)]
    assert len(gated(space, model)) == {2: 13, 3: 16}[len(places)]


def test_each_bit_gates_the_attention_block_of_its_place() -> None:
    for space in (*PAPER, *CLEAN):
        for group in gated(space):
            side, *stage, _, place = group.name.split(".")
            path = ".".join([f"{side}_block" if side == "mid" else f"{side}_blocks", *stage, "attentions", place])
            assert all(name.startswith(f"{path}.transformer_blocks.") for name in group.parameters), group.name


@pytest.mark.parametrize(
    ("space", "sizes"),
    [
        ("paper-svdiff", (3_203, 6_403, 11_779)),
        ("paper-difffit", (3_520, 7_040, 14_080)),
        ("paper-attention", (1_106_560, 3_441_920, 11_799_040)),
    ],
)
def test_bits_have_the_published_sizes(space: str, sizes: tuple[int, int, int]) -> None:
    size = dict(zip((320, 640, 1280), sizes, strict=True))
    count = len(gated(space))
    ups = {13: 2, 16: 3}[count]
    channels = [*CHANNELS, 1280, *(width for width in (1280, 640, 320) for _ in range(ups))]
    for name in (space, f"{space}-clean"):
        found = {group.name: group.numel for group in gated(name)}
        for group, width in zip(gated(space), channels, strict=True):
            assert found[group.name] == size[width]
    assert set(size.values()) == {group.numel for group in gated(f"{space}-clean")}


@pytest.mark.parametrize(
    ("space", "zero", "one", "zero_percent", "one_percent"),
    [
        ("paper-svdiff", 125_486, 222_805, "0.0146", "0.0259"),
        ("paper-difffit", 468_484, 581_124, "0.0545", "0.0676"),
        ("paper-attention", 173_702_720, 267_239_360, "20.2", "31.1"),
    ],
)
def test_published_totals(space: str, zero: int, one: int, zero_percent: str, one_percent: str) -> None:
    assert all_zero(space) == zero
    assert numel(groups_of(space)) == one
    for count, percent in ((zero, zero_percent), (one, one_percent)):
        assert f"{100 * count / 859_520_964:.{len(percent.partition('.')[2])}f}" == percent


def test_difffit_is_factors_biases_and_norms() -> None:
    assert numel([group for group in groups_of("paper-difffit") if group.method == "difffit"]) == 137_280
    assert numel([group for group in groups_of("paper-difffit") if group.method == "full"]) == 443_844
    assert numel(groups_of("paper-difffit-clean")) == 137_280
    both = {name for space in ("bias-tuning", "norm-tuning") for name in groups_of(space)[0].parameters}
    (rest,) = [group for group in groups_of("paper-difffit") if group.method == "full"]
    assert set(rest.parameters) == both


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        ("full-tuning", 859_520_964),
        ("attention-tuning", 267_239_360),
        ("bias-tuning", 343_684),
        ("norm-tuning", 200_320),
        ("paper-attention-clean", 93_536_640),
    ],
)
def test_published_subsets(space: str, expected: int) -> None:
    assert numel(groups_of(space)) == expected
    assert all_zero(space) == 0


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("space", ROWS)
def test_a_row_of_the_papers_tables_is_one_bit(space: str, model: str) -> None:
    assert len(groups_of(space, model)) == len(gated(space, model)) == 1


def test_bitfit_is_biases_by_stage_and_the_head() -> None:
    assert [group.name for group in groups_of("bitfit")] == [
        *(f"down.{stage}" for stage in range(4)),
        "mid",
        *(f"up.{stage}" for stage in range(4)),
        "ends",
        "head",
    ]
    head = groups_of("bitfit")[-1]
    assert head.always
    assert set(head.parameters) == {"conv_out.weight", "conv_out.bias"}
    assert all_zero("bitfit") == 320 * 4 * 9 + 4
    trained = {name for group in groups_of("bitfit") for name in group.parameters}
    assert trained - {"conv_out.weight"} == set(groups_of("bias-tuning")[0].parameters)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("space", CLEAN)
def test_clean_twins_freeze_and_gate_every_block(space: str, model: str) -> None:
    assert all_zero(space, model) == 0
    blocks = {group.name for group in groups_of("attention-blocks", model)}
    assert {group.name for group in groups_of(space, model)} == blocks
    twin = {name: group.name for group in gated(space.removesuffix("-clean"), model) for name in group.parameters}
    here = {name: group.name for group in groups_of(space, model) for name in group.parameters}
    assert twin.items() <= here.items()


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("space", PAPER)
def test_all_bits_train_the_whole_method_on_every_topology(space: str, model: str) -> None:
    """What is gated and what always trains are together the method without a mask, whatever the topology."""
    trained = {name for group in groups_of(space, model) for name in group.parameters}
    every = {name for name, _ in unet_of(model).named_parameters()}
    clean = {name for group in groups_of(f"{space}-clean", model) for name in group.parameters}
    whole = {
        "paper-svdiff": {name for name in every if name.endswith(".weight")},
        "paper-difffit": clean | {name for name in every if name.endswith(".bias") or "norm" in name},
        "paper-attention": {name for name in every if ".attentions." in name},
    }
    assert trained == whole[space]


@pytest.mark.parametrize(
    ("model", "thirteen", "sixteen"),
    [("tiny", 7, 7), ("tiny-sd", 13, 16), ("SD 1.5", 13, 16), ("SD 2.1", 13, 16), ("SDXL", 9, 11)],
)
def test_bits_on_other_topologies(model: str, thirteen: int, sixteen: int) -> None:
    assert [len(gated(space, model)) for space in PAPER] == [thirteen, thirteen, sixteen]
    assert [len(gated(space, model)) for space in CLEAN] == [sixteen] * 3


@pytest.mark.parametrize("model", MODELS)
def test_mixed_methods_have_parameters_of_their_own(model: str) -> None:
    groups = groups_of("mixed", model)
    assert {group.method for group in groups} == {"full", "svdiff", "lora"}
    names = Counter(name for group in groups for name in group.parameters)
    assert max(names.values()) == 1
    convolutions = {name for group in groups if group.method == "svdiff" for name in group.parameters}
    assert all(unet_of(model).get_parameter(name).ndim == 4 and ".resnets." in name for name in convolutions)
    every = dict(unet_of(model).named_parameters())
    assert convolutions == {name for name, tensor in every.items() if ".resnets." in name and tensor.ndim == 4}


@pytest.mark.parametrize("space", [*PAPER, "bitfit", "mixed"])
def test_what_a_space_counts_is_what_trains(space: str) -> None:
    """Attached for real, several methods at once, with a forward pass that each trained number takes part in."""
    unet = load_unet("tiny")
    with tuned(unet, groups_of(space, "tiny")) as tuning:
        assert sum(parameter.numel() for parameter in tuning.parameters.values()) == numel(groups_of(space, "tiny"))
        generator = torch.Generator().manual_seed(0)
        latents, captions = (torch.randn(shape, generator=generator) for shape in ((2, 8, 8, 8), (2, 5, 48)))
        unet(latents, torch.tensor([3, 700]), captions).sample.square().mean().backward()
        assert [name for name, parameter in tuning.parameters.items() if parameter.grad is None] == []


def test_an_unconditional_model_has_attention_and_no_transformer_blocks() -> None:
    assert [group.name for group in gated("paper-attention", "unconditional")] == [
        *down((1,)),
        "mid.attentions.0",
        *(f"up.1.attentions.{i}" for i in (0, 1, 2)),
    ]
    for space in (*PAPER[:2], *CLEAN[:2]):
        with pytest.raises(SpaceError, match=rf"{space}: part 1 \(select .* selects none of .* UNet2DModel"):
            groups_of(space, "unconditional")


@pytest.mark.parametrize("space", ["paper-attention", "paper-attention-clean", "mixed", "bitfit", *ROWS])
def test_other_spaces_fit_an_unconditional_model(space: str) -> None:
    assert all(group.numel > 0 for group in groups_of(space, "unconditional"))


def test_the_page_on_spaces_has_the_table_that_the_code_gives() -> None:
    assert table() in PAGE.read_text(encoding="utf-8"), "run python tests/spaces_table.py"


def test_the_page_on_spaces_has_every_space() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert [name for name in space_names() if f"**`{name}`**" not in text] == []
