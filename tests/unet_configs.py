"""U-Nets of published size, built without weights from their public configurations."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from diffusers import UNet2DConditionModel, UNet2DModel
from torch import nn

from memcontrol.pipeline import SHIPPED, load_unet

FOUR_LEVELS: dict[str, Any] = {
    "in_channels": 4,
    "out_channels": 4,
    "layers_per_block": 2,
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
}
CONFIGS: dict[str, dict[str, Any]] = {
    "SD 1.5": FOUR_LEVELS | {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8},
    "SD 2.1": FOUR_LEVELS
    | {
        "sample_size": 96,
        "cross_attention_dim": 1024,
        "attention_head_dim": (5, 10, 20, 20),
        "use_linear_projection": True,
    },
    "SDXL": {
        "sample_size": 128,
        "in_channels": 4,
        "out_channels": 4,
        "layers_per_block": 2,
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
}
UNCONDITIONAL: dict[str, Any] = {
    "sample_size": 32,
    "layers_per_block": 2,
    "block_out_channels": (128, 256, 256),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "num_class_embeds": 10,
}
MODELS = (*SHIPPED, *CONFIGS)


@lru_cache
def unet_of(model: str) -> nn.Module:
    """A shipped U-Net, one of published size without values, or an `unconditional` one with attention layers."""
    if model in SHIPPED:
        return load_unet(model)
    with torch.device("meta"):
        if model == "unconditional":
            return UNet2DModel(**UNCONDITIONAL)
        return UNet2DConditionModel(**CONFIGS[model])


@lru_cache
def numel_of(model: str) -> int:
    """Numbers in the whole U-Net."""
    return sum(parameter.numel() for parameter in unet_of(model).parameters())
