"""Small unconditional pipelines with random weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

UNET = {
    "sample_size": 16,
    "in_channels": 3,
    "out_channels": 3,
    "layers_per_block": 1,
    "block_out_channels": (8, 16),
    "norm_num_groups": 4,
    "attention_head_dim": 4,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
}


def ddpm(*, scheduler: Mapping[str, Any] | None = None, **unet: Any) -> DDPMPipeline:
    """Two levels on images of 16 pixels, attention in the lower one; other settings of the U-Net by name."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return DDPMPipeline(UNet2DModel(**UNET | unet), DDPMScheduler(**scheduler or {}))
