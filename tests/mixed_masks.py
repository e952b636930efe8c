"""Masks on the shipped pipeline that use every method at once, or one, and tuning that needs no training."""

from __future__ import annotations

import torch

from memcontrol.groups import parameter_groups
from memcontrol.mask import Mask
from memcontrol.mask_records import ModelIdentity
from memcontrol.space import SearchSpace

PARTS = {
    "full": {"select": ["conv_in.*"], "name": "ends"},
    "svdiff": {"select": ["*.to_q.weight", "*.resnets.0.conv1.weight"], "method": "svdiff", "name": "shifted"},
    # With a bias (to_out) and without (to_v).
    "difffit": {"select": ["*.to_v.weight", "*.to_out.0.weight"], "method": "difffit", "name": "scaled"},
    "lora": {"select": ["*.to_k.weight"], "method": "lora", "rank": 2, "name": "low-rank"},
}


def mask_of(unet, *methods, model="tiny", **given):
    """A mask whose groups, one of each method, are on; the last convolution is a group that is off."""
    off = {"select": ["conv_out.*"], "name": "last"}
    space = SearchSpace.model_validate(
        {
            "schema": "memcontrol/search-space@1",
            "name": "mixed",
            "learning_rate": 1e-3,
            "parts": [*(PARTS[method] for method in methods), off],
        }
    )
    groups = parameter_groups(space, unet)
    return Mask.build(
        space,
        groups,
        [group.name != "last" for group in groups],
        model=ModelIdentity.of(unet, model),
        unet_numel=sum(parameter.numel() for parameter in unet.parameters()),
        **({"learning_rate": 1e-2} | given),
    )


def disturb(parameters):
    """Change parameters as a training would, each by its own seeded noise."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


def predicted(unet):
    """What the U-Net makes of one fixed input."""
    generator = torch.Generator().manual_seed(4)
    size = (2, unet.config["in_channels"], 8, 8)
    latents, text = torch.randn(size, generator=generator), torch.randn(2, 5, 48, generator=generator)
    kind = next(unet.parameters()).dtype
    with torch.no_grad():
        return unet(latents.to(kind), torch.tensor([20, 700]), text.to(kind)).sample
