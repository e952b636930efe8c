"""Masks: bits to JSON and back, refusals, and what they train."""

import json
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel

from memcontrol.errors import MaskError
from memcontrol.groups import parameter_groups, weights_fingerprint
from memcontrol.mask import Mask, mask_key
from memcontrol.mask_records import ModelIdentity
from memcontrol.space import SearchSpace, load_space

SCORE = {"value": 12.1, "low": 11.2, "high": 13.0, "n": 256, "better": "lower"}
BITS = "1011-0110-0000-01"


def tiny(
    channels: tuple[int, int] = (8, 16), cross: int = 8, depth: int = 1, **settings: object
) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        block_out_channels=channels,
        layers_per_block=1,
        transformer_layers_per_block=depth,
        cross_attention_dim=cross,
        attention_head_dim=2,
        norm_num_groups=4,
        **settings,
    )


@pytest.fixture
def unet() -> UNet2DConditionModel:
    torch.manual_seed(0)
    return tiny()


def build(
    unet: UNet2DConditionModel, bits: object = BITS, space: str | SearchSpace = "stage-kinds", **given: object
) -> Mask:
    found = load_space(space) if isinstance(space, str) else space
    settings = {
        "model": ModelIdentity.of(unet, "tiny"),
        "unet_numel": sum(parameter.numel() for parameter in unet.parameters()),
        "learning_rate": 0.00178,
    }
    return Mask.build(found, parameter_groups(found, unet), bits, **(settings | given))


def changed(mask: Mask, **keys: object) -> str:
    return json.dumps(json.loads(mask.to_json()) | keys)


def test_json_has_the_designs_keys_in_order(unet: UNet2DConditionModel) -> None:
    mask = build(unet, name="brain-stage-kinds-017", scores={"fd@efficientnet-lite0": SCORE}, provenance={"trial": 17})
    content = json.loads(mask.to_json())
    assert list(content) == [
        *(
            "schema",
            "name",
            "model",
            "space",
            "groups",
            "learning_rate",
            "trainable",
            "scores",
            "confirmed",
            "provenance",
        ),
    ]
    assert content["schema"] == "memcontrol/mask@1"
    assert list(content["model"]) == ["id", "class", "architecture", "weights"]
    assert content["model"]["class"] == "UNet2DConditionModel"
    assert list(content["space"]) == ["name", "sha256", "content"]
    assert SearchSpace.model_validate(content["space"]["content"]) == load_space("stage-kinds")
    assert list(content["groups"][0]) == ["name", "method", "on", "parameters", "numel"]
    assert content["trainable"].keys() == {"numel", "percent"}
    assert content["scores"] == {"fd@efficientnet-lite0": SCORE}
    assert content["confirmed"] is None


def test_the_designs_example_is_read() -> None:
    example = {
        "schema": "memcontrol/mask@1",
        "name": "brain-stage-kinds-017",
        "model": {"id": "tiny", "class": "UNet2DConditionModel", "architecture": "sha256:a", "weights": "sha256:b"},
        "space": {"name": "stage-kinds", "sha256": "c", "content": {}},
        "groups": [
            {"name": "down.0.attention", "method": "full", "on": True, "parameters": ["down_blocks.0.a"], "numel": 9216}
        ],
        "learning_rate": 0.00178,
        "trainable": {"numel": 9216, "percent": 15.4},
        "scores": {"fd@efficientnet-lite0": SCORE},
        "confirmed": {"seeds": [101, 102, 103], "scores": {"fd@efficientnet-lite0": SCORE}},
        "provenance": {
            "data": {"name": "brain", "n": 32, "sha256": "d"},
            "run": "r",
            "trial": 17,
            "seed": 0,
            "steps": 300,
        },
    }
    mask = Mask.from_json(json.dumps(example))
    assert mask.confirmed is not None
    assert mask.confirmed.seeds == (101, 102, 103)
    assert json.loads(mask.to_json()) == example


