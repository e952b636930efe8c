"""A traced U-Net gives its own bits, and goes on as it is where it cannot be traced."""

import random
from contextlib import nullcontext

import pytest
import torch
from ddpm_models import ddpm

from memcontrol.groups import ParameterGroup
from memcontrol.methods import tuned
from memcontrol.pipeline import load_unet
from memcontrol.tracing import Traces, traces


@pytest.fixture
def at_once(monkeypatch):
    """Every call is traced."""
    monkeypatch.setattr(traces, "OFTEN", 0)


def conditional(unet, images=2):
    """Inputs of a U-Net that is told captions."""
    generator = torch.Generator().manual_seed(5)
    size, channels, width = (unet.config[name] for name in ("sample_size", "in_channels", "cross_attention_dim"))
    latents = torch.randn((images, channels, size, size), generator=generator)
    return latents, torch.arange(images) * 90 + 7, torch.randn((images, 5, width), generator=generator)


def unconditional(unet, images=2):
    """Inputs of a U-Net on pixels."""
    size, channels = (unet.config[name] for name in ("sample_size", "in_channels"))
    pixels = torch.randn((images, channels, size, size), generator=torch.Generator().manual_seed(5))
    return pixels, torch.arange(images) * 90 + 7


MODELS = {
    "tiny": (lambda: load_unet("tiny"), conditional),
    "tiny-sd": (lambda: load_unet("tiny-sd"), conditional),
    "ddpm": (lambda: ddpm().unet, unconditional),
}


@pytest.fixture(params=MODELS)
def model(request):
    """A frozen U-Net and its inputs."""
    load, inputs = MODELS[request.param]
    unet = load().eval().requires_grad_(False)
    return unet, inputs(unet)


@pytest.fixture
def small():
    """A frozen U-Net on pixels, and its inputs."""
    unet = ddpm().unet.eval().requires_grad_(False)
    return unet, unconditional(unet)


def gradients(unet, inputs, names):
    """The prediction, and a loss's gradients by these parameters."""
    parameters = [unet.get_parameter(name).requires_grad_() for name in names]
    try:
        (predicted,) = unet(*inputs, return_dict=False)
        return predicted.detach(), *torch.autograd.grad(predicted.square().mean(), parameters)
    finally:
        unet.requires_grad_(False)


def own_calls(unet, monkeypatch):
    """A list that grows whenever the U-Net runs its own Python."""
    calls, plain = [], type(unet).forward

    def watched(self, *inputs, **others):
        calls.append(len(inputs))
        return plain(self, *inputs, **others)

    monkeypatch.setattr(type(unet), "forward", watched)
    return calls


def assert_same(ones, others):
    assert len(ones) == len(others)
    assert all(torch.equal(one, other) for one, other in zip(ones, others, strict=True))


def test_gradients_of_any_tensors_are_the_same_bits(model, at_once, monkeypatch):
    unet, inputs = model
    names = [name for name, _ in unet.named_parameters()]
    draw = random.Random(3)
    masks = [names, names[-2:], [name for name in names if ".norm" in name], *(draw.sample(names, 9) for _ in range(2))]
    expected = [gradients(unet, inputs, mask) for mask in masks]
    recorded = Traces(unet)
    with recorded.replayed():
        first = gradients(unet, inputs, masks[0])
        calls = own_calls(unet, monkeypatch)
        found = [first, *(gradients(unet, inputs, mask) for mask in masks[1:])]
    for one, other in zip(found, expected, strict=True):
        assert_same(one, other)
    assert not recorded.refused
    assert not calls  # traced once for all masks


