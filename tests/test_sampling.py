"""Sampling gives what the stock pipeline gives, image by image, whatever the batch size."""

import numpy as np
import pytest
import torch
from ddpm_models import ddpm
from diffusers import DDPMPipeline, DPMSolverMultistepScheduler, StableDiffusionPipeline

from memcontrol.cache import Cache
from memcontrol.config import SamplingConfig
from memcontrol.pipeline import load_pipeline, model_folder
from memcontrol.sampling import drawn_prompts, sample

PROMPTS = ["a handwritten seven", "photo of a face, subject 7", "", "axial brain MRI, upper level, straight", "a"]


def sampled(frozen, prompts=PROMPTS, seed=3, **changes):
    config = SamplingConfig(**{"steps": 5, "guidance": 2.5, "batch": 5, **changes})
    return np.concatenate(list(sample(frozen, prompts, config, seed=seed))).astype(int)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_images_are_those_of_the_stock_pipeline(tiny, guidance):
    stock = StableDiffusionPipeline.from_pretrained(model_folder("tiny"))
    stock.set_progress_bar_config(disable=True)
    stock.scheduler = DPMSolverMultistepScheduler.from_config(stock.scheduler.config, algorithm_type="dpmsolver++")
    noise = torch.randn(len(PROMPTS), *tiny.latent_shape, generator=torch.Generator().manual_seed(3))
    expected = stock(PROMPTS, latents=noise, guidance_scale=guidance, num_inference_steps=6, output_type="np").images
    assert np.abs(sampled(tiny, steps=6, guidance=guidance) - 255 * expected).max() <= 1


CLIPPED = {"thresholding": True, "sample_max_value": 1.0}


@pytest.mark.parametrize(
    ("scheduler", "solver"),
    [
        ({}, CLIPPED),
        ({"clip_sample": False}, {}),
        ({"prediction_type": "v_prediction", "beta_schedule": "squaredcos_cap_v2"}, CLIPPED),
        ({"variance_type": "fixed_large", "timestep_spacing": "trailing"}, CLIPPED),
    ],
)
def test_unconditional_images_are_those_of_the_stock_pipeline(scheduler, solver, tmp_path):
    ddpm(scheduler=scheduler).save_pretrained(tmp_path / "model")
    frozen = load_pipeline(str(tmp_path / "model"), cache=Cache(tmp_path))
    stock = DDPMPipeline.from_pretrained(tmp_path / "model")
    stock.set_progress_bar_config(disable=True)
    changes = {"algorithm_type": "dpmsolver++", **solver}
    stock.scheduler = DPMSolverMultistepScheduler.from_config(stock.scheduler.config, **changes)
    generator = torch.Generator().manual_seed(3)
    expected = stock(len(PROMPTS), generator=generator, num_inference_steps=6, output_type="np").images
    assert np.abs(sampled(frozen, steps=6) - 255 * expected).max() <= 1


def test_captions_and_guidance_do_not_change_unconditional_images(ddpm_folders, tmp_path):
    frozen = load_pipeline(str(ddpm_folders[1]), cache=Cache(tmp_path))
    images = sampled(frozen, guidance=1.0)
    np.testing.assert_array_equal(sampled(frozen, [""] * len(PROMPTS), guidance=4.0), images)
    assert images.shape == (5, 16, 16, 3)
    np.testing.assert_array_equal(images[..., 0], images[..., 2])
    assert np.abs(sampled(frozen, seed=4) - images).max() > 8


def test_an_image_does_not_depend_on_the_batch_size(tiny):
    whole = sampled(tiny)
    for batch in (1, 2, 64):
        assert np.abs(sampled(tiny, batch=batch) - whole).max() <= 1


def test_batches_come_as_asked_and_as_bytes(tiny):
    config = SamplingConfig(steps=2, batch=2)
    batches = list(sample(tiny, PROMPTS, config, seed=0))
    assert [batch.shape for batch in batches] == [(n, 64, 64, 3) for n in (2, 2, 1)]
    assert {batch.dtype for batch in batches} == {np.dtype(np.uint8)}


def test_sampling_is_seeded_and_ignores_the_global_generator(tiny):
    first = sampled(tiny, seed=1)
    torch.manual_seed(99)
    before = torch.get_rng_state()
    np.testing.assert_array_equal(sampled(tiny, seed=1), first)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.abs(sampled(tiny, seed=2) - first).max() > 8


def test_prompts_matter(tiny):
    assert np.abs(sampled(tiny, guidance=8.0) - sampled(tiny, PROMPTS[::-1], guidance=8.0)).max() > 1


def test_sampling_leaves_no_gradients(tiny):
    assert all(parameter.grad is None for parameter in tiny.unet.parameters())
    assert not tiny.unet.training


def test_drawn_prompts_are_training_captions_drawn_by_the_seed():
    captions = [f"caption {i}" for i in range(20)]
    drawn = drawn_prompts(captions, 2000, 0)
    assert len(drawn) == 2000
    counts = np.array([drawn.count(caption) for caption in captions])
    assert counts.min() > 50, "each of 20 captions is expected 100 times"
    assert drawn_prompts(captions, 50, 0) == drawn_prompts(captions, 50, 0)
    assert drawn_prompts(captions, 50, 0) != drawn_prompts(captions, 50, 1)