def test_files_round_trip_by_file_and_by_folder(unet: UNet2DConditionModel, tmp_path: Path) -> None:
    mask = build(unet, scores={"fd@pixels": SCORE | {"low": None, "high": None, "p": 0.01}})
    file = mask.save(tmp_path / "new" / "mask-017.json")
    assert Mask.from_pretrained(file) == mask
    assert mask.save(tmp_path) == tmp_path / "mask.json"
    assert Mask.from_pretrained(str(tmp_path)) == mask
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mask.json", "new"]


def test_a_failed_save_keeps_the_old_file(
    unet: UNet2DConditionModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = build(unet)
    file = old.save(tmp_path / "mask.json")

    def fail(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(MaskError, match="No space left on device"):
        build(unet, "0" * 13 + "1").save(file)
    assert Mask.from_pretrained(file) == old
    assert list(tmp_path.iterdir()) == [file]


def test_unwritable_and_missing_places(unet: UNet2DConditionModel, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MaskError, match="cannot write mask"):
        build(unet).save(tmp_path / "file" / "mask.json")
    with pytest.raises(MaskError, match=r"no mask file .*nowhere"):
        Mask.from_pretrained(tmp_path / "nowhere.json")


@pytest.mark.parametrize(
    "bits", [BITS, [int(bit) for bit in BITS.replace("-", "")], np.array([*map(int, "10110110000001")])]
)
def test_bits_and_key(unet: UNet2DConditionModel, bits: object) -> None:
    mask = build(unet, bits)
    assert mask.key == BITS
    assert mask.bits == tuple(bit == "1" for bit in BITS.replace("-", ""))
    assert mask.name == f"stage-kinds-{BITS}"
    assert Mask.from_json(mask.to_json()).key == BITS


def test_long_keys_are_hexadecimal() -> None:
    assert mask_key([1] * 64) == "-".join(["1111"] * 16)
    assert mask_key([0] * 62 + [1, 0, 1]) == "0000-0000-0000-0000-5"
    assert mask_key([True] + [False] * 64) == "1000-0000-0000-0000-0"


@pytest.mark.parametrize(
    ("bits", "message"), [("101", "3 bits for 14 groups"), ([1] * 15, "15 bits for 14"), ("2" * 14, "expected 0 and 1")]
)
def test_wrong_bits_are_refused(unet: UNet2DConditionModel, bits: object, message: str) -> None:
    with pytest.raises(MaskError, match=message):
        build(unet, bits)


def test_sizes_and_rows(unet: UNet2DConditionModel) -> None:
    mask = build(unet)
    total = sum(parameter.numel() for parameter in unet.parameters())
    counted = sum(unet.get_parameter(name).numel() for name in mask.trainable_names())
    assert mask.trainable.numel == counted
    assert mask.trainable.percent == pytest.approx(100 * counted / total)
    assert mask.trainable_names("full") == mask.trainable_names()
    assert mask.trainable_names("svdiff") == ()


def test_a_mask_of_zeros_trains_nothing_at_no_rate(unet: UNet2DConditionModel) -> None:
    mask = build(unet, "0" * 14)
    assert mask.learning_rate is None
    assert (mask.trainable.numel, mask.trainable.percent) == (0, 0.0)
    assert mask.apply(unet) == []
    assert not any(parameter.requires_grad for parameter in unet.parameters())
    assert Mask.from_json(mask.to_json()) == mask


def test_an_always_group_is_on_whatever_the_bits(unet: UNet2DConditionModel) -> None:
    content = load_space("stages").content() | {"name": "mine"}
    content["parts"] = [
        {"select": ["*.attentions.*"], "exclude": ["*norm*"], "group_by": "stage"},
        {"select": ["*norm*"], "name": "norms", "always": True},
    ]
    mask = build(unet, "000000", SearchSpace.model_validate(content))
    assert [group.name for group in mask.groups if group.on] == ["norms"]
    assert mask.learning_rate == 0.00178


def test_apply_trains_the_masked_parameters_and_freezes_all_else(unet: UNet2DConditionModel) -> None:
    mask = build(unet)
    chosen = set(mask.trainable_names())
    unet.requires_grad_(False)
    unet.conv_in.requires_grad_(True)
    before = {name: parameter.detach().clone() for name, parameter in unet.named_parameters()}
    parameters = mask.apply(unet)
    expected = [parameter for name, parameter in unet.named_parameters() if name in chosen]
    assert [id(parameter) for parameter in parameters] == [id(parameter) for parameter in expected]
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    unet(torch.randn(2, 4, 8, 8), torch.tensor([3, 500]), torch.randn(2, 4, 8)).sample.square().mean().backward()
    optimizer.step()
    moved = {name for name, parameter in unet.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved <= chosen
    assert {group.name for group in mask.groups if moved & set(group.parameters)} == {
        group.name for group in mask.groups if group.on
    }
    assert all(parameter.grad is None for name, parameter in unet.named_parameters() if name not in chosen)


def test_apply_refuses_groups_whose_methods_train_something_else(unet: UNet2DConditionModel) -> None:
    mask = build(unet)
    other = replace(mask, groups=tuple(replace(group, method="svdiff") for group in mask.groups))
    with pytest.raises(MaskError, match=r"group down\.0\.attention: svdiff "):
        other.apply(unet)
    assert all(parameter.requires_grad for parameter in unet.parameters())


def test_a_mask_of_ones_own_choice_is_what_build_gives(unet: UNet2DConditionModel) -> None:
    assert Mask.of(unet, load_space("stage-kinds"), BITS, model="tiny", learning_rate=0.00178) == build(unet)


def test_check_accepts_tuned_weights_and_lists_differences(unet: UNet2DConditionModel) -> None:
    mask = build(unet)
    unet.conv_in.weight.data.zero_()
    assert weights_fingerprint(unet) != mask.model.weights
    mask.check(unet)
    with pytest.raises(
        MaskError, match=r"UNet2DConditionModel tiny.*other shapes in down\.0\.attention \(\S+ numbers, not"
    ):
        mask.check(tiny(cross=12))
    deeper = tiny(depth=2)
    with pytest.raises(
        MaskError, match=r"it adds down_blocks\.0\.attentions\.0\.transformer_blocks\.1\..* and \d+ more"
    ):
        mask.apply(deeper)
    assert all(parameter.requires_grad for parameter in deeper.parameters())
    with pytest.raises(MaskError, match=r"it lacks down_blocks\.0\.attentions\.0\.transformer_blocks\.1\."):
        build(deeper, "1" * 14).check(unet)
    with pytest.raises(MaskError, match="parameters outside the mask's groups"):
        build(unet, "1" * 7, "attention-blocks").check(tiny(in_channels=5))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"schema": "memcontrol/mask@2"}, r"schema: .*memcontrol/mask@1.*\(got 'memcontrol/mask@2'\)"),
        ({"colour": 1}, "colour: unknown key"),
        (
            {"model": {"id": "tiny", "class": "C", "architecture": "a", "weights": "w", "size": 3}},
            "model.size: unknown",
        ),
        ({"model": {"id": "tiny"}}, r"model\.class: Field required"),
        ({"groups": []}, "groups"),
        ({"learning_rate": -1}, "learning_rate.*greater than 0"),
        ({"learning_rate": None}, "learning_rate is None: expected a number above 0"),
        ({"trainable": {"numel": 3, "percent": 0.1}}, "trainable.numel is 3 but the groups that are on hold"),
        ({"scores": {"fd@pixels": SCORE | {"better": "smaller"}}}, r"scores\.fd@pixels\.better"),
        ({"scores": {"fd@pixels": 3.0}}, r"scores\.fd@pixels"),
        ({"scores": {"fd@pixels": {"value": 1.0}}}, r"scores\.fd@pixels\.low: Field required"),
    ],
)
def test_malformed_masks_are_refused_on_one_line(
    unet: UNet2DConditionModel, keys: dict[str, object], message: str
) -> None:
    with pytest.raises(MaskError, match=message) as caught:
        Mask.from_json(changed(build(unet), **keys), source="front/017.json")
    assert str(caught.value).startswith("front/017.json: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", b"\xff\xfe"])