def test_predictions_are_the_same_bits(model, at_once, monkeypatch):
    unet, (latents, timesteps, *told) = model
    kinds = [(latents, timesteps[1], *told), (latents[:1], timesteps[:1], *(one[:1] for one in told))]
    with torch.no_grad():
        expected = [unet(*inputs, return_dict=False) for inputs in kinds]
    recorded = Traces(unet)
    with torch.no_grad(), recorded.replayed():
        for inputs in kinds:
            unet(*inputs, return_dict=False)
        calls = own_calls(unet, monkeypatch)
        for inputs, prediction in zip(kinds, expected, strict=True):
            assert_same(unet(*inputs, return_dict=False), prediction)
    assert not recorded.refused
    assert not calls


def test_a_trace_sees_values_as_they_are(small, at_once):
    """Of what it was traced on it keeps shapes alone."""
    unet, (pixels, timesteps) = small
    name = "conv_out.weight"
    with Traces(unet).replayed():
        before = gradients(unet, (pixels, timesteps), [name])
        with torch.no_grad():
            unet.get_parameter(name).mul_(1.5)
        changed = gradients(unet, (pixels, timesteps), [name])
        elsewhere = gradients(unet, (-pixels, timesteps + 40), [name])
    assert not torch.equal(changed[0], before[0])
    assert_same(changed, gradients(unet, (pixels, timesteps), [name]))
    assert_same(elsewhere, gradients(unet, (-pixels, timesteps + 40), [name]))


def test_a_call_is_traced_once_it_was_made_often(small, monkeypatch):
    unet, inputs = small
    monkeypatch.setattr(traces, "OFTEN", 3)
    calls = own_calls(unet, monkeypatch)
    with torch.no_grad(), Traces(unet).replayed():
        for _ in range(3):
            unet(*inputs, return_dict=False)
        assert len(calls) == 3
        unet(*inputs, return_dict=False)
        made = len(calls)
        for _ in range(5):
            unet(*inputs, return_dict=False)
    assert len(calls) == made


def test_no_tensor_that_is_frozen_gets_a_gradient(small, at_once):
    unet, inputs = small
    trained = unet.get_parameter("conv_in.bias").requires_grad_()
    with Traces(unet).replayed():
        unet(*inputs, return_dict=False)[0].square().mean().backward()
    assert [name for name, tensor in unet.named_parameters() if tensor.grad is not None] == ["conv_in.bias"]
    assert trained.grad.abs().sum() > 0


def test_outside_the_unet_is_itself_whatever_happened(small, at_once):
    unet, inputs = small
    with pytest.raises(RuntimeError, match="expected"), Traces(unet).replayed():
        unet(inputs[0][:, :1], inputs[1], return_dict=False)
    assert "forward" not in vars(unet)


def test_replaying_may_be_nested(small, at_once):
    unet, inputs = small
    recorded = Traces(unet)
    with torch.no_grad(), recorded.replayed():
        with recorded.replayed():
            found = unet(*inputs, return_dict=False)
        assert "forward" in vars(unet)
        assert_same(unet(*inputs, return_dict=False), found)


@pytest.mark.parametrize("method", ["lora", "difffit", "svdiff"])
def test_what_is_attached_is_not_replayed_but_what_is_folded_is(method, at_once, monkeypatch):
    unet = load_unet("tiny").eval().requires_grad_(False)
    inputs = conditional(unet)
    name = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight"
    settings = {"rank": 2, "alpha": 2} if method == "lora" else {}
    group = ParameterGroup("query", method, (name,), 0, settings=settings)
    recorded = Traces(unet)
    with tuned(unet, [group]) as tuning, torch.no_grad():
        for tensor in tuning.parameters.values():
            tensor.add_(0.3)
        with recorded.replayed():
            assert "forward" not in vars(unet)
            attached = unet(*inputs, return_dict=False)[0]
        with tuning.folded():
            expected = unet(*inputs, return_dict=False)
            with recorded.replayed():
                assert_same(unet(*inputs, return_dict=False), expected)
                calls = own_calls(unet, monkeypatch)
                assert_same(unet(*inputs, return_dict=False), expected)
    torch.testing.assert_close(attached, expected[0], rtol=1e-4, atol=1e-5)
    assert not calls
    assert not recorded.refused


