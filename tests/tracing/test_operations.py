"""A graph that was simplified does less, and computes the same."""

import operator

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from memcontrol.tracing.operations import bound, narrowed, simplified

aten = torch.ops.aten


def traced(function, *given):
    return make_fx(function)(*given)


def targets(graph):
    return [node.target for node in graph.nodes if node.op == "call_function"]


def simpler(function, *given):
    """Operations that are left; what they compute is compared."""
    module = traced(function, *given)
    simplified(module.graph)
    module.recompile()
    assert torch.equal(module(*given), function(*given))
    return targets(module.graph)


@pytest.mark.parametrize(
    ("function", "left"),
    [
        (lambda x: x.detach() + x, ["add"]),
        (lambda x: (x / 1.0) + (x * 1), ["add"]),
        (lambda x: (x / 2.0) + x, ["div", "add"]),
        (lambda x: x.t().t() + x, ["add"]),
        (lambda x: x.t() @ x + x.t() @ x, ["t", "mm", "mm", "add"]),
        (lambda x: x.view(9) + x.view(9), ["view", "add"]),
        (lambda x: x.view(9)[:3] + x.view(3, 3)[0], None),
    ],
    ids=["detached", "by one", "by two", "transposed twice", "one transpose", "one view", "two views"],
)
def test_what_changes_no_number_is_left_out(function, left):
    found = simpler(function, torch.arange(9.0).view(3, 3))
    assert left is None or [str(target).split(".")[1] for target in found] == left


def test_a_whole_number_divided_by_one_becomes_a_fraction():
    assert aten.div.Tensor in simpler(lambda x: x / 1, torch.arange(4))


def test_a_constant_that_a_trace_holds_is_left_alone():
    constant = torch.arange(9.0).view(3, 3)
    simpler(lambda x: constant * 1 + constant.t() * x, torch.ones((3, 3)))


def test_gradients_that_nothing_uses_are_not_computed():
    layer = torch.nn.Conv2d(2, 3, 3)

    def gradient(given, weight, bias):
        made = torch.nn.functional.conv2d(given, weight, bias)
        return torch.autograd.grad(made.square().sum(), weight)

    values = (torch.randn((1, 2, 5, 5), requires_grad=True), layer.weight, layer.bias)
    module = traced(gradient, *values)
    (backward,) = module.graph.find_nodes(op="call_function", target=aten.convolution_backward.default)
    module.graph.eliminate_dead_code()
    for user in [node for node in backward.users if node.target is operator.getitem and node.args[1] != 1]:
        assert not user.users
    narrowed(module.graph)
    assert backward.args[-1] == [False, True, False]
    module.recompile()
    assert torch.equal(module(*values)[0], gradient(*values)[0])


def test_short_ways_compute_the_same():
    def work(x):
        return (torch.cat([x, x.t()]) @ x).view(-1).unsqueeze(0) * 3 + 1

    given = torch.randn((4, 4))
    module = traced(work, given)
    bound(module.graph)
    module.recompile()
    assert not any(isinstance(target, torch._ops.OpOverload) for target in targets(module.graph))
    assert torch.equal(module(given), work(given))
