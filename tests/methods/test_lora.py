"""LoRA wraps exactly the chosen layers, starts alike in all candidates, folds into plain weights, leaves nothing."""

import math

import pytest
import torch
from torch import nn

from memcontrol.errors import ModelError, SpaceError
from memcontrol.groups import ParameterGroup
from memcontrol.methods import METHODS, Resources, tuned, tuned_numel


class Block(nn.Module):
    def __init__(self, width=6):
        super().__init__()
        self.to_q = nn.Linear(width, width)

    def forward(self, x):
        return self.to_q(x)


class Network(nn.Module):
    """Names that end alike, and a name that `block.to_q` would match if its dot stood for any character."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 6, (3, 2), stride=2, padding=1)
        self.point = nn.Conv2d(6, 6, 1, bias=False)
        self.norm = nn.GroupNorm(2, 6)
        self.block = Block()
        self.inner = nn.ModuleDict({"block": Block(), "blockxto_q": nn.Linear(6, 6)})
        self.outs = nn.ModuleList([nn.Linear(6, 5, bias=False), nn.Dropout(0.5)])
        self.awkward = nn.ModuleDict(
            {
                "grouped": nn.Conv2d(4, 4, 3, groups=2),
                "dilated": nn.Conv2d(4, 4, 3, dilation=2),
                "circular": nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"),
                "up": nn.ConvTranspose2d(4, 4, 3),
                "table": nn.Embedding(3, 4),
            }
        )

    def forward(self, x):
        x = self.norm(self.point(self.first(x))).flatten(2).transpose(1, 2)
        x = self.inner["blockxto_q"](self.inner["block"](self.block(x)))
        return self.outs[1](self.outs[0](x))


NAMES = ("first.weight", "point.weight", "block.to_q.weight", "outs.0.weight")


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Network().eval().requires_grad_(False)


@pytest.fixture
def images():
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def lora(*names, rank=2, alpha=None, name="chosen"):
    return ParameterGroup(name, "lora", names, 0, settings={"rank": rank, "alpha": alpha or float(rank)})


def bits(network):
    """Every parameter and buffer by name, in order, as bytes."""
    return [(name, tensor.detach().numpy().tobytes()) for name, tensor in network.state_dict().items()]


def modules(network):
    return [(name, id(module)) for name, module in network.named_modules()]


def objects(network):
    return modules(network) + [(name, id(parameter)) for name, parameter in network.named_parameters()]


def disturb(parameters, scale=0.3):
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in parameters.values():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))


@pytest.mark.parametrize(
    ("parameter", "rank", "numel"),
    [
        ("first.weight", 2, 2 * 3 * 3 * 2 + 6 * 2),
        ("point.weight", 3, 3 * 6 + 6 * 3),
        ("block.to_q.weight", 1, 6 + 6),
        ("outs.0.weight", 4, 4 * (6 + 5)),
        ("outs.0.weight", 64, 64 * (6 + 5)),
    ],
)
def test_sizes_are_what_peft_trains(network, parameter, rank, numel):
    group = lora(parameter, rank=rank)
    with torch.device("meta"):
        assert tuned_numel(group, Network()) == numel
    with tuned(network, [group]) as tuning:
        assert sum(tensor.numel() for tensor in tuning.parameters.values()) == numel
        assert tuning.parameters.keys() == {f"{parameter}.lora_A", f"{parameter}.lora_B"}


@pytest.mark.parametrize(
    ("parameter", "found"),
    [
        ("block.to_q.bias", "the bias of a layer of type Linear:"),
        ("norm.weight", "the weight of a layer of type GroupNorm:"),
        ("awkward.table.weight", "the weight of a layer of type Embedding:"),
        ("awkward.up.weight", "the weight of a layer of type ConvTranspose2d:"),
        ("awkward.grouped.weight", r"of type Conv2d \(groups 2, "),
        ("awkward.dilated.weight", r"of type Conv2d \(groups 1, dilation \(2, 2\), "),
        ("awkward.circular.weight", r", padding circular\):"),
    ],
)
def test_layers_that_peft_cannot_follow_are_refused(network, parameter, found):
    before = objects(network)
    message = rf"and {parameter} is .*{found}.* narrow a select rule"
    with pytest.raises(SpaceError, match=message):
        tuned_numel(lora(parameter), network)
    with pytest.raises(SpaceError, match=message), tuned(network, [lora(parameter)]):
        pass
    assert objects(network) == before


def test_exactly_the_chosen_layers_are_wrapped(network):
    from peft.tuners.lora import LoraLayer

    with tuned(network, [lora("block.to_q.weight")]):
        assert [name for name, module in network.named_modules() if isinstance(module, LoraLayer)] == ["block.to_q"]
    with tuned(network, [lora("inner.block.to_q.weight", rank=3), lora("block.to_q.weight", rank=1)]):
        ranks = {name: module.r for name, module in network.named_modules() if isinstance(module, LoraLayer)}
        assert ranks == {"block.to_q": {"default": 1}, "inner.block.to_q": {"default": 3}}


def test_what_is_untrained_changes_nothing(network, images):
    before = network(images)
    with tuned(network, [lora(*NAMES)]) as tuning:
        assert torch.equal(network(images), before)
        with tuning.folded():
            assert torch.equal(network(images), before)


def starts(network, *groups, seed=0):
    with tuned(network, groups, Resources(seed=seed)) as tuning:
        return {name: parameter.detach().clone() for name, parameter in tuning.parameters.items()}


def test_a_layer_starts_alike_in_all_candidates(network):
    alone = starts(network, lora("block.to_q.weight"))["block.to_q.weight.lora_A"]
    torch.manual_seed(99)
    among = starts(network, lora("first.weight", rank=3), lora("outs.0.weight", "block.to_q.weight", alpha=7.0))
    assert torch.equal(among["block.to_q.weight.lora_A"], alone)
    twin = starts(network, lora("inner.block.to_q.weight"))["inner.block.to_q.weight.lora_A"]
    other = starts(network, lora("block.to_q.weight"), seed=1)["block.to_q.weight.lora_A"]
    larger = starts(network, lora("block.to_q.weight", rank=3))["block.to_q.weight.lora_A"]
    for different in (twin, other, larger[:2]):
        assert not torch.equal(different, alone)


def test_the_start_has_pefts_distribution(network):
    start = starts(network, lora("first.weight", rank=400))
    bound = 1 / math.sqrt(3 * 3 * 2)
    values = start["first.weight.lora_A"]
    assert values.abs().max() <= bound
    assert values.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
    assert not start["first.weight.lora_B"].any()


def test_global_random_numbers_are_left_alone(network):
    before = torch.get_rng_state()
    with tuned(network, [lora(*NAMES)]) as tuning, tuning.folded():
        pass
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("folded", [False, True])
def test_nothing_is_left(network, error, folded):
    before = objects(network), bits(network), set(vars(network))
    try:
        with tuned(network, [lora(*NAMES)]) as tuning:
            disturb(tuning.parameters)
            assert objects(network) != before[0]
            if not folded and error:
                raise error
            with tuning.folded():
                if error:
                    raise error
    except (RuntimeError, KeyboardInterrupt) as raised:
        assert type(raised) is error  # noqa: PT017 - both ways out are tested alike
    assert (objects(network), bits(network), set(vars(network))) == before
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_an_interrupt_within_peft_leaves_nothing(network, monkeypatch):
    from peft.tuners.lora import LoraLayer

    seen = []

    def interrupted(layer, *_):
        seen.append(layer)
        if len(seen) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(LoraLayer, "reset_lora_parameters", interrupted)
    before = objects(network), bits(network), torch.get_rng_state().tolist()
    with pytest.raises(KeyboardInterrupt), tuned(network, [lora(*NAMES)]):
        pass
    assert (objects(network), bits(network), torch.get_rng_state().tolist()) == before


def test_a_network_that_carries_an_adapter_is_refused_and_kept(network):
    from peft import LoraConfig, inject_adapter_in_model

    inject_adapter_in_model(LoraConfig(r=1, target_modules=["outs.0"]), network)
    before = objects(network), bits(network)
    with pytest.raises(ModelError, match="carries an adapter already"), tuned(network, [lora("first.weight")]):
        pass
    assert (objects(network), bits(network)) == before
    assert network.peft_config.keys() == {"default"}


def test_folded_layers_are_the_plain_ones(network, images):
    before = modules(network)
    plain = {name for name, _ in network.named_parameters()}
    point, query = network.point.weight.clone()[..., 0, 0], network.block.to_q.weight.clone()
    with tuned(network, [lora(*NAMES[:2], alpha=3.0), lora(*NAMES[2:], rank=1, name="others")]) as tuning:
        disturb(tuning.parameters)
        attached, adapted = objects(network), network(images)
        with tuning.folded():
            assert {name for name, _ in network.named_parameters()} == plain
            assert modules(network) == before
            assert not any(parameter.requires_grad for parameter in network.parameters())
            torch.testing.assert_close(network(images), adapted, rtol=0, atol=1e-5)
            down, up = (tuning.parameters[f"block.to_q.weight.{factor}"] for factor in ("lora_A", "lora_B"))
            torch.testing.assert_close(network.block.to_q.weight, query + up @ down)
            down, up = (tuning.parameters[f"point.weight.{factor}"][..., 0, 0] for factor in ("lora_A", "lora_B"))
            torch.testing.assert_close(network.point.weight[..., 0, 0], point + 3 / 2 * up @ down)
        assert objects(network) == attached
        assert torch.equal(network(images), adapted)


def test_the_plain_weights_are_those_of_folded_layers_and_have_gradients(network, images):
    with tuned(network, [lora(*NAMES)]) as tuning:
        disturb(tuning.parameters)
        made = tuning.tensors()
        with tuning.folded():
            folded = {name: network.get_parameter(name).detach() for name in NAMES}
            found = torch.func.functional_call(network, made, images)
        assert made.keys() == folded.keys()
        assert all(torch.equal(made[name], folded[name]) for name in NAMES)
        parameters = list(tuning.parameters.values())
        gradients = [torch.autograd.grad(out.square().sum(), parameters) for out in (found, network(images))]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_a_rank_above_the_layers_sizes_folds_too(network, images):
    with tuned(network, [lora("outs.0.weight", rank=9)]) as tuning:
        disturb(tuning.parameters)
        adapted = network(images)
        with tuning.folded():
            torch.testing.assert_close(network(images), adapted, rtol=0, atol=1e-5)


def test_training_goes_on_after_sampling(network, images):
    def loss():
        return network(images).square().mean()

    with tuned(network, [lora(*NAMES)]) as tuning:
        optimizer = torch.optim.AdamW(tuning.parameters.values(), lr=3e-2)
        losses = []
        for _ in range(10):
            value = loss()
            losses.append(value.item())
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            with tuning.folded(), torch.no_grad():
                folded = loss().item()
            assert folded == pytest.approx(loss().item(), abs=1e-5)
        assert losses[-1] < 0.5 * losses[0]


def test_the_bias_of_a_wrapped_layer_may_be_tuned_in_full(network, images):
    before = objects(network), bits(network)
    full = ParameterGroup("biases", "full", ("block.to_q.bias", "norm.weight"), 0)
    bias = network.block.to_q.bias
    with tuned(network, [lora("block.to_q.weight"), full]) as tuning:
        assert tuning.parameters.keys() == {
            "block.to_q.bias",
            "norm.weight",
            "block.to_q.weight.lora_A",
            "block.to_q.weight.lora_B",
        }
        assert tuning.parameters["block.to_q.bias"] is bias
        asking = {id(parameter) for parameter in network.parameters() if parameter.requires_grad}
        assert asking == {id(parameter) for parameter in tuning.parameters.values()}
        disturb(tuning.parameters)
        adapted = network(images)
        adapted.square().mean().backward()
        assert all(parameter.grad.any() for parameter in tuning.parameters.values())
        with tuning.folded():
            assert network.block.to_q.bias is bias
            torch.testing.assert_close(network(images), adapted, rtol=0, atol=1e-5)
    assert (objects(network), bits(network)) == before


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_factors_of_half_precision_weights_are_float32(network, dtype):
    network.to(dtype)
    base = network.block.to_q.weight.clone()
    with tuned(network, [lora("block.to_q.weight")]) as tuning:
        assert {parameter.dtype for parameter in tuning.parameters.values()} == {torch.float32}
        assert all(parameter.requires_grad for parameter in tuning.parameters.values())
        assert network.block.to_q(torch.ones(1, 6, dtype=dtype)).dtype is dtype
        disturb(tuning.parameters)
        down, up = tuning.parameters.values()
        with tuning.folded():
            assert network.block.to_q.weight.dtype is dtype
            assert torch.equal(network.block.to_q.weight, (base + up @ down).to(dtype))
    assert torch.equal(network.block.to_q.weight, base)


def test_full_tuning_is_attached_first_and_lora_last():
    assert next(iter(METHODS)) == "full"
    assert list(METHODS)[-1] == "lora"
