"""Pipelines without weights: what is missing or broken is named, and nothing is fetched."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from memcontrol.errors import ModelError
from memcontrol.pipeline import load_unet, model_folder
from memcontrol.pipeline.outline import file_problems, load_outline, local_folder, weight_mismatch


@pytest.fixture
def copied(tmp_path):
    return shutil.copytree(model_folder("tiny"), tmp_path / "model")


def test_an_outline_has_the_sizes_of_the_loaded_pipeline(tiny):
    outline = load_outline("tiny")
    assert outline.resolution == tiny.resolution
    assert outline.latent_shape == tiny.latent_shape
    assert outline.text_length == tiny.tokenizer.model_max_length
    assert outline.text_width == tiny.text_encoder.config.hidden_size
    for name, module in outline.modules.items():
        loaded = getattr(tiny.pipeline, name)
        assert sum(p.numel() for p in module.parameters()) == sum(p.numel() for p in loaded.parameters())
        assert all(parameter.is_meta for parameter in module.parameters())


@pytest.mark.parametrize("model", ["tiny", "tiny-sd"])
def test_shipped_pipelines_are_whole(model):
    outline = load_outline(model)
    assert file_problems(outline.folder, model) == []
    assert weight_mismatch(outline, model) is None


@pytest.mark.parametrize("channels", [1, 3])
def test_unconditional_pipelines_are_whole(channels, ddpm_folders):
    outline = load_outline(str(ddpm_folders[channels]))
    assert outline.latent_shape[0] == channels
    assert file_problems(outline.folder, "ddpm") == []
    assert weight_mismatch(outline, "ddpm") is None


def test_a_hub_id_that_was_not_downloaded_is_refused():
    with pytest.raises(
        ModelError, match=r"owner/name is no folder here and has not been downloaded .*: give the folder"
    ):
        local_folder("owner/name")


def test_missing_weights_are_named(copied):
    (copied / "unet" / "diffusion_pytorch_model.safetensors").rename(
        copied / "unet" / "diffusion_pytorch_model.fp16.safetensors"
    )
    (copied / "scheduler" / "scheduler_config.json").unlink()
    lines = file_problems(copied, "mine")
    assert len(lines) == 2
    assert any("no weights of unet" in line and "diffusion_pytorch_model.fp16.safetensors" in line for line in lines)
    assert any("no scheduler/scheduler_config.json" in line for line in lines)


def test_truncated_weights_are_named(copied):
    file = copied / "vae" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    (line,) = file_problems(copied, "mine")
    assert line.startswith(f"mine: {file} is not whole (")
    assert "\n" not in line


def test_a_missing_shard_is_named(copied):
    file = copied / "unet" / "diffusion_pytorch_model.safetensors"
    shard = "diffusion_pytorch_model-00001-of-00001.safetensors"
    (copied / "unet" / f"{file.name}.index.json").write_text(json.dumps({"weight_map": {"conv_in.weight": shard}}))
    file.rename(copied / "unet" / shard)
    assert file_problems(copied, "mine") == []
    assert weight_mismatch(load_outline(str(copied)), "mine") is None
    (copied / "unet" / shard).unlink()
    (line,) = file_problems(copied, "mine")
    assert f"names {shard}, which is not there" in line


@pytest.mark.parametrize("content", ["{", "{}", '{"weight_map": []}', '{"weight_map": {"conv_in.weight": 3}}'])
def test_a_broken_index_of_shards_is_named(copied, content):
    file = copied / "unet" / "diffusion_pytorch_model.safetensors"
    file.rename(copied / "unet" / "diffusion_pytorch_model-00001-of-00001.safetensors")
    (copied / "unet" / f"{file.name}.index.json").write_text(content)
    (line,) = file_problems(copied, "mine")
    assert line.startswith(f"mine: {file}.index.json is not whole (")


def test_older_names_of_attention_fit_as_they_do_when_loaded(ddpm_folders, tmp_path):
    folder = shutil.copytree(ddpm_folders[3], tmp_path / "older")
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    older = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    renamed = {}
    for name, tensor in load_file(file).items():
        place, _, leaf = name.rpartition(".")
        found = next((new for new in older if place.endswith(new)), None)
        renamed[f"{place.removesuffix(found)}{older[found]}.{leaf}" if found else name] = tensor
    assert renamed.keys() != load_file(file).keys()
    save_file(renamed, file, metadata={"format": "pt"})
    assert weight_mismatch(load_outline(str(folder)), "mine") is None
    expected = load_unet(str(ddpm_folders[3])).state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in load_unet(str(folder)).state_dict().items())


def test_weights_of_another_size_are_named(copied):
    path = copied / "unet" / "config.json"
    content = json.loads(path.read_text())
    content["block_out_channels"] = [2 * width for width in content["block_out_channels"]]
    path.write_text(json.dumps(content))
    line = weight_mismatch(load_outline(str(copied)), "mine")
    assert "tensors of unet are missing or of another size (" in line


def test_a_pipeline_that_cannot_be_tuned_is_refused_as_when_it_is_loaded(copied):
    path = copied / "vae" / "config.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"latent_channels": 5}))
    with pytest.raises(ModelError, match="its U-Net takes 8 channels and its autoencoder gives 5"):
        load_outline(str(copied))


def test_a_part_that_the_index_says_nothing_of_is_passed_over(copied):
    index = json.loads((copied / "model_index.json").read_text()) | {"vae": []}
    (copied / "model_index.json").write_text(json.dumps(index))
    assert file_problems(copied, "mine") == []