SETTINGS = {"svdiff": {}, "difffit": {}, "lora": {"rank": 2, "alpha": 2}}


def attachable(unet, method="svdiff", places=("to_q", "to_k", "ff.net.2")):
    names = tuple(name for name, _ in unet.named_parameters() if any(f"{place}.weight" in name for place in places))
    return ParameterGroup("attached", method, names, 0, settings=SETTINGS[method])


@pytest.mark.parametrize("method", SETTINGS)
def test_what_says_how_it_changes_the_plain_unet_is_replayed(method, at_once, monkeypatch):
    unet = load_unet("tiny").eval().requires_grad_(False)
    inputs, recorded = conditional(unet), Traces(unet)
    bias = ParameterGroup("bias", "full", ("conv_out.bias",), 0)

    def found():
        predicted = unet(*inputs, return_dict=False)[0]
        parameters = tuning.parameters.values()
        return predicted.detach(), *torch.autograd.grad(predicted.square().mean(), parameters, allow_unused=True)

    with tuned(unet, [bias, attachable(unet, method)]) as tuning:
        for tensor in tuning.parameters.values():
            with torch.no_grad():
                tensor.add_(0.01)
        expected = found()
        with recorded.replayed(tuning.tensors):
            found()
            calls = own_calls(unet, monkeypatch)
            replayed = found()
            assert not calls
        with tuning.folded(), recorded.replayed(), torch.no_grad():
            folded = unet(*inputs, return_dict=False)[0]
    assert not recorded.refused
    assert "forward" not in vars(unet)
    assert None not in replayed
    for one, other in zip(replayed, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(folded, expected[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", SETTINGS)
def test_with_something_attached_a_trace_has_the_bits_of_what_came_before_it(method, monkeypatch):
    """Else a candidate's scores would depend on what its worker did before."""
    unet = load_unet("tiny").eval().requires_grad_(False)
    inputs, recorded = conditional(unet), Traces(unet)
    monkeypatch.setattr(traces, "OFTEN", 1)
    with tuned(unet, [attachable(unet, method)]) as tuning, recorded.replayed(tuning.tensors):
        for tensor in tuning.parameters.values():
            with torch.no_grad():
                tensor.add_(0.01)
        rounds = []
        for _ in range(3):
            predicted = unet(*inputs, return_dict=False)[0]
            gradients = torch.autograd.grad(predicted.square().mean(), list(tuning.parameters.values()))
            with torch.no_grad():
                rounds.append((predicted.detach(), *unet(*inputs, return_dict=False), *gradients))
    assert not recorded.refused
    for later in rounds[1:]:
        assert_same(later, rounds[0])


@pytest.mark.parametrize("method", SETTINGS)
def test_in_half_precision_what_is_attached_goes_on_as_it_is(method):
    unet = load_unet("tiny").to(torch.bfloat16).eval().requires_grad_(False)
    recorded = Traces(unet)
    with tuned(unet, [attachable(unet, method)]) as tuning, recorded.replayed(tuning.tensors):
        assert "forward" not in vars(unet)


@pytest.mark.parametrize(("largest", "replays"), [(0, False), (279_592, True)])
def test_of_a_large_unet_what_is_attached_goes_on_as_it_is(largest, replays, monkeypatch):
    monkeypatch.setattr(traces, "SMALL", largest)
    unet = load_unet("tiny").eval().requires_grad_(False)
    recorded = Traces(unet)
    with tuned(unet, [attachable(unet)]) as tuning, recorded.replayed(tuning.tensors):
        assert ("forward" in vars(unet)) == replays


@pytest.mark.parametrize("method", SETTINGS)
def test_inside_what_is_folded_the_unet_is_as_it_is(method, at_once):
    """An outer replay of what was attached says nothing of the folded U-Net."""
    unet = load_unet("tiny").eval().requires_grad_(False)
    inputs, recorded, group = conditional(unet), Traces(unet), attachable(unet, method)
    with tuned(unet, [group]) as tuning, recorded.replayed(tuning.tensors), torch.no_grad():
        for tensor in tuning.parameters.values():
            tensor.add_(0.5)
        with tuning.folded(), recorded.replayed():
            found = unet(*inputs, return_dict=False)
            again = unet(*inputs, return_dict=False)
        with tuning.folded():
            assert_same(unet(*inputs, return_dict=False), found)
        assert "forward" in vars(unet)
        torch.testing.assert_close(unet(*inputs, return_dict=False), found, rtol=1e-4, atol=1e-5)
    assert_same(again, found)


def test_a_unet_whose_operations_work_in_place_goes_on_as_it_is(small, at_once, monkeypatch):
    unet, inputs = small
    plain = type(unet.conv_in).forward
    monkeypatch.setattr(type(unet.conv_in), "forward", lambda self, given: plain(self, given).mul_(2))
    names = ["conv_out.weight"]
    expected = gradients(unet, inputs, names)
    recorded = Traces(unet)
    with recorded.replayed():
        for _ in range(2):
            assert_same(gradients(unet, inputs, names), expected)
    assert ["changes its input" in reason for reason in recorded.refused.values()] == [True]


def test_a_unet_that_draws_numbers_goes_on_as_it_is(small, at_once):
    unet, inputs = small
    unet.down_blocks[0].resnets[0].dropout.p = 0.5
    unet.train()
    recorded = Traces(unet)
    with torch.no_grad(), recorded.replayed():
        torch.manual_seed(4)
        unet(*inputs, return_dict=False)
        torch.manual_seed(4)
        found = unet(*inputs, return_dict=False)
    torch.manual_seed(4)
    with torch.no_grad():
        assert_same(unet(*inputs, return_dict=False), found)
    assert ["changes its input" in reason for reason in recorded.refused.values()] == [True]


def test_gradients_by_what_the_unet_is_told_are_its_own(small, at_once):
    unet, (pixels, timesteps) = small
    given = pixels.clone().requires_grad_()
    with Traces(unet).replayed():
        (found,) = torch.autograd.grad(unet(given, timesteps, return_dict=False)[0].sum(), given)
    (expected,) = torch.autograd.grad(unet(given, timesteps, return_dict=False)[0].sum(), given)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("autocast", [False, True])
def test_autocast_and_named_outputs_are_the_unets_own(small, at_once, autocast):
    unet, inputs = small
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext():
        expected = unet(*inputs, return_dict=not autocast)
        with Traces(unet).replayed():
            unet(*inputs, return_dict=not autocast)
            found = unet(*inputs, return_dict=not autocast)
    assert torch.equal(found[0], expected[0])
    assert found[0].dtype == (torch.bfloat16 if autocast else torch.float32)
    assert type(found) is type(expected)


def test_whoever_listens_to_a_layer_hears_of_every_call(small, at_once):
    unet, inputs = small
    heard = []
    with torch.no_grad(), Traces(unet).replayed():
        unet(*inputs, return_dict=False)
        handle = unet.conv_in.register_forward_hook(lambda *_: heard.append(True))
        unet(*inputs, return_dict=False)
        handle.remove()
        unet(*inputs, return_dict=False)
    assert heard == [True]


def test_activations_that_are_not_to_be_kept_are_not(at_once, monkeypatch):
    """A replayed call keeps all that its backward pass needs."""
    unet = load_unet("tiny").eval().requires_grad_(False)
    inputs, names = conditional(unet), ["conv_in.weight"]
    calls = own_calls(unet, monkeypatch)
    unet.enable_gradient_checkpointing()
    with Traces(unet).replayed():
        for _ in range(2):
            gradients(unet, inputs, names)
    assert len(calls) == 2
