"""Tuned tensors give the tuned U-Net back on the base model, and on no other; a broken file is one line."""

import contextlib
import errno
import json
import os
import resource
import signal

import pytest
import torch
from mixed_masks import disturb, mask_of, predicted
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from memcontrol.errors import MaskError, ModelError, RunError
from memcontrol.mask import Mask
from memcontrol.pipeline import load_unet
from memcontrol.tuned_tensors import load_tuned, public_mask, public_name, read_tuned, save_tuned, tensors_sha256

METHODS = ("full", "svdiff", "difffit", "lora")
CHOICES = [*((method,) for method in METHODS), METHODS]


@pytest.fixture
def unet():
    return load_unet("tiny")


def saved(unet, mask, folder):
    """Tune and save; gives what the tuned U-Net computes, and leaves the U-Net as it was."""
    folder.mkdir(exist_ok=True)
    with mask.tuned(unet) as tuning:
        disturb(tuning.parameters.values())
        path = save_tuned(folder, mask=mask, tuning=tuning, unet=unet, base=mask.model)
        assert path == folder / "tuned.safetensors"
        with tuning.folded():
            return predicted(unet)


@pytest.mark.parametrize("methods", CHOICES, ids=lambda methods: methods[0] if len(methods) == 1 else "all")
def test_each_method_comes_back_by_stock_code_and_by_load_tuned(unet, tmp_path, methods):
    mask = mask_of(unet, *methods)
    base = {name: tensor.clone() for name, tensor in unet.state_dict().items()}
    expected = saved(unet, mask, tmp_path)
    assert all(torch.equal(tensor, base[name]) for name, tensor in unet.state_dict().items())
    assert (predicted(unet) - expected).abs().max() > 0.01
    unexpected = unet.load_state_dict(load_file(tmp_path / "tuned.safetensors"), strict=False).unexpected_keys
    assert unexpected == []
    assert torch.equal(predicted(unet), expected)

    for file in tmp_path.glob("*.safetensors"):
        fresh = load_unet("tiny")
        trainable = [parameter.requires_grad for parameter in fresh.parameters()]
        assert load_tuned(fresh, file) == mask
        torch.testing.assert_close(predicted(fresh), expected, rtol=0, atol=1e-6)
        assert fresh.state_dict().keys() == base.keys()
        assert [parameter.requires_grad for parameter in fresh.parameters()] == trainable
    assert (tmp_path / "tuned-compact.safetensors").exists() == (methods != ("full",))


def test_the_compact_file_holds_the_methods_numbers_alone(unet, tmp_path):
    mask = mask_of(unet, *METHODS)
    saved(unet, mask, tmp_path)
    compact, plain = (load_file(tmp_path / name) for name in ("tuned-compact.safetensors", "tuned.safetensors"))
    assert sum(tensor.numel() for tensor in compact.values()) == mask.trainable.numel
    assert sum(tensor.numel() for tensor in plain.values()) > 5 * mask.trainable.numel
    # The bias of a layer that DiffFit scales is tuned as well.
    assert any(name.endswith("to_out.0.bias") for name in plain)


def test_the_metadata_say_which_mask_and_base_they_belong_to(unet, tmp_path):
    mask = mask_of(unet, "full")
    saved(unet, mask, tmp_path)
    with safe_open(tmp_path / "tuned.safetensors", "pt") as file:
        facts = file.metadata()
        untouched = {name: tensor for name, tensor in unet.state_dict().items() if name not in set(file.keys())}
    assert (facts["schema"], facts["form"], facts["base_model"]) == ("memcontrol/tuned@1", "plain", "tiny")
    assert (facts["architecture"], facts["weights"]) == (mask.model.architecture, mask.model.weights)
    assert json.loads(facts["mask"])["name"] == mask.name
    assert facts["frozen_sha256"] == tensors_sha256(untouched)


@pytest.mark.parametrize("file", ["tuned.safetensors", "tuned-compact.safetensors"])
def test_another_base_is_refused_and_left_as_it_was(unet, tmp_path, file):
    saved(unet, mask_of(unet, "full", "svdiff"), tmp_path)
    unet.conv_out.weight.data[0, 0, 0, 0] += 1e-3
    before = predicted(unet)
    with pytest.raises(ModelError, match=r"was tuned on tiny, weights sha256:.*: load that model, not yet tuned$"):
        load_tuned(unet, tmp_path / file)
    assert torch.equal(predicted(unet), before)
    with pytest.raises(MaskError, match="made for UNet2DConditionModel tiny"):
        load_tuned(load_unet("tiny-sd"), tmp_path / file)


def test_a_half_precision_base_is_told_to_load_in_float32(unet, tmp_path):
    saved(unet, mask_of(unet, "full"), tmp_path)
    with pytest.raises(ModelError, match=r"it holds torch\.bfloat16: load it in float32, and convert it afterwards"):
        load_tuned(unet.to(torch.bfloat16), tmp_path)


