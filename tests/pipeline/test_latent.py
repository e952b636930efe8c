"""Images and captions are encoded once, with the stock components' own numbers."""

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from memcontrol.cache import Cache
from memcontrol.data.images import images_from_array
from memcontrol.pipeline import LatentPipeline, load_pipeline, model_folder

CAPTIONS = ("a handwritten seven", "", "photo of a face, subject 7", "a handwritten seven")


@pytest.fixture(scope="module")
def stock():
    """The same model through diffusers alone."""
    pipeline = StableDiffusionPipeline.from_pretrained(model_folder("tiny"))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def random_images(seed, count=5, side=64):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    return images_from_array(pixels, ["x"] * count, keys=[str(i) for i in range(count)])


def forbid(monkeypatch, owner, name):
    def refuse(*args, **kwargs):
        raise AssertionError(f"{name} was called again")

    monkeypatch.setattr(owner, name, refuse)


def joined(frozen, tmp_path):
    """The same pipeline with an empty cache."""
    return LatentPipeline(frozen.pipeline, name="tiny", device="cpu", cache=Cache(tmp_path))


def test_latents_are_the_autoencoders_own(tiny, stock, tmp_path):
    images = random_images(0)
    moments = joined(tiny, tmp_path).latent_moments(images)
    scaled = torch.from_numpy(images.pixels()).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        posterior = stock.vae.encode(scaled).latent_dist
    scale = stock.vae.config.scaling_factor
    np.testing.assert_allclose(moments.mean, posterior.mean * scale, atol=1e-4)
    np.testing.assert_allclose(moments.std, posterior.std * scale, atol=1e-4)
    assert moments.mean.shape == (5, *tiny.latent_shape)
    assert moments.mean.dtype == moments.std.dtype == np.float32


def test_latents_do_not_depend_on_the_batch_size(tiny, tmp_path, monkeypatch):
    images = random_images(1)
    whole = joined(tiny, tmp_path / "a").latent_moments(images)
    monkeypatch.setattr("memcontrol.pipeline.latent.ENCODE_BATCH", 2)
    parts = joined(tiny, tmp_path / "b").latent_moments(images)
    np.testing.assert_allclose(parts.mean, whole.mean, atol=1e-5)
    np.testing.assert_allclose(parts.std, whole.std, atol=1e-5)


def test_images_are_encoded_once(tiny, tmp_path, monkeypatch):
    frozen, images = joined(tiny, tmp_path), random_images(2)
    first = np.array(frozen.latent_moments(images).mean)
    forbid(monkeypatch, frozen.vae, "encode")
    np.testing.assert_array_equal(frozen.latent_moments(images).mean, first)
    np.testing.assert_array_equal(joined(tiny, tmp_path).latent_moments(images).mean, first)
    with pytest.raises(AssertionError, match="encode was called again"):
        frozen.latent_moments(random_images(3))
    with pytest.raises(AssertionError, match="encode was called again"):
        frozen.latent_moments(images.take([0, 1]))


def test_another_autoencoder_is_another_key(tiny, tmp_path):
    images = random_images(4, count=2)
    first = np.array(joined(tiny, tmp_path).latent_moments(images).mean)
    other = load_pipeline("tiny", cache=Cache(tmp_path))
    with torch.no_grad():
        other.vae.quant_conv.bias += 1
    changed = LatentPipeline(other.pipeline, name="tiny", device="cpu", cache=Cache(tmp_path)).latent_moments(images)
    assert np.abs(changed.mean - first).max() > 0.1


def test_reconstruction_is_what_decoding_the_encoding_gives(tiny, tmp_path, monkeypatch):
    frozen, images = joined(tiny, tmp_path), random_images(5)
    reconstructed = np.array(frozen.reconstruct(images))
    latents = torch.from_numpy(frozen.encode(images.pixels())).unflatten(1, tiny.latent_shape)
    assert np.abs(reconstructed.astype(int) - frozen.decode(latents)).max() <= 1
    assert reconstructed.shape == (5, 64, 64, 3)
    assert reconstructed.dtype == np.uint8
    forbid(monkeypatch, frozen.vae, "decode")
    np.testing.assert_array_equal(frozen.reconstruct(images), reconstructed)


def test_decoding_is_the_stock_pipelines(tiny, stock):
    latents = torch.randn(3, *tiny.latent_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        decoded = stock.vae.decode(latents / stock.vae.config.scaling_factor).sample
    expected = stock.image_processor.postprocess(decoded, output_type="np") * 255
    assert np.abs(tiny.decode(latents) - expected).max() <= 1


def test_encoding_reads_what_the_cache_gives(tiny, tmp_path):
    """Cached reconstructions are read-only maps, and scores in latents encode them."""
    frozen = joined(tiny, tmp_path)
    assert frozen.encode(frozen.reconstruct(random_images(6, count=2))).shape == (2, np.prod(tiny.latent_shape))


def test_captions_are_the_text_encoders_own(tiny, stock, tmp_path):
    text = joined(tiny, tmp_path).text_embeddings(CAPTIONS)
    tokens = stock.tokenizer(
        list(CAPTIONS), padding="max_length", max_length=stock.tokenizer.model_max_length, return_tensors="pt"
    )
    with torch.no_grad():
        expected = stock.text_encoder(tokens.input_ids).last_hidden_state
    torch.testing.assert_close(text.at(np.arange(4)), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(text.empty(2), expected[[1, 1]], atol=1e-5, rtol=0)
    torch.testing.assert_close(text.at(np.array([2, 0])), expected[[2, 0]], atol=1e-5, rtol=0)


def test_each_distinct_caption_is_encoded_once(tiny, tmp_path, monkeypatch):
    frozen, encoded = joined(tiny, tmp_path), []
    encode = frozen._encode_text
    monkeypatch.setattr(frozen, "_encode_text", lambda captions: encoded.extend(captions) or encode(captions))
    text = frozen.text_embeddings(CAPTIONS)
    assert sorted(encoded) == sorted(set(CAPTIONS))
    assert text.table.shape[0] == 3
    frozen.text_embeddings(CAPTIONS[::-1])
    assert len(encoded) == 3


def test_nothing_of_the_pipeline_asks_for_gradients(tiny):
    modules = (tiny.unet, tiny.vae, tiny.text_encoder)
    assert not any(parameter.requires_grad for module in modules for parameter in module.parameters())
    assert not any(module.training for module in modules)


def test_resolution_is_that_of_decoded_images(tiny):
    size = tiny.decode(torch.zeros(1, *tiny.latent_shape)).shape[1:3]
    assert size == (tiny.resolution, tiny.resolution)


def test_captions_that_the_text_encoder_cuts_are_counted(tiny):
    captions = ["a handwritten seven", "zebra " * 40, "zebra " * 40, ""]
    assert tiny.truncated(captions) == 1
    (note,) = tiny.notes(captions)
    assert note.startswith("1 distinct captions are longer than the")
    assert tiny.notes(captions[:1], guidance=4.0) == ()
