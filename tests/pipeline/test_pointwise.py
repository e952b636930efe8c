"""A 1 x 1 convolution that multiplies matrices gives what a convolution does, up to rounding."""

import copy

import pytest
import torch
from torch import nn

from memcontrol.pipeline.pointwise import multiply_pointwise


def multiplies(layer):
    return "_conv_forward" in vars(layer)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_values_and_gradients_are_a_convolutions(bias, layout):
    layer = nn.Conv2d(6, 4, 1, bias=bias)
    other = copy.deepcopy(layer)
    multiply_pointwise(other)
    assert multiplies(other)
    results = []
    for one in (layer, other):
        given = torch.randn((3, 6, 5, 7), generator=torch.Generator().manual_seed(1)).to(memory_format=layout)
        made = one(given.requires_grad_())
        results.append((made, *torch.autograd.grad(made.square().sum(), [given, *one.parameters()])))
    for of_convolution, one in zip(*results, strict=True):
        torch.testing.assert_close(one, of_convolution, rtol=1e-5, atol=1e-5)


def test_half_precision_stays_what_it_is():
    layer = nn.Conv2d(6, 4, 1).bfloat16()
    multiply_pointwise(layer)
    assert multiplies(layer)
    assert layer(torch.ones((1, 6, 2, 2), dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 4, 3, padding=1),
        nn.Conv2d(4, 4, 1, stride=2),
        nn.Conv2d(4, 4, 1, padding=1),
        nn.Conv2d(4, 4, 1, groups=2),
        nn.Conv1d(4, 4, 1),
    ],
    ids=["3 x 3", "stride", "padding", "groups", "one dimension"],
)
def test_every_other_layer_stays(layer):
    multiply_pointwise(layer)
    assert not multiplies(layer)


def test_what_makes_tokens_lays_them_out_as_tokens(tiny):
    makes_tokens = copy.deepcopy(tiny.unet.down_blocks[0].attentions[0].proj_in).requires_grad_()
    makes_images = copy.deepcopy(makes_tokens)
    multiply_pointwise(makes_images)
    given = torch.randn((3, makes_tokens.in_channels, 4, 4), requires_grad=True)
    results = []
    for layer in (makes_tokens, makes_images):
        made = layer(given)
        results.append((made, *torch.autograd.grad(made.square().sum(), [given, *layer.parameters()])))
    for tokens, image in zip(*results, strict=True):
        torch.testing.assert_close(tokens, image, rtol=1e-5, atol=1e-5)
    assert [made.permute(0, 2, 3, 1).is_contiguous() for made, *_ in results] == [True, False]


def test_a_pipelines_unet_multiplies_and_predicts_what_it_did(tiny):
    convolving = copy.deepcopy(tiny.unet)
    layers = [module for module in convolving.modules() if multiplies(module)]
    assert len(layers) == 19
    for module in layers:
        del module._conv_forward
    inputs = (torch.randn((2, *tiny.latent_shape)), torch.tensor([10, 900]), torch.randn((2, 5, 48)))
    with torch.no_grad():
        ones, others = (unet(*inputs, return_dict=False)[0] for unet in (tiny.unet, convolving))
    torch.testing.assert_close(ones, others, rtol=1e-4, atol=1e-5)