def test_loading_twice_is_refused(unet, tmp_path):
    saved(unet, mask_of(unet, "full"), tmp_path)
    load_tuned(unet, tmp_path)
    with pytest.raises(ModelError, match="not yet tuned"):
        load_tuned(unet, tmp_path)


def truncated(path):
    path.write_bytes(path.read_bytes()[:-100])


def garbled(path):
    path.write_bytes(b"\xff" * 500)


def absent(path):
    path.unlink()


def foreign(path):
    save_file({"a": torch.zeros(1)}, path, metadata={"format": "pt"})


def later_schema(path):
    rewritten(path, {"schema": "memcontrol/tuned@9"})


def broken_mask(path):
    rewritten(path, {"mask": "{"})


def without_a_tensor(path):
    rewritten(path, {}, drop="conv_in.bias")


def with_another_shape(path):
    rewritten(path, {}, drop="conv_in.bias", extra={"conv_in.bias": torch.zeros(3)})


def with_a_stranger(path):
    rewritten(path, {}, extra={"conv_out.bias": torch.zeros(8)})


def rewritten(path, facts, *, drop=None, extra=None):
    with safe_open(path, "pt") as file:
        metadata = file.metadata() | facts
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items() if name != drop} | (extra or {})
    save_file(tensors, path, metadata=metadata)


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (truncated, ModelError, r"tuned\.safetensors is not a whole safetensors file \(.*\): copy it or save it again"),
        (garbled, ModelError, "is not a whole safetensors file"),
        (absent, ModelError, "no tuned tensors .*: give a .safetensors file or its folder"),
        (foreign, ModelError, r"holds no tuned tensors of schema memcontrol/tuned@1 \(it lacks schema, "),
        (later_schema, ModelError, "schema memcontrol/tuned@9, form plain"),
        (broken_mask, MaskError, r"tuned\.safetensors: .*JSON"),
        (without_a_tensor, ModelError, r"lacks conv_in\.bias \(1 tensors\)"),
        (with_another_shape, ModelError, r"conv_in\.bias has shape \(3,\), and \(\d+,\) was expected"),
        (with_a_stranger, ModelError, r"has besides conv_out\.bias"),
    ],
)
def test_a_broken_file_is_one_line_and_changes_nothing(unet, tmp_path, spoil, error, message):
    saved(unet, mask_of(unet, "full"), tmp_path)
    spoil(tmp_path / "tuned.safetensors")
    before = predicted(unet)
    with pytest.raises(error, match=message) as refused:
        load_tuned(unet, tmp_path)
    assert "\n" not in str(refused.value)
    assert torch.equal(predicted(unet), before)


@contextlib.contextmanager
def small_files(size):
    """Inside, no file of this process may grow above some bytes, as on a full disk."""
    usual, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, usual[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_leaves_the_old_files(unet, tmp_path):
    mask = mask_of(unet, "full", "svdiff")
    saved(unet, mask, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with (
        small_files(2000),
        pytest.raises(RunError, match=r"cannot write .*tuned-compact\.safetensors \(.*\): free") as full,
    ):
        saved(unet, mask, tmp_path)
    assert "\n" not in str(full.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_write_that_fails_is_one_line(unet, tmp_path, monkeypatch):
    def full(*args, **given):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(RunError, match=r"cannot write .*\(No space left on device\): free space there"):
        saved(unet, mask_of(unet, "full"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_mask_that_trains_nothing_has_nothing_to_save(unet, tmp_path):
    mask = mask_of(unet)
    with mask.tuned(unet) as tuning, pytest.raises(MaskError, match="trains nothing"):
        save_tuned(tmp_path, mask=mask, tuning=tuning, unet=unet, base=mask.model)


def test_a_released_file_names_no_folder_of_the_machine(unet, tmp_path):
    where = tmp_path / "people" / "secret"
    (where / "sd").mkdir(parents=True)
    mask = mask_of(
        unet,
        "full",
        model=str(where / "sd"),
        provenance={
            "data": {"name": "photos", "n": 3, "sha256": "sha256:0"},
            "settings": {"data": {"source": str(where / "photos")}, "tuning": {"steps": 7}, "mitigations": []},
        },
    )
    saved(unet, mask, tmp_path / "out")
    read = read_tuned(tmp_path / "out")
    assert b"secret" not in read.path.read_bytes()
    assert read.mask == public_mask(mask)
    assert read.mask.model.id == read.base_model == "sd"
    assert read.mask.provenance["settings"] == {"tuning": {"steps": 7}, "mitigations": []}
    assert isinstance(load_tuned(unet, tmp_path / "out"), Mask)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("tiny", "tiny"),
        ("stable-diffusion-v1-5/stable-diffusion-v1-5", "stable-diffusion-v1-5/stable-diffusion-v1-5"),
        ("/home/me/models/sd", "sd"),
        ("./sd", "sd"),
        ("models/old/sd/", "sd"),
    ],
)
def test_models_are_called_by_hub_id_or_last_name(model, name):
    assert public_name(model) == name
