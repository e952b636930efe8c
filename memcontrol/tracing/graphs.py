"""A U-Net's operations as graphs: all of them traced once, then cut to the gradients that are wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import fx
from torch.func import functional_call

from memcontrol.tracing.operations import bound, changes_its_input, narrowed, simplified

Pass = Callable[..., tuple[torch.Tensor | None, ...]]


class UntraceableError(RuntimeError):
    """What a U-Net does cannot be written down as a graph that computes the same for other values."""


@dataclass(frozen=True)
class Passes:
    """A forward pass, and the backward pass to some of the tensors.

    Attributes:
        forward: the tensors and the U-Net's inputs -> the prediction, then what the backward pass needs.
        backward: that, then the gradient of the prediction -> the gradients; None for what the prediction does not
            depend on.
    """

    forward: Pass
    backward: Pass


def traced_prediction(unet: torch.nn.Module, names: Sequence[str], values: Sequence[torch.Tensor]) -> Pass:
    """A U-Net's forward pass alone: its tensors `names`, then its inputs -> the prediction, in a tuple.

    Args:
        values: tensors and inputs of the shapes and strides that the pass is for.

    Raises:
        UntraceableError: an operation changes its input.
    """

    def predict(*values: torch.Tensor) -> tuple[torch.Tensor]:
        return (_predicted(unet, names, values),)

    with torch.no_grad():
        graph = _traced(predict, values)
    return _compiled(graph, graph.graph)


def traced_gradients(
    unet: torch.nn.Module, names: Sequence[str], values: Sequence[torch.Tensor], given: torch.Tensor
) -> fx.GraphModule:
    """A U-Net's forward pass and the gradients of all tensors in one graph, from which `passes` takes what it needs.

    Its inputs are the tensors `names`, the U-Net's inputs, and the prediction's gradient.

    Args:
        values: tensors and inputs of the shapes and strides that the graph is for.
        given: a gradient of the prediction's shape.

    Raises:
        UntraceableError: an operation changes its input.
    """

    def joint(*values: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        predicted = _predicted(unet, names, values[:-1])
        gradients = torch.autograd.grad(predicted, values[: len(names)], values[-1], allow_unused=True)
        return predicted, *gradients

    leaves = [value.detach().requires_grad_(place < len(names)) for place, value in enumerate(values)]
    with torch.enable_grad():
        return _traced(joint, (*leaves, given))


def passes(joint: fx.GraphModule, wanted: Sequence[int]) -> Passes:
    """What the gradients of the tensors at these places need of a graph of `traced_gradients`, in two parts.

    The first part is all that does not depend on the prediction's gradient.
    """
    *_, given = joint.graph.find_nodes(op="placeholder")
    (output,) = joint.graph.find_nodes(op="output")
    predicted, *gradients = output.args[0]
    asked = [gradients[place] for place in wanted]
    needed = _behind([predicted, *asked])
    after = {given}
    for node in joint.graph.nodes:
        if node in needed and not after.isdisjoint(node.all_input_nodes):
            after.add(node)
    before = [node for node in joint.graph.nodes if node not in after and (node in needed or node.op == "placeholder")]
    wanted_themselves = set(asked)
    kept = [node for node in before if node in wanted_themselves or not after.isdisjoint(node.users)]
    forward, backward = fx.Graph(), fx.Graph()
    copies = _copied(before, forward, {})
    forward.output((copies[predicted], *(copies[node] for node in kept)))
    inputs = {node: backward.placeholder(f"kept_{place}") for place, node in enumerate(kept)}
    inputs[given] = backward.placeholder("given")
    copies = _copied([node for node in joint.graph.nodes if node in after], backward, inputs)
    backward.output(tuple(None if node is None else copies[node] for node in asked))
    narrowed(backward)
    return Passes(_compiled(joint, forward), _compiled(joint, backward))


def _predicted(unet: torch.nn.Module, names: Sequence[str], values: Sequence[torch.Tensor]) -> torch.Tensor:
    tensors, inputs = dict(zip(names, values, strict=False)), tuple(values[len(names) :])
    predicted: torch.Tensor = functional_call(unet, tensors, inputs, {"return_dict": False})[0]
    return predicted


def _traced(function: Callable[..., object], values: Sequence[torch.Tensor]) -> fx.GraphModule:
    """The function is done once on these values, so that what depends on their layout is traced as it is done."""
    from torch._guards import TracingContext, tracing
    from torch._subclasses import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx

    # Every result's shape is noted; without this context each in a world of its own, which takes most of the time.
    with tracing(TracingContext(FakeTensorMode(allow_fallback_kernels=True))):
        graph = make_fx(function)(*values)
    for node in graph.graph.nodes:
        if changes_its_input(node):
            raise UntraceableError(f"{node.target} changes its input")
    simplified(graph.graph)
    return graph


def _behind(nodes: Iterable[fx.Node | None]) -> set[fx.Node]:
    """The nodes and all that they are computed from."""
    found, left = set[fx.Node](), [node for node in nodes if node is not None]
    while left:
        node = left.pop()
        if node not in found:
            found.add(node)
            left.extend(node.all_input_nodes)
    return found


def _copied(nodes: Iterable[fx.Node], graph: fx.Graph, known: Mapping[fx.Node, fx.Node]) -> Mapping[fx.Node, fx.Node]:
    copies = dict(known)
    for node in nodes:
        if node not in copies:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    return copies


def _compiled(root: torch.nn.Module, graph: fx.Graph) -> Pass:
    """A graph as a Python function. Unlike a `GraphModule`'s, its source is not kept for good."""
    bound(graph)
    code = graph.python_code("self")
    namespace = dict(code.globals)
    exec(code.src, namespace)
    return partial(namespace["forward"], root)
