"""Many tensors as views of one: an optimizer's step costs a few operations on it, and not some on each of hundreds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import compress
from operator import not_

import torch

ALIGNED = 64
"""Bytes at whose multiples tensors begin, as those that PyTorch allocates do; what is in between stays zero."""


class FlatTensors:
    """Parameters of one data type and device, their values side by side in one parameter.

    The model goes on with its own parameter objects, whose data are views from `hold` until `release`.

    Attributes:
        parameters: the model's own.
        joined: `(N,)` their values one after another; its gradient is there always.
    """

    def __init__(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        self.parameters = tuple(parameters)
        first = self.parameters[0]
        step = max(1, ALIGNED // first.element_size())
        sizes = [-(-parameter.numel() // step) * step for parameter in self.parameters]
        self.joined = torch.nn.Parameter(torch.zeros(sum(sizes), dtype=first.dtype, device=first.device))
        self.joined.grad = torch.zeros_like(self.joined)
        self._values = list(self.views(self.joined.data))
        self._addresses = [value.data_ptr() for value in self._values]
        self._gradients = list(self.views(self.joined.grad))
        self.hold()

    def views(self, joined: torch.Tensor) -> Iterator[torch.Tensor]:
        """The parts of a tensor that is laid out as `joined`, each in its parameter's shape and order of memory."""
        step, begin = max(1, ALIGNED // joined.element_size()), 0
        for parameter in self.parameters:
            part = joined[begin : begin + parameter.numel()]
            dense = parameter.is_contiguous() or (
                parameter.dim() == 4 and parameter.is_contiguous(memory_format=torch.channels_last)
            )
            yield torch.as_strided(part, parameter.shape, parameter.stride()) if dense else part.view(parameter.shape)
            begin += -(-parameter.numel() // step) * step

    @torch.no_grad()
    def hold(self) -> None:
        """Have the model's parameters be views, their values as they are; again where others took them since."""
        for parameter, value, address in zip(self.parameters, self._values, self._addresses, strict=True):
            if parameter.data_ptr() != address:
                value.copy_(parameter)
                parameter.data = value

    @torch.no_grad()
    def gather(self) -> None:
        """Bring the parameters' gradients into the joined one's; zero where there is none."""
        views = self._gradients
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        if len(gradients) < len(views):
            there = [parameter.grad is not None for parameter in self.parameters]
            for view in compress(views, map(not_, there)):
                view.zero_()
            views = list(compress(views, there))
        if gradients:
            torch._foreach_copy_(views, gradients)

    @torch.no_grad()
    def release(self) -> None:
        """Give the parameters memory of their own again, but those that others took since."""
        for parameter, value, address in zip(self.parameters, self._values, self._addresses, strict=True):
            if parameter.data_ptr() == address:
                parameter.data = value.clone()


def flat(parameters: Sequence[torch.nn.Parameter]) -> tuple[FlatTensors, ...]:
    """One for each data type and device among the parameters, in the order in which those first come."""
    kinds: dict[tuple[torch.dtype, torch.device], list[torch.nn.Parameter]] = {}
    for parameter in parameters:
        kinds.setdefault((parameter.dtype, parameter.device), []).append(parameter)
    return tuple(FlatTensors(group) for group in kinds.values())
