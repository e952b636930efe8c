"""Each sample's gradient through opacus, and their clipped and noised sum in the place of a batch's gradient."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch

from memcontrol.errors import MemControlError
from memcontrol.mitigations.privacy_accounting import PoissonBatches, check_opacus

LAYERS = (torch.nn.Linear, torch.nn.Conv2d, torch.nn.GroupNorm, torch.nn.LayerNorm)
"""Layers of which opacus knows each sample's gradient."""
NOISE_STREAM = 622
"""It keeps these random numbers apart from all others of a seed."""


class NoisyGradients:
    """A `BeforeStep` of one training: the clipped and noised sum of the samples' gradients, over the batch size."""

    def __init__(
        self,
        tensors: list[torch.nn.Parameter],
        *,
        noise: float,
        clip: float,
        batch: int,
        seed: int,
        drawn: PoissonBatches | None = None,
    ) -> None:
        from opacus.optimizers import DPOptimizer

        self.seed, self.drawn, self.step = seed, drawn, 0
        # It is never asked to step: what trains is the caller's optimizer.
        self.opacus = DPOptimizer(
            torch.optim.SGD(tensors, lr=0.0),
            noise_multiplier=noise,
            max_grad_norm=min(clip, float(torch.finfo(torch.float32).max)),
            expected_batch_size=batch,
        )

    def __call__(self, parameters: Mapping[str, torch.nn.Parameter]) -> None:
        """Replace the gradients; noise depends on seed and step alone, and on the device."""
        tensors: list[Any] = list(parameters.values())
        if self.drawn is not None and not len(self.drawn.drawn(self.step)):
            for tensor in tensors:
                tensor.grad_sample = tensor.grad_sample[:0]
        seed = np.random.SeedSequence([self.seed, NOISE_STREAM, self.step]).generate_state(1, np.uint64)[0] >> 1
        self.opacus.generator = torch.Generator(tensors[0].device).manual_seed(int(seed))
        self.opacus.pre_step()
        for tensor in tensors:
            tensor.grad_sample = tensor.summed_grad = None
        self.step += 1

    def state_dict(self) -> dict[str, int]:
        """How many steps were taken: noise depends on it."""
        return {"step": self.step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from the step of `state_dict`."""
        self.step = int(state["step"])


@contextmanager
def per_sample(unet: torch.nn.Module, parameters: Mapping[str, torch.nn.Parameter]) -> Iterator[None]:
    """Inside, a backward pass leaves each trained parameter's `grad_sample`, `(B, ...)`.

    Raises:
        MemControlError: a parameter that is not the weight or bias of one of `LAYERS`.
        MissingPackageError: opacus is not installed.
    """
    check_opacus()
    from opacus.grad_sample.grad_sample_module import GradSampleHooks

    layers = _layers(unet, parameters)
    with ExitStack() as stack:
        stack.callback(_forget, layers, parameters)
        for layer in layers:
            stack.callback(layer.register_forward_pre_hook(_differentiable).remove)
            stack.callback(setattr, layer, "training", layer.training)
            # opacus watches layers in training alone; these compute alike either way.
            layer.training = True
        stack.callback(GradSampleHooks(unet).cleanup)
        yield


def _forget(layers: list[torch.nn.Module], parameters: Mapping[str, torch.nn.Parameter]) -> None:
    """Remove what opacus leaves on layers and parameters."""
    for layer in layers:
        for name in ("activations", "max_batch_len", "autograd_grad_sample_hooks"):
            vars(layer).pop(name, None)
    for parameter in parameters.values():
        vars(parameter).pop("summed_grad", None)


def _differentiable(_layer: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Inputs with gradients of their own: torch warns of watched layers whose inputs have none."""
    if not torch.is_grad_enabled():
        return inputs
    return tuple(one if one.requires_grad else one.detach().requires_grad_() for one in inputs)


def _layers(unet: torch.nn.Module, parameters: Mapping[str, torch.nn.Parameter]) -> list[torch.nn.Module]:
    """The layers that hold the parameters as weight or bias."""
    holders = {
        id(parameter): layer
        for layer in unet.modules()
        if type(layer) in LAYERS
        for name, parameter in layer.named_parameters(recurse=False)
        if name in ("weight", "bias")
    }
    unknown = [name for name, parameter in parameters.items() if id(parameter) not in holders]
    if unknown:
        raise MemControlError(
            f"differential privacy: each sample's gradient is known for weights and biases of Linear, Conv2d, "
            f"GroupNorm and LayerNorm alone, and not for {unknown[0]} ({len(unknown)} such): tune by full or lora"
        )
    return list({id(layer): layer for layer in (holders[id(one)] for one in parameters.values())}.values())
