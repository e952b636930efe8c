"""Operations and bytes counted without weights, against published figures and against real passes."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from memcontrol.pipeline.outline import PipelineOutline, load_outline
from memcontrol.planning.counting import image_cost, training_cost


@pytest.fixture(scope="module")
def sd15():
    """Stable Diffusion 1.5 at 224 pixels, without weights."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=28, cross_attention_dim=768, attention_head_dim=8).eval()
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
        ).eval()
        text = transformers.CLIPTextModel(
            transformers.CLIPTextConfig(
                hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12
            )
        )
    return PipelineOutline(Path(), unet, vae, text, 77, 224, (4, 28, 28))


@pytest.fixture(scope="module")
def tiny_outline():
    return load_outline("tiny")


@pytest.fixture(scope="module")
def whole(tiny_outline):
    """The cost of training everything in it."""
    return training_cost(tiny_outline, every_name(tiny_outline))


def every_name(outline):
    return [name for name, _ in outline.unet.named_parameters()]


def test_stable_diffusion_at_224_pixels_costs_what_was_counted_for_it(sd15):
    cost = image_cost(sd15)
    assert sum(p.numel() for p in sd15.unet.parameters()) == 859_520_964
    # TFLOP: U-Net forward 0.140, forward and backward 0.416, encoding 0.208, decoding 0.476, text encoder 0.013.
    assert cost.forward / 1e12 == pytest.approx(0.140, abs=5e-4)
    assert cost.decode / 1e12 == pytest.approx(0.476, abs=5e-4)
    assert cost.encode / 1e12 == pytest.approx(0.208, abs=5e-4)
    assert cost.text / 1e12 == pytest.approx(0.013, abs=5e-4)
    assert training_cost(sd15, every_name(sd15)).flops / 1e12 == pytest.approx(0.416, abs=5e-4)


def test_counts_without_weights_are_those_of_a_real_pass(tiny, tiny_outline):
    latents = torch.zeros(1, *tiny_outline.latent_shape)
    text = torch.zeros(1, tiny_outline.text_length, tiny_outline.text_width)
    # The counter knows no fused attention on CPUs.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        tiny.unet(latents, torch.zeros(1, dtype=torch.long), text)
    assert image_cost(tiny_outline).forward == counter.get_total_flops()


def test_fewer_trained_parameters_cost_less_than_all_and_more_than_forward_alone(tiny_outline, whole):
    part = training_cost(tiny_outline, [name for name in every_name(tiny_outline) if "attentions" in name])
    assert image_cost(tiny_outline).forward < part.flops < whole.flops
    assert part.saved_bytes <= whole.saved_bytes
    assert not any(parameter.requires_grad for parameter in tiny_outline.unet.parameters())


def test_checkpointing_keeps_less_and_computes_more(tiny_outline, whole):
    names = every_name(tiny_outline)
    again = training_cost(tiny_outline, names, checkpointing=True)
    assert again.saved_bytes < whole.saved_bytes / 2
    assert again.flops > whole.flops
    assert training_cost(tiny_outline, names) == whole, "checkpointing is off again"


def test_activations_grow_with_the_latents(tiny_outline, whole):
    channels, height, width = tiny_outline.latent_shape
    larger = replace(tiny_outline, latent_shape=(channels, 2 * height, 2 * width))
    assert training_cost(larger, every_name(larger)).saved_bytes > 3 * whole.saved_bytes


def test_an_unconditional_model_has_no_text_and_no_autoencoder(ddpm_folders):
    outline = load_outline(str(ddpm_folders[3]))
    cost = image_cost(outline)
    assert (cost.encode, cost.decode, cost.text, cost.decode_bytes) == (0, 0, 0, 0)
    assert training_cost(outline, every_name(outline)).flops > cost.forward > 0
