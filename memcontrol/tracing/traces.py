"""A U-Net that does its operations without its Python, once it has been called alike often enough."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import fx, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call

from memcontrol.tracing.graphs import Pass, Passes, passes, traced_gradients, traced_prediction

OFTEN = 100
"""Calls of a kind before it is traced: tracing takes as long as some 300 calls of a small U-Net save."""
SMALL = 2**21
"""Numbers of a U-Net, at most, for its tensors to be made anew at each call: of larger ones that takes longer."""
LISTENERS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
Kind = tuple[object, ...]
"""Whether gradients are wanted, the U-Net's data type, and each input's shape, strides and data type."""
Tensors = Sequence[torch.Tensor]
Changed = Callable[[], Mapping[str, torch.Tensor]]
"""Gives the plain U-Net's tensors that attached methods change, by name, as functions of what they train."""


class Traces:
    """A U-Net's operations on a CPU, traced once for each kind of call that is made often.

    A small U-Net's operations take some ten microseconds each, and Python and autograd some more around each. A trace
    has the operations alone, forward and backward, and of the backward pass what a mask's gradients need. It gives
    the same bits as the U-Net: whether it does is tried on the call that it is made for, and else it is not used.

    While methods are attached to a small U-Net, the plain U-Net is computed on the tensors that they make, or its
    trace, which serves all of them.

    Args:
        unet: a plain one, with nothing attached.

    Attributes:
        refused: kinds of call that the U-Net itself goes on with, and why.
    """

    def __init__(self, unet: Any) -> None:
        self.unet = unet
        self.refused: dict[Kind, str] = {}
        # For tracing while the U-Net has something attached: its modules, on tensors of no memory.
        memory = {id(one): nn.Parameter(one.detach().to("meta"), requires_grad=False) for one in unet.parameters()}
        self._plain = copy.deepcopy(unet, memory)
        self._changed: Changed | None = None
        self._modules = dict(unet.named_modules())
        layers = [module for module in self._modules.values() if module is not unet]
        # Looked at in each call: dictionaries themselves, which is ten times faster than asking the layers.
        self._own_facts = [vars(layer) for layer in layers]
        self._listeners = [facts[name] for facts in self._own_facts for name in LISTENERS]
        self._names = tuple(name for name, _ in unet.named_parameters())
        places = (name.rpartition(".") for name in self._names)
        self._places = tuple((self._modules[module], leaf) for module, _, leaf in places)
        self._calls = Counter[Kind]()
        self._predictions: dict[Kind, Pass] = {}
        self._gradients: dict[Kind, fx.GraphModule] = {}
        self._wanted: tuple[int, ...] = ()
        self._passes: dict[Kind, Passes] = {}

    @contextmanager
    def replayed(self, changed: Changed | None = None) -> Iterator[None]:
        """Inside, calls of the U-Net are replayed where they are traced: on a CPU, and if nothing unknown is attached.

        Args:
            changed: what methods that are attached make of the plain U-Net's tensors. The plain U-Net is computed with
                those then, traced or not, which differs from the attached one's by rounding. Not of a U-Net that is
                large or of half precision, in which a small change of a tensor would be rounded away.
        """
        own, whole = vars(self.unet).get("forward"), self._is_whole()
        known = whole or (changed is not None and self._is_made_soon())
        if self.unet.device.type != "cpu" or own not in (None, self._forward) or not known:
            yield
            return
        before, self._changed = self._changed, None if whole else changed
        self.unet.forward = self._forward
        try:
            yield
        finally:
            self._changed = before
            if own is None:
                del self.unet.forward

    def _is_whole(self) -> bool:
        """Whether the U-Net has the modules and parameters that it was made of."""
        names = tuple(name for name, _ in self.unet.named_parameters())
        return dict(self.unet.named_modules()) == self._modules and names == self._names

    def _is_made_soon(self) -> bool:
        """Whether tensors that attached methods change may be made anew at each call."""
        exact = {one.dtype for one in self.unet.parameters()} == {torch.float32}
        return exact and sum(map(torch.numel, self._plain.parameters())) <= SMALL

    def _is_plain(self) -> bool:
        """Whether its layers do what their classes say, keep what they compute, and nobody listens to them.

        What methods that are attached have layers do is known.
        """
        if any(self._listeners):
            return False
        if self._changed is None and any("forward" in facts for facts in self._own_facts):
            return False
        return not any(
            "gradient_checkpointing" in facts and facts["gradient_checkpointing"] for facts in self._own_facts
        )

    def _forward(self, *inputs: Any, return_dict: bool = True, **others: Any) -> Any:
        if return_dict or others or not _is_all(inputs) or not self._is_plain():
            return self._own(*inputs, return_dict=return_dict, **others)
        tensors = self._tensors()
        values = (*tensors, *inputs)
        asked = torch.is_grad_enabled()
        wanted = tuple(place for place, tensor in enumerate(tensors) if asked and tensor.requires_grad)
        kind = (bool(wanted), tensors[0].dtype, *((one.shape, one.stride(), one.dtype) for one in inputs))
        if not wanted:
            if kind not in self._predictions and not self._tried(kind, wanted, values):
                return self._plainly(values)
            with torch.no_grad():
                return self._predictions[kind](*values)
        if wanted != self._wanted:
            self._wanted, self._passes = wanted, {}
        if kind not in self._passes and not self._tried(kind, wanted, values):
            return self._plainly(values)
        trained = (tensors[place] for place in wanted)
        return (_Replay.apply(self._passes[kind], values, *trained),)  # type: ignore[no-untyped-call]

    def _tensors(self) -> list[torch.Tensor]:
        """The plain U-Net's tensors, in their order."""
        if self._changed is None:
            return [module._parameters[leaf] for module, leaf in self._places]
        changed = self._changed()
        places = zip(self._names, self._places, strict=True)
        return [changed[name] if name in changed else module._parameters[leaf] for name, (module, leaf) in places]

    def _plainly(self, values: Tensors) -> Any:
        """What the plain U-Net gives on tensors and inputs, to the last bit as a trace of it does."""
        inputs = tuple(values[len(self._names) :])
        if self._changed is None:
            return self._own(*inputs, return_dict=False)
        return functional_call(
            self._plain, dict(zip(self._names, values, strict=False)), inputs, {"return_dict": False}
        )

    @property
    def _traceable(self) -> Any:
        """What is traced: the U-Net, or with something attached the plain one."""
        return self.unet if self._changed is None else self._plain

    def _own(self, *inputs: Any, **others: Any) -> Any:
        """What the U-Net itself does."""
        return type(self.unet).forward(self.unet, *inputs, **others)

    def _tried(self, kind: Kind, wanted: tuple[int, ...], values: Tensors) -> bool:
        """Whether a call has a trace now, having been made often enough."""
        self._calls[kind] += 1
        if self._calls[kind] <= OFTEN or kind in self.refused:
            return False
        del self.unet.forward
        try:
            reason = self._traced(kind, wanted, values) if wanted else self._traced_prediction(kind, values)
        except (RuntimeError, TypeError, ValueError, LookupError, AssertionError) as error:  # as tracing raises
            reason = f"{type(error).__name__}: {error}"
        finally:
            self.unet.forward = self._forward
        if reason:
            self.refused[kind] = reason
        return not reason

    def _traced_prediction(self, kind: Kind, values: Tensors) -> str:
        """Trace a call without gradients; why it may not be used, where it may not."""
        found = traced_prediction(self._traceable, self._names, values)
        with torch.no_grad():
            if not _same(self._plainly(values), found(*values)):
                return "the trace predicts otherwise"
        self._predictions[kind] = found
        return ""

    def _traced(self, kind: Kind, wanted: tuple[int, ...], values: Tensors) -> str:
        """Trace a call with gradients, for all masks, and cut it to this one's; why it may not be used."""
        if kind in self._gradients:
            self._passes[kind] = passes(self._gradients[kind], wanted)
            return ""
        (own,) = self._plainly(values)
        given = own.detach()
        gradients = torch.autograd.grad(own, [values[place] for place in wanted], given, allow_unused=True)
        joint = traced_gradients(self._traceable, self._names, values, given)
        found = passes(joint, wanted)
        with torch.no_grad():
            predicted, *kept = found.forward(*values)
            replayed = predicted, *found.backward(*kept, given)
        if not _same((own, *gradients), replayed):
            return "the trace has other gradients"
        self._gradients[kind], self._passes[kind] = joint, found
        return ""


class _Replay(torch.autograd.Function):
    """A traced prediction, as autograd sees it: one operation on the tensors that train."""

    @staticmethod
    def forward(ctx: Any, passes: Passes, values: Tensors, *_trained: torch.Tensor) -> torch.Tensor:
        predicted, *kept = passes.forward(*values)
        ctx.save_for_backward(*kept)
        ctx.backwards = passes.backward
        return cast(torch.Tensor, predicted)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return None, None, *ctx.backwards(*ctx.saved_tensors, given.contiguous())


def _is_all(inputs: Sequence[object]) -> bool:
    """Whether a call's inputs are all that its operations depend on, and gradients end at the U-Net's tensors."""
    return not torch.is_autocast_enabled("cpu") and all(
        isinstance(one, torch.Tensor) and not one.requires_grad for one in inputs
    )


def _same(ones: Sequence[torch.Tensor | None], others: Sequence[torch.Tensor | None]) -> bool:
    """Whether tensors are equal to the last bit."""
    return all(
        one is other if one is None or other is None else torch.equal(one, other)
        for one, other in zip(ones, others, strict=True)
    )
