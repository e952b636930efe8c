"""What is known of PyTorch's operations, so that a graph of them does less and computes the same to the last bit."""

from __future__ import annotations

import operator

import torch
from torch import fx
from torch._ops import OpOverload

_aten = torch.ops.aten
_SAME = (_aten.detach.default, _aten.alias.default)
_RESHAPED = (_aten.view.default, _aten._unsafe_view.default)
_VIEWS = (_aten.t.default, _aten.transpose.int, *_RESHAPED)
_SCALED = (_aten.div.Tensor, _aten.mul.Tensor)
_SEVERAL = (
    _aten.convolution_backward.default,
    _aten.native_group_norm_backward.default,
    _aten.native_layer_norm_backward.default,
)
"""Operations that compute several gradients; their last argument says which are wanted."""
_BOUND = {
    getattr(getattr(_aten, name), overload): getattr(torch, name)
    for overload, names in {
        "Tensor": ("add", "div", "mul"),
        "default": ("addmm", "baddbmm", "bmm", "cat", "clone", "convolution", "mm", "permute", "t", "unsqueeze"),
        "dim": ("squeeze",),
        "dim_IntList": ("sum",),
        "int": ("transpose",),
    }.items()
    for name in names
} | {getattr(_aten, name).default: getattr(torch, name) for name in ("native_group_norm", "native_layer_norm")}


def changes_its_input(node: fx.Node) -> bool:
    """Whether an operation works in place, so that the order of all that see its input matters."""
    return isinstance(node.target, OpOverload) and node.target._schema.is_mutable


def simplified(graph: fx.Graph) -> None:
    """Take out what changes no number: tensors detached, divided by one, transposed twice, and views there already."""
    seen = dict[tuple[object, ...], fx.Node]()
    for node in list(graph.nodes):
        source = node.args[0] if node.op == "call_function" and node.args else None
        if not isinstance(source, fx.Node):
            continue
        same: object = node
        if node.target in _SAME or (node.target in _SCALED and _by_one(node)):
            same = source
        elif node.target is source.target is _aten.t.default:
            same = source.args[0]
        elif node.target in _VIEWS:
            kind = _RESHAPED[0] if node.target in _RESHAPED else node.target
            same = seen.setdefault((kind, source, str(node.args[1:])), node)
        if isinstance(same, fx.Node) and same is not node:
            node.replace_all_uses_with(same)
            graph.erase_node(node)
    graph.eliminate_dead_code()


def _by_one(node: fx.Node) -> bool:
    """Whether a tensor is scaled by one and stays of its type; diffusers' layers divide by factors that mostly are."""
    source, factor = node.args
    if not isinstance(factor, int | float) or factor != 1:
        return False
    # What a trace holds as a constant has no such facts.
    before, after = (one.meta.get("tensor_meta") if isinstance(one, fx.Node) else None for one in (source, node))
    return before is not None and after is not None and bool(before.dtype == after.dtype)


def narrowed(graph: fx.Graph) -> None:
    """Have operations that compute several gradients leave out those that nothing uses."""
    for node in graph.nodes:
        if node.target in _SEVERAL:
            used = {user.args[1] for user in node.users if user.target is operator.getitem}
            node.args = (*node.args[:-1], [one and place in used for place, one in enumerate(node.args[-1])])


def bound(graph: fx.Graph) -> None:
    """Have operations called by their short ways into PyTorch, which takes a third of a call's own time."""
    for node in graph.nodes:
        if node.target in _RESHAPED:
            node.op, node.target = "call_method", "view"
        elif node.op == "call_function":
            node.target = _BOUND.get(node.target, node.target)