def test_what_is_not_json_is_refused(text: str | bytes) -> None:
    with pytest.raises(MaskError, match=r"^mask: "):
        Mask.from_json(text)


def test_groups_that_contradict_each_other_are_refused(unet: UNet2DConditionModel) -> None:
    mask = build(unet)
    groups = json.loads(mask.to_json())["groups"]
    with pytest.raises(MaskError, match=r"two groups are named down\.0\.attention"):
        Mask.from_json(changed(mask, groups=[*groups, groups[0]]))
    shared = groups[1] | {"name": "again", "on": False}
    with pytest.raises(MaskError, match=r"is in two groups, down\.0\.resnets and again"):
        Mask.from_json(changed(mask, groups=[*groups, shared]))


@pytest.mark.parametrize(
    "score", [SCORE | {"value": float("nan")}, SCORE | {"n": np.int64(3)}, SCORE | {"better": "more"}, {"value": 1.0}]
)
def test_a_score_that_could_not_be_read_back_is_not_written(
    unet: UNet2DConditionModel, tmp_path: Path, score: dict[str, object]
) -> None:
    with pytest.raises(MaskError):
        replace(build(unet), scores={"fd@pixels": score}).save(tmp_path / "mask.json")
    assert list(tmp_path.iterdir()) == []


def test_provenance_that_json_cannot_hold_is_not_written(unet: UNet2DConditionModel) -> None:
    with pytest.raises(MaskError, match="JSON cannot hold"):
        build(unet, provenance={"loss": float("nan")}).to_json()


