"""Attention of narrow heads by products gives what diffusers' own processor does, up to rounding."""

import copy

import pytest
import torch
from ddpm_models import ddpm
from diffusers.models.attention_processor import Attention, AttnProcessor2_0

from memcontrol.pipeline.narrow_attention import NarrowAttention, attend_by_products, attended


@pytest.mark.parametrize(("heads", "tokens", "told"), [(1, 5, 5), (2, 16, 24), (4, 7, 1)])
def test_values_and_gradients_are_pytorchs_own(heads, tokens, told):
    generator = torch.Generator().manual_seed(2)
    given = [
        torch.randn((3, count, 8 * heads), generator=generator, requires_grad=True) for count in (tokens, told, told)
    ]
    split = [one.view(3, -1, heads, 8).transpose(1, 2) for one in given]
    expected = torch.nn.functional.scaled_dot_product_attention(*split).transpose(1, 2).reshape(3, tokens, -1)
    found = attended(*given, heads)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    weights = torch.randn(found.shape, generator=generator)
    torch.testing.assert_close(
        torch.autograd.grad((found * weights).sum(), given),
        torch.autograd.grad((expected * weights).sum(), given),
        rtol=1e-4,
        atol=1e-5,
    )


def layer(heads=2, width=8, **settings):
    torch.manual_seed(0)
    return Attention(heads * width, heads=heads, dim_head=width, **settings).eval()


@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        ({}, (3, 6, 16)),
        (
            {"norm_num_groups": 4, "residual_connection": True, "rescale_output_factor": 1.5, "bias": True},
            (3, 16, 4, 3),
        ),
    ],
    ids=["tokens", "pixels"],
)
@pytest.mark.parametrize("told", [False, True])
def test_a_layer_gives_what_it_gave(settings, shape, told):
    own = layer(**settings, **({"cross_attention_dim": 5} if told else {}))
    other = copy.deepcopy(own)
    attend_by_products(other)
    assert isinstance(other.processor, NarrowAttention)
    given, captions = torch.randn(shape), torch.randn((3, 4, 5)) if told else None
    with torch.no_grad():
        torch.testing.assert_close(other(given, captions), own(given, captions), rtol=1e-5, atol=1e-5)


def test_several_candidates_attend_at_once():
    queries, keys = (torch.randn((3, 2, count, 16), requires_grad=True) for count in (6, 4))
    together = torch.vmap(lambda query, key: attended(query, key, key, 2))(queries, keys)
    apart = torch.stack([attended(query, key, key, 2) for query, key in zip(queries, keys, strict=True)])
    torch.testing.assert_close(together, apart)
    gradients = [torch.autograd.grad(one.square().sum(), [queries, keys]) for one in (together, apart)]
    torch.testing.assert_close(*gradients)


def test_a_second_derivative_is_refused_rather_than_wrong():
    tokens = torch.randn((2, 6, 16), requires_grad=True)
    (gradient,) = torch.autograd.grad(attended(tokens, tokens, tokens, 2).square().sum(), tokens, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_autocast_is_left_to_diffusers(monkeypatch):
    own = layer()
    attend_by_products(own)
    tokens = torch.randn((2, 6, 16), requires_grad=True)
    expected = torch.autograd.grad(own(tokens).square().sum(), tokens)
    called, plain = [], AttnProcessor2_0.__call__
    monkeypatch.setattr(
        AttnProcessor2_0, "__call__", lambda self, *inputs, **others: called.append(1) or plain(self, *inputs, **others)
    )
    with torch.autocast("cpu", torch.bfloat16):
        mixed = own(tokens).square().sum()
    torch.testing.assert_close(torch.autograd.grad(mixed, tokens), expected, rtol=0.1, atol=0.05)
    assert called


@pytest.mark.parametrize(
    ("settings", "tokens", "masked"),
    [({}, 65, False), ({}, 6, True), ({"qk_norm": "layer_norm"}, 6, False)],
    ids=["many tokens", "masked", "normed queries"],
)
def test_all_else_is_left_to_diffusers(settings, tokens, masked, monkeypatch):
    own = layer(**settings)
    attend_by_products(own)
    called, plain = [], AttnProcessor2_0.__call__

    def watched(self, *inputs, **others):
        called.append(True)
        return plain(self, *inputs, **others)

    monkeypatch.setattr(AttnProcessor2_0, "__call__", watched)
    mask = torch.zeros((2, 1, tokens)) if masked else None
    with torch.no_grad():
        own(torch.randn((2, tokens, 16)), attention_mask=mask)
    assert called == [True]


def test_wide_heads_and_other_processors_stay():
    wide, named = layer(width=16), layer()
    named.set_processor(type("Other", (AttnProcessor2_0,), {})())
    for one in (wide, named):
        attend_by_products(one)
        assert not isinstance(one.processor, NarrowAttention)


def test_unets_of_pixels_have_narrow_heads_too():
    unet = ddpm().unet
    attend_by_products(unet)
    found = [module.processor for module in unet.modules() if isinstance(module, Attention)]
    assert found
    assert all(isinstance(one, NarrowAttention) for one in found)
