"""DiffFit's factors scale outputs, start as nothing, and fold exactly into weights and biases."""

import pytest
import torch
from torch import nn

from memcontrol.errors import SpaceError
from memcontrol.groups import ParameterGroup
from memcontrol.methods import METHODS, tuned, tuned_numel
from memcontrol.pipeline import load_unet

ATTENTION = "down_blocks.0.attentions.0.transformer_blocks.0"
SCALED = tuple(f"{ATTENTION}.{name}.weight" for name in ("attn1.to_q", "attn1.to_out.0", "attn2.to_k", "ff.net.2"))


def difffit(*names):
    return ParameterGroup("scales", "difffit", names, 0)


@pytest.fixture(scope="module")
def unet():
    return load_unet("tiny").eval()


@pytest.fixture(scope="module")
def inputs():
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(2, 8, 8, 8, generator=generator),
        torch.tensor([10, 700]),
        torch.randn(2, 24, 48, generator=generator),
    )


@torch.no_grad()
def output(unet, inputs):
    return unet(*inputs, return_dict=False)[0]


def shake(parameters):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in parameters.values():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))


def test_an_output_matrix_has_two_factors_and_others_one(unet):
    sizes = [tuned_numel(difffit(name), unet) for name in SCALED]
    width = unet.get_parameter(SCALED[0]).shape[0]
    assert sizes == [width, 2 * width, width, width]
    with tuned(unet, [difffit(*SCALED)]) as tuning:
        assert sum(parameter.numel() for parameter in tuning.parameters.values()) == sum(sizes)
        assert all(torch.equal(parameter, torch.ones_like(parameter)) for parameter in tuning.parameters.values())


def test_untrained_factors_change_nothing(unet, inputs):
    before = output(unet, inputs)
    with tuned(unet, [difffit(*SCALED)]):
        assert torch.equal(output(unet, inputs), before)


def test_a_layers_output_is_multiplied():
    layer = nn.Sequential(nn.Linear(3, 2))
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    plain = layer(x)
    with tuned(layer, [difffit("0.weight")]) as tuning:
        with torch.no_grad():
            tuning.parameters["0.weight.difffit_scale_0"].copy_(torch.tensor([2.0, -3.0]))
        torch.testing.assert_close(layer(x), plain * torch.tensor([2.0, -3.0]))


def test_folding_is_exact_together_with_trained_biases_and_training_goes_on_after(unet, inputs):
    bias = f"{ATTENTION}.ff.net.2.bias"
    before, names = output(unet, inputs), list(unet.state_dict())
    with tuned(unet, [difffit(*SCALED), ParameterGroup("biases", "full", (bias,), 0)]) as tuning:
        shake(tuning.parameters)
        scaled = output(unet, inputs)
        assert (scaled - before).abs().max() > 1e-3
        with tuning.folded():
            torch.testing.assert_close(output(unet, inputs), scaled, atol=1e-5, rtol=0)
            assert list(unet.state_dict()) == names, "what is saved inside is a plain U-Net"
            folded = unet.get_parameter(SCALED[0]).clone()
        assert not torch.equal(folded, unet.get_parameter(SCALED[0]))
        assert unet.get_parameter(bias) is tuning.parameters[bias]
        assert torch.equal(output(unet, inputs), scaled)
        unet(*inputs, return_dict=False)[0].square().mean().backward()
        assert all(parameter.grad.abs().sum() > 0 for parameter in tuning.parameters.values())


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_nothing_is_left_behind(unet, inputs, error):
    before, names = output(unet, inputs), list(unet.state_dict())
    objects = [id(parameter) for parameter in unet.parameters()]
    try:
        with tuned(unet, [difffit(*SCALED)]) as tuning, tuning.folded():
            shake(tuning.parameters)
            if error:
                raise error
    except (RuntimeError, KeyboardInterrupt) as raised:
        assert type(raised) is error  # noqa: PT017 - both ways out are tested alike
    assert list(unet.state_dict()) == names
    assert [id(parameter) for parameter in unet.parameters()] == objects
    assert torch.equal(output(unet, inputs), before)


def test_the_plain_tensors_are_those_of_folded_layers_and_have_gradients(unet, inputs):
    bias = ParameterGroup("bias", "full", (f"{ATTENTION}.attn1.to_out.0.bias",), 0)
    with tuned(unet, [bias, difffit(*SCALED)]) as tuning:
        shake(tuning.parameters)
        made = tuning.tensors()
        with tuning.folded():
            assert tuning.tensors() == {}
            folded = {name: unet.get_parameter(name).detach() for name in made}
            found = torch.func.functional_call(unet, made, inputs, {"return_dict": False})[0]
        assert {*SCALED, f"{ATTENTION}.attn1.to_out.0.bias", f"{ATTENTION}.ff.net.2.bias"} == made.keys()
        assert all(torch.equal(made[name], folded[name]) for name in made)
        own, parameters = unet(*inputs, return_dict=False)[0], list(tuning.parameters.values())
        gradients = [torch.autograd.grad(out.square().mean(), parameters) for out in (found, own)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


def test_a_layer_with_a_forward_pass_of_its_own_keeps_it():
    layer = nn.Linear(3, 3)
    wrapped = layer.forward
    layer.forward = lambda given: wrapped(given) + 1
    own, network, given = layer.forward, nn.Sequential(layer), torch.ones(2, 3)
    before = network(given)
    with tuned(network, [difffit("0.weight")]) as tuning:
        with torch.no_grad():
            tuning.parameters["0.weight.difffit_scale_0"].fill_(2)
        torch.testing.assert_close(network(given), 2 * before)
    assert layer.forward is own
    assert torch.equal(network(given), before)


@pytest.mark.parametrize("name", [f"{ATTENTION}.ff.net.2.bias", f"{ATTENTION}.norm1.weight", "conv_in.weight"])
def test_what_is_no_linear_weight_is_refused_by_name(unet, name):
    with pytest.raises(SpaceError, match=name):
        METHODS["difffit"].numel(unet, name, {})