def test_masks_are_frozen(unet: UNet2DConditionModel) -> None:
    with pytest.raises(FrozenInstanceError):
        build(unet).name = "other"  # type: ignore[misc]


def edited(mask: Mask, **keys: object) -> Mask:
    """The mask as read from a file in which the first group that is on was edited by hand."""
    content = json.loads(mask.to_json())
    next(group for group in content["groups"] if group["on"]).update(keys)
    return Mask.from_json(json.dumps(content))


def test_a_mask_of_an_unknown_method_is_refused_with_the_nearest_names(unet: UNet2DConditionModel) -> None:
    with pytest.raises(MaskError, match=r"unknown method svdif\b.*svdiff"):
        edited(build(unet), method="svdif")


@pytest.mark.parametrize(
    "settings",
    [{}, {"rank": 4}, {"rank": 0, "alpha": 4.0}, {"rank": 4.5, "alpha": 4.0}, {"rank": 4, "alpha": 4.0, "r": 1}],
)
def test_lora_without_its_rank_and_alpha_is_refused(unet: UNet2DConditionModel, settings: dict[str, float]) -> None:
    space = load_space("lora-blocks")
    mask = build(unet, "1" * len(parameter_groups(space, unet)), space)
    with pytest.raises(MaskError, match="expected alpha and rank, both above 0"):
        edited(mask, settings=settings)


def test_a_mask_whose_method_trains_other_numbers_is_refused(unet: UNet2DConditionModel) -> None:
    space = load_space("paper-difffit-clean")
    mask = build(unet, "1" * len(parameter_groups(space, unet)), space)
    mask.check(unet)
    with pytest.raises(MaskError, match="another method or other settings"):
        edited(mask, method="svdiff").check(unet)


def test_a_mask_whose_method_does_not_fit_its_layers_is_refused(unet: UNet2DConditionModel) -> None:
    with pytest.raises(MaskError, match="svdiff shifts weights of"):
        edited(build(unet), method="svdiff").check(unet)


def test_a_layer_of_another_kind_is_named_among_the_differences(unet: UNet2DConditionModel) -> None:
    part = {"method": "difffit", "select": ["down_blocks.0.*.proj_in.weight"], "name": "projection"}
    content = {"schema": "memcontrol/search-space@1", "name": "own", "learning_rate": 1e-3, "parts": [part]}
    linear = tiny(use_linear_projection=True)
    mask = build(linear, "1", SearchSpace.model_validate(content))
    with pytest.raises(MaskError, match=r"other shapes in projection \(difffit does not fit\)"):
        mask.check(unet)
