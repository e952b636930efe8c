"""What LoRA tuned loads into stock diffusers and stock peft, and gives there what the folded U-Net gives."""

import json

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DModel
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file

from memcontrol.cache import Cache
from memcontrol.groups import ParameterGroup, parameter_groups
from memcontrol.mask import Mask
from memcontrol.methods import Resources, tuned
from memcontrol.pipeline import load_pipeline, model_folder
from memcontrol.releasing import finetune
from memcontrol.sampling import sample
from memcontrol.space import load_space

PEFT_FILES = {"adapter_config.json", "adapter_model.safetensors"}
DIFFUSERS_FILE = "pytorch_lora_weights.safetensors"


def group(name, rules, unet, **settings):
    names = [parameter for parameter, _ in unet.named_parameters() if parameter.endswith(rules)]
    assert names, rules
    return ParameterGroup(name, "lora", tuple(names), 0, settings=settings)


def disturb(parameters):
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in parameters.values():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


def predicted(unet, *inputs):
    with torch.no_grad():
        return unet(*inputs).sample


def stock():
    return StableDiffusionPipeline.from_pretrained(model_folder("tiny"))


@pytest.fixture(scope="module")
def inputs():
    generator = torch.Generator().manual_seed(4)
    latents, text = (torch.randn(size, generator=generator) for size in ((2, 8, 8, 8), (2, 5, 48)))
    return latents, torch.tensor([20, 700]), text


@pytest.fixture(scope="module")
def saved(tiny, inputs, tmp_path_factory):
    """A folder of adapters of four ranks and scales on linear layers and convolutions, and what the U-Net gives."""
    unet = tiny.unet
    groups = [
        group("queries", ("to_q.weight", "time_embedding.linear_1.weight"), unet, rank=1, alpha=1.0),
        group("outs", ("attn2.to_out.0.weight",), unet, rank=4, alpha=2.0),
        group("kernels", ("resnets.0.conv1.weight", "conv_in.weight"), unet, rank=3, alpha=4.5),
        group("points", ("proj_in.weight", "conv_shortcut.weight"), unet, rank=4, alpha=16.0),
    ]
    folder = tmp_path_factory.mktemp("saved")
    base = predicted(unet, *inputs)
    with tuned(unet, groups) as tuning:
        disturb(tuning.parameters)
        tuning.save(folder)
        with tuning.folded():
            folded = predicted(unet, *inputs)
    assert (folded - base).abs().max() > 0.1
    return folder / "lora", folded


def test_a_stock_pipeline_loads_the_adapter(saved, inputs):
    folder, folded = saved
    pipeline = stock()
    pipeline.load_lora_weights(folder)
    torch.testing.assert_close(predicted(pipeline.unet, *inputs), folded, rtol=0, atol=1e-5)
    pipeline.unload_lora_weights()
    assert (predicted(pipeline.unet, *inputs) - folded).abs().max() > 0.1


def test_a_stock_peft_model_loads_the_adapter(saved, inputs):
    folder, folded = saved
    model = PeftModel.from_pretrained(stock().unet, folder)
    torch.testing.assert_close(predicted(model, *inputs), folded, rtol=0, atol=1e-5)


def test_the_files_are_those_that_peft_itself_writes(saved, tmp_path):
    folder, _ = saved
    assert {path.name for path in folder.iterdir()} == {*PEFT_FILES, DIFFUSERS_FILE}
    PeftModel.from_pretrained(stock().unet, folder).save_pretrained(tmp_path)
    for name in PEFT_FILES:
        assert (folder / name).read_bytes() == (tmp_path / name).read_bytes()


def test_the_metadata_of_diffusers_file_holds_nothing_that_another_release_may_not_know(saved):
    from safetensors import safe_open

    with safe_open(saved[0] / DIFFUSERS_FILE, "pt") as file:
        metadata = json.loads(file.metadata()["lora_adapter_metadata"])
    keys = {"r", "lora_alpha", "rank_pattern", "alpha_pattern", "target_modules"}
    assert metadata.keys() == {f"unet.{key}" for key in keys}
    config = LoraConfig(**{key: metadata[f"unet.{key}"] for key in keys})
    assert {config.r, *config.rank_pattern.values()} == {1, 3, 4}
    assert {config.lora_alpha, *config.alpha_pattern.values()} == {1.0, 2.0, 4.5, 16.0}


