"""Full tuning trains exactly the chosen parameters, and puts back every bit of them, whatever happens inside."""

import pytest
import torch
from torch import nn

from memcontrol.groups import ParameterGroup
from memcontrol.methods import METHODS, tuned
from memcontrol.methods.full import FullTuning


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)).to(
        memory_format=torch.channels_last
    )


def full(*names):
    return [ParameterGroup("chosen", "full", names, 0)]


def bits(network):
    """Every parameter and buffer, as bytes: NaN and negative zero count too."""
    return {name: tensor.detach().numpy().tobytes() for name, tensor in network.state_dict().items()}


def spoil(parameters):
    with torch.no_grad():
        for parameter in parameters.values():
            parameter.fill_(float("nan"))
            parameter.grad = torch.ones_like(parameter)


def test_the_chosen_parameters_alone_ask_for_gradients(network):
    with tuned(network, full("0.weight", "2.bias")) as tuning:
        asking = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
        assert asking == tuning.parameters.keys() == {"0.weight", "2.bias"}
        assert tuning.parameters["0.weight"] is network[0].weight, "the optimizer needs the U-Net's own tensors"
    assert not any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_touched_parameters_are_restored(network, error):
    before = bits(network)
    layout = network[0].weight.stride()
    try:
        with tuned(network, full("0.weight", "1.weight", "2.bias")) as tuning:
            spoil(tuning.parameters)
            assert bits(network) != before
            if error:
                raise error
    except (RuntimeError, KeyboardInterrupt) as raised:
        assert type(raised) is error  # noqa: PT017 - both ways out are tested alike
    assert bits(network) == before
    assert network[0].weight.stride() == layout
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in network.parameters())


def test_the_same_tensors_are_restored_in_place(network):
    """Whoever holds the parameters (an optimizer, a cached fingerprint) must not be left with others."""
    objects = [id(parameter) for parameter in network.parameters()]
    pointers = [parameter.data_ptr() for parameter in network.parameters()]
    with tuned(network, full("0.weight")) as tuning:
        spoil(tuning.parameters)
    assert [id(parameter) for parameter in network.parameters()] == objects
    assert [parameter.data_ptr() for parameter in network.parameters()] == pointers


def test_nothing_chosen_freezes_everything(network):
    with tuned(network, []) as tuning:
        assert tuning.parameters == {}
        assert not any(parameter.requires_grad for parameter in network.parameters())


def test_an_unknown_parameter_touches_nothing(network):
    before = bits(network)
    with pytest.raises(AttributeError), tuned(network, full("0.weight", "0.other")):
        pass
    assert bits(network) == before
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_full_is_a_known_method():
    assert METHODS["full"] == FullTuning()


def test_there_is_nothing_to_fold(network):
    with tuned(network, full("0.weight")) as tuning:
        with tuning.folded():
            assert network[0].weight is tuning.parameters["0.weight"]
        assert network[0].weight.requires_grad, "training goes on after sampling"
