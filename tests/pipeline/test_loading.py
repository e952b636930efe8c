"""Pipelines are told apart by their class; what could not be tuned rightly is refused in one line."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ddpm_models import ddpm
from diffusers import DDIMPipeline, DDPMPipeline, DDPMScheduler, UNet2DConditionModel, UNet2DModel

from memcontrol.cache import Cache
from memcontrol.errors import ModelError
from memcontrol.pipeline import LatentPipeline, UnconditionalPipeline, load_pipeline, load_unet, model_folder
from memcontrol.pipeline.loading import check_latent, pipeline_class


def loaded(folder, tmp_path):
    return load_pipeline(str(folder), cache=Cache(tmp_path / "cache"))


def test_a_saved_folder_loads_like_the_shipped_name(tiny, tmp_path):
    from_path = load_pipeline(model_folder("tiny"), cache=Cache(tmp_path))
    for name, tensor in tiny.unet.state_dict().items():
        assert torch.equal(from_path.unet.state_dict()[name], tensor)
    assert isinstance(from_path, LatentPipeline)
    assert isinstance(load_unet("tiny"), UNet2DConditionModel)


@pytest.mark.parametrize("kind", [DDPMPipeline, DDIMPipeline])
def test_a_folder_of_unet_and_scheduler_alone_is_unconditional(kind, tmp_path):
    made = ddpm()
    kind(made.unet, made.scheduler).save_pretrained(tmp_path / "model")
    frozen = loaded(tmp_path / "model", tmp_path)
    assert isinstance(frozen, UnconditionalPipeline)
    assert type(frozen.pipeline) is kind, "it is saved again as what it was"
    assert isinstance(frozen.unet, UNet2DModel)
    for unet in (frozen.unet, load_unet(str(tmp_path / "model"))):
        assert unet.dtype == torch.float32
        for name, tensor in made.unet.state_dict().items():
            assert torch.equal(unet.state_dict()[name], tensor)


def test_weights_beside_the_index_are_found(tmp_path):
    """Unconditional pipelines from before there were folders for their parts."""
    made = ddpm()
    made.save_pretrained(tmp_path / "model")
    for path in [*tmp_path.glob("model/unet/*"), *tmp_path.glob("model/scheduler/*")]:
        path.rename(tmp_path / "model" / path.name)
    for part in ("unet", "scheduler"):
        (tmp_path / "model" / part).rmdir()
    for unet in (loaded(tmp_path / "model", tmp_path).unet, load_unet(str(tmp_path / "model"))):
        assert torch.equal(unet.conv_in.weight, made.unet.conv_in.weight)


@pytest.mark.parametrize(
    ("index", "name"),
    [
        ({"_class_name": "FluxPipeline"}, "FluxPipeline"),
        ({"_class_name": ["pipeline_mine", "MyPipeline"]}, "MyPipeline"),
        ({}, "None"),
    ],
)
def test_other_classes_are_named_with_what_is_expected(index, name, tmp_path):
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    for load in (load_unet, lambda model: loaded(model, tmp_path)):
        with pytest.raises(ModelError, match=f"is a {name}: expected a Stable Diffusion style pipeline, or an uncond"):
            load(str(tmp_path))


def test_a_hub_id_that_cannot_be_read_is_refused_in_one_line(tmp_path):
    for load in (load_unet, lambda model: loaded(model, tmp_path)):
        with pytest.raises(ModelError, match="cannot load nobody/nothing as a pipeline: ") as caught:
            load("nobody/nothing")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("unet", "scheduler", "message"),
    [
        ({"num_class_embeds": 10}, {}, "takes class labels: expected one that takes images and time alone"),
        ({"class_embed_type": "timestep"}, {}, "takes class labels"),
        ({"out_channels": 6}, {}, "takes 3 channels and gives 6, variance fixed_small: expected as many out as in"),
        ({}, {"variance_type": "learned_range"}, "variance learned_range: .* a variance that is not learned"),
        ({"in_channels": 4, "out_channels": 4}, {}, "takes 4 channels: expected 3, or 1"),
        ({"sample_size": (16, 32)}, {}, r"sample_size is .16, 32.: expected one number"),
        ({"sample_size": None}, {}, "sample_size is None"),
        ({"time_embedding_type": "fourier"}, {}, "divides by the timestep"),
        ({}, {"prediction_type": "sample"}, "prediction type sample, expected epsilon or v_prediction"),
        ({}, {"beta_schedule": "sigmoid"}, r"DPM-Solver\+\+ cannot sample its schedule sigmoid"),
    ],
)
def test_an_unconditional_pipeline_that_would_train_wrongly_is_refused(unet, scheduler, message, tmp_path):
    ddpm(scheduler=scheduler, **unet).save_pretrained(tmp_path / "model")
    with pytest.raises(ModelError, match=message):
        loaded(tmp_path / "model", tmp_path)


def test_an_unconditional_pipeline_with_another_network_is_refused(tmp_path):
    shutil.copytree(Path(model_folder("tiny")) / "unet", tmp_path / "model" / "unet")
    DDPMScheduler().save_pretrained(tmp_path / "model" / "scheduler")
    index = {"_class_name": "DDPMPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}
    index["scheduler"] = ["diffusers", "DDPMScheduler"]
    (tmp_path / "model" / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="with a UNet2DConditionModel, not a UNet2DModel"):
        loaded(tmp_path / "model", tmp_path)


def test_unknown_models_are_refused_with_the_nearest_names(tmp_path):
    with pytest.raises(ModelError, match="unknown model 'tinny': did you mean tiny"):
        load_unet("tinny")
    with pytest.raises(ModelError, match=r"has no model_index\.json"):
        load_pipeline(str(tmp_path), cache=Cache(tmp_path))


def test_a_broken_folder_is_refused_in_one_line(tmp_path):
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline", "unet": ["x", "Y"]}')
    with pytest.raises(ModelError, match="cannot load") as caught:
        load_pipeline(str(tmp_path), cache=Cache(tmp_path))
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match="cannot load"):
        load_unet(str(tmp_path))


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("scheduler", {"prediction_type": "sample"}, "prediction type sample"),
        ("vae", {"latent_channels": 4}, "8 channels and its autoencoder gives 4"),
        ("vae", {"in_channels": 1}, "its autoencoder takes images of 1 channels and gives 3: expected 3 and 3"),
        ("unet", {"addition_embed_type": "text_time"}, "SDXL"),
    ],
)
def test_a_pipeline_that_would_train_wrongly_is_refused(part, change, message):
    files = {"unet": "config.json", "vae": "config.json", "scheduler": "scheduler_config.json"}
    folder = Path(model_folder("tiny"))
    configs = {name: json.loads((folder / name / file).read_text()) for name, file in files.items()}
    configs[part] |= change
    loaded = SimpleNamespace(**{name: SimpleNamespace(config=config) for name, config in configs.items()})
    with pytest.raises(ModelError, match=message):
        check_latent(loaded, "other")


@pytest.mark.parametrize("index", ["[", "1", "[]", "{}", '{"_class_name": []}', "[" * 100_000])
def test_an_index_that_names_no_pipeline_is_refused_in_one_line(index, tmp_path):
    (tmp_path / "model_index.json").write_text(index)
    with pytest.raises(ModelError, match=r"cannot load mine as a pipeline: |mine is a (None|\[\]): expected") as caught:
        pipeline_class(str(tmp_path), "mine")
    assert "\n" not in str(caught.value)
