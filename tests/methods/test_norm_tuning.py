"""Evidence that method `full` on the norms is peft's norm tuning (LNTuning), so that it needs no method of its own."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from memcontrol.groups import parameter_groups
from memcontrol.methods import tuned
from memcontrol.space import SearchSpace

NORMS = SearchSpace.model_validate(
    {
        "schema": "memcontrol/search-space@1",
        "name": "norms",
        "learning_rate": 1e-3,
        "parts": [{"select": ["*norm*"], "name": "norms"}],
    }
)


def stepped(unet, parameters, kind):
    """Three optimizer steps on the same inputs and targets."""
    generator = torch.Generator().manual_seed(0)
    latents, text, target = (
        torch.randn(size, generator=generator) for size in ((2, 8, 8, 8), (2, 5, 48), (2, 8, 8, 8))
    )
    optimizer = kind(parameters, lr=1e-2)
    for timestep in (10, 300, 900):
        loss = (unet(latents, timestep, text).sample - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


# peft asks every layer for its inputs and outputs, and says so where a layer has none, as a norm.
@pytest.mark.filterwarnings("ignore:Unsupported layer type:UserWarning")
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_full_on_the_norms_is_pefts_norm_tuning_bit_for_bit(tiny, kind):
    from peft import LNTuningConfig, get_peft_model

    norms = {
        name: module for name, module in tiny.unet.named_modules() if isinstance(module, nn.GroupNorm | nn.LayerNorm)
    }
    assert {type(module) for module in norms.values()} == {nn.GroupNorm, nn.LayerNorm}
    (group,) = parameter_groups(NORMS, tiny.unet)
    before = {name: tiny.unet.get_parameter(name).clone() for name in group.parameters}

    copied = deepcopy(tiny.unet)
    get_peft_model(copied, LNTuningConfig(target_modules=list(norms)))
    theirs = {
        f"{name}.{leaf}": parameter
        for name in norms
        for leaf, parameter in copied.get_submodule(f"{name}.ln_tuning_layers.default").named_parameters()
    }
    asking = {id(parameter) for parameter in copied.parameters() if parameter.requires_grad}
    assert asking == {id(parameter) for parameter in theirs.values()}
    stepped(copied, theirs.values(), kind)

    with tuned(tiny.unet, [group]) as tuning:
        assert tuning.parameters.keys() == theirs.keys()
        stepped(tiny.unet, tuning.parameters.values(), kind)
        for name, parameter in tuning.parameters.items():
            assert torch.equal(parameter, theirs[name]), name
            assert not torch.equal(parameter, before[name]), name