def test_an_unconditional_unet_has_pefts_files_alone(tmp_path):
    def fresh():
        torch.manual_seed(0)
        return UNet2DModel(
            sample_size=8,
            block_out_channels=(8, 16),
            norm_num_groups=4,
            layers_per_block=1,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        ).eval()

    unet, inputs = fresh(), (torch.randn(1, 3, 8, 8), 5)
    groups = parameter_groups(load_space("lora-ranks"), unet)
    with tuned(unet, [groups[0].at(2), groups[1].at(1)]) as tuning:
        disturb(tuning.parameters)
        with tuning.folded():
            tuning.save(tmp_path)
            folded = predicted(unet, *inputs)
    assert {path.name for path in (tmp_path / "lora").iterdir()} == PEFT_FILES
    model = PeftModel.from_pretrained(fresh(), tmp_path / "lora")
    torch.testing.assert_close(predicted(model, *inputs), folded, rtol=0, atol=1e-5)
    assert (predicted(unet, *inputs) - folded).abs().max() > 1e-3


def test_other_methods_have_no_files_of_their_own(tiny, tmp_path):
    with tuned(tiny.unet, [ParameterGroup("ends", "full", ("conv_out.bias",), 0)]) as tuning:
        tuning.save(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def released(laboratory, tmp_path_factory):
    """Three attention blocks at three ranks, tuned as a trial tunes them, and that trial's images."""
    space, unet = load_space("lora-ranks"), laboratory.frozen.unet
    groups = parameter_groups(space, unet)
    levels = (1, 0, 3, 0, 0, 2, 0)
    mask = Mask.build(
        space,
        [group.at(level or 1) for group, level in zip(groups, levels, strict=True)],
        [level > 0 for level in levels],
        model=laboratory.model,
        unet_numel=sum(parameter.numel() for parameter in unet.parameters()),
        learning_rate=2e-2,
    )
    out = tmp_path_factory.mktemp("released") / "pipeline"
    finetune(mask, laboratory.config.data, out, tuning=laboratory.config.tuning)
    trained = tuple(group.at(level) for group, level in zip(groups, levels, strict=True) if level)
    return out, laboratory.evaluate(trained, 2e-2, 6, lambda *_: None)


def test_a_release_is_a_whole_pipeline_with_its_adapter_beside(released, laboratory, inputs):
    out, _ = released
    base, whole, adapted = stock(), StableDiffusionPipeline.from_pretrained(out), stock()
    adapted.load_lora_weights(out / "lora")
    expected = predicted(whole.unet, *inputs)
    torch.testing.assert_close(predicted(adapted.unet, *inputs), expected, rtol=0, atol=1e-5)
    assert (predicted(base.unet, *inputs) - expected).abs().max() > 1e-2
    before, after = base.unet.state_dict(), whole.unet.state_dict()
    different = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert before.keys() == after.keys()
    assert different == set(Mask.from_pretrained(out).trainable_names())
    ranks = {len(tensor) for name, tensor in load_file(out / "lora" / DIFFUSERS_FILE).items() if "lora_A" in name}
    assert ranks == {1, 4, 16}


def test_what_is_released_is_what_the_trial_scored(released, laboratory, tmp_path):
    out, trial = released
    loaded = load_pipeline(str(out), cache=Cache(tmp_path))
    images = np.concatenate(list(sample(loaded, laboratory.prompts, laboratory.config.sampling, seed=0)))
    np.testing.assert_array_equal(images, trial.images)


def test_another_seed_tunes_from_another_start(laboratory):
    groups = parameter_groups(load_space("lora-blocks"), laboratory.frozen.unet)[:1]
    starts = []
    for resources in (laboratory.resources, Resources(seed=laboratory.resources.seed), Resources(seed=7)):
        with tuned(laboratory.frozen.unet, groups, resources) as tuning:
            starts.append(next(iter(tuning.parameters.values())).detach().clone())
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])
