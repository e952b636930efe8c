"""Latents of an unconditional pipeline are the pixels, exactly; a U-Net of one channel sees luminance."""

import numpy as np
import pytest
import torch
from ddpm_models import ddpm
from PIL import Image

from memcontrol.cache import Cache
from memcontrol.data.images import images_from_array
from memcontrol.pipeline import UnconditionalPipeline, load_pipeline

EVERY_BYTE = np.repeat(np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1), 3, axis=-1)


@pytest.fixture(scope="module")
def coloured(ddpm_folders, cache_folder):
    return load_pipeline(str(ddpm_folders[3]), cache=Cache(cache_folder))


@pytest.fixture(scope="module")
def gray(ddpm_folders, cache_folder):
    return load_pipeline(str(ddpm_folders[1]), cache=Cache(cache_folder))


def random_images(seed, count=5):
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)
    return images_from_array(pixels, ["a photo"] * count, keys=[str(i) for i in range(count)])


def luminance(pixels):
    """As Pillow has it."""
    return np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in pixels])


def test_latents_are_the_pixels_from_minus_one_to_one(coloured):
    images = random_images(0)
    moments = coloured.latent_moments(images)
    assert moments.mean.shape == moments.std.shape == (5, 3, 16, 16)
    assert moments.mean.dtype == moments.std.dtype == np.float32
    np.testing.assert_allclose(moments.mean, images.pixels().transpose(0, 3, 1, 2) / 127.5 - 1, atol=1e-6)
    assert not moments.std[np.array([0, 3])].any()
    assert (coloured.resolution, coloured.latent_shape) == (16, (3, 16, 16))


def test_latents_do_not_depend_on_the_batch_size(coloured, tmp_path, monkeypatch):
    images = random_images(1)
    monkeypatch.setattr("memcontrol.pipeline.unconditional.ENCODE_BATCH", 2)
    parts = UnconditionalPipeline(coloured.pipeline, name="x", device="cpu", cache=Cache(tmp_path))
    np.testing.assert_array_equal(parts.latent_moments(images).mean, coloured.latent_moments(images).mean)


def test_images_are_read_once_for_their_latents(coloured, tmp_path, monkeypatch):
    frozen = UnconditionalPipeline(coloured.pipeline, name="x", device="cpu", cache=Cache(tmp_path))
    images = random_images(2)
    first = np.array(frozen.latent_moments(images).mean)
    monkeypatch.setattr(frozen, "_latents", lambda _: pytest.fail("encoded again"))
    np.testing.assert_array_equal(frozen.latent_moments(images).mean, first)


def test_a_model_of_other_channels_has_latents_of_its_own(coloured, gray):
    images = random_images(3)
    assert coloured.latent_moments(images).mean.shape == (5, 3, 16, 16)
    assert gray.latent_moments(images).mean.shape == (5, 1, 16, 16)
    assert coloured.identity != gray.identity


def test_every_byte_comes_back_as_it_was(coloured, gray):
    for frozen in (coloured, gray):
        latents = torch.from_numpy(frozen.encode(EVERY_BYTE)).unflatten(1, frozen.latent_shape)
        np.testing.assert_array_equal(frozen.decode(latents), EVERY_BYTE)
    assert coloured.encode(EVERY_BYTE).shape == (1, 3 * 16 * 16)


def test_decoding_clamps_and_rounds(coloured):
    latents = torch.tensor([-3.0, -1.0, -0.997, -0.995, 0.0, 1.0, 9.0]).repeat_interleave(256 * 3)
    decoded = coloured.decode(latents.reshape(7, 3, 16, 16))
    assert decoded.dtype == np.uint8
    assert decoded.shape == (7, 16, 16, 3)
    assert [int(image.max()) for image in decoded] == [0, 0, 0, 1, 128, 255, 255]


def test_one_channel_sees_the_luminance_and_gives_it_in_all_three(gray):
    images = random_images(4)
    expected = luminance(images.pixels())
    np.testing.assert_allclose(gray.latent_moments(images).mean[:, 0], expected / 127.5 - 1, atol=1e-6)
    np.testing.assert_array_equal(gray.reconstruct(images), np.repeat(expected[..., None], 3, axis=-1))
    np.testing.assert_array_equal(gray.encode(images.pixels()), gray.encode(gray.reconstruct(images)))


def test_a_perfect_copy_is_the_image_itself(coloured):
    images = random_images(5)
    np.testing.assert_array_equal(coloured.reconstruct(images), images.pixels())


def test_captions_and_guidance_are_said_to_be_ignored(coloured):
    assert coloured.text_embeddings(["a photo"]) is None
    (note,) = coloured.notes(["a photo"])
    assert note == f"model {coloured.name} is unconditional: captions are ignored, and guidance has no effect"
    assert coloured.notes([""], guidance=4.0) == (note,)
    assert coloured.notes(["", ""]) == ()


def test_nothing_of_the_pipeline_asks_for_gradients(coloured):
    assert not any(parameter.requires_grad for parameter in coloured.unet.parameters())
    assert not coloured.unet.training


@pytest.mark.parametrize(
    ("scheduler", "thresholding"),
    [({}, True), ({"clip_sample": False}, False), ({"clip_sample_range": 2.0}, False), ({"thresholding": True}, True)],
)
def test_clipping_is_told_to_the_sampler_and_not_to_what_is_saved(scheduler, thresholding, tmp_path):
    made = ddpm(scheduler=scheduler)
    before = dict(made.scheduler.config)
    frozen = UnconditionalPipeline(made, name="x", device="cpu", cache=Cache(tmp_path))
    assert frozen.scheduler_config["thresholding"] is thresholding
    assert dict(made.scheduler.config) == before
