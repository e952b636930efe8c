"""Upsampling in quarters gives what repeating pixels and convolving them gives, up to rounding."""

import copy

import pytest
import torch
from diffusers.models.upsampling import Upsample2D
from torch import nn

from memcontrol.pipeline.upsampling import upsample_in_quarters


def noise(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def quarters(layer):
    return "forward" in vars(layer)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_pixels_are_the_layers_own(bias, layout):
    layer = Upsample2D(6, use_conv=True, out_channels=4, bias=bias)
    other = copy.deepcopy(layer)
    upsample_in_quarters(other)
    assert quarters(other)
    images = noise(3, 6, 5, 7).to(memory_format=layout)
    made = other(images)
    assert made.shape == (3, 4, 10, 14)
    torch.testing.assert_close(made, layer(images), rtol=1e-5, atol=1e-5)


def test_a_size_that_is_asked_for_is_given():
    layer = Upsample2D(6, use_conv=True)
    other = copy.deepcopy(layer)
    upsample_in_quarters(other)
    torch.testing.assert_close(other(noise(1, 6, 4, 4), (9, 9)), layer(noise(1, 6, 4, 4), (9, 9)), rtol=0, atol=0)


def test_half_precision_stays_what_it_is():
    layer = Upsample2D(6, use_conv=True).bfloat16()
    upsample_in_quarters(layer)
    assert layer(torch.ones((1, 6, 2, 2), dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize(
    "layer",
    [
        Upsample2D(4),
        Upsample2D(4, use_conv_transpose=True),
        Upsample2D(4, use_conv=True, kernel_size=5, padding=2),
        Upsample2D(4, use_conv=True, norm_type="ln_norm", eps=1e-5, elementwise_affine=True),
        Upsample2D(4, use_conv=True, interpolate=False),
        nn.Upsample(scale_factor=2),
    ],
    ids=["no convolution", "transposed", "5 x 5", "norm", "no upsampling", "another layer"],
)
def test_every_other_layer_stays(layer):
    upsample_in_quarters(layer)
    assert not quarters(layer)


def test_a_pipelines_decoder_gives_the_pixels_that_it_gave(tiny):
    whole = copy.deepcopy(tiny.vae)
    layers = [module for module in whole.modules() if isinstance(module, Upsample2D) and quarters(module)]
    assert len(layers) == 3
    for module in layers:
        del module.forward
    latents = noise(2, *tiny.latent_shape)
    with torch.no_grad():
        torch.testing.assert_close(tiny.vae.decode(latents).sample, whole.decode(latents).sample, rtol=1e-4, atol=1e-4)
