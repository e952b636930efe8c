"""Pretrain one tiny U-Net on the latents of digits and faces, and save the whole pipeline.

    python experiments/pretrain_tiny/unet.py tiny --out memcontrol/assets/tiny
    python experiments/pretrain_tiny/unet.py tiny-sd --out memcontrol/assets/tiny-sd

Needs the autoencoder of `autoencoder.py`. Resumes from its last checkpoint; each step is a function of (seed, step).
"""

import argparse
import logging
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from autoencoder import HERE, augmented, schedule, to_model
from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.training_utils import EMAModel
from text import build_text_encoder, build_tokenizer
from transformers import CLIPTextModel, CLIPTokenizer

from memcontrol.data.digits import digit_images
from memcontrol.data.faces import face_images

CHECKPOINT_EVERY = 1000
COPIES = {"faces": 40, "digits": 3}
"""Shifted (and, for faces, mirrored) copies of each image that are encoded once and drawn from."""
CAPTION_DROPOUT = 0.1
NOISE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "prediction_type": "v_prediction",
}
"""DDPM's schedule, and the velocity as target. Stable Diffusion 1.5's schedule leaves 0.5 % of the signal's power at
the last step: on 8x8 latents that tells a digit from a face, so that samples, which start from pure noise, followed the
noise and not the caption. Without that leak, predicting the noise gave blank or saturated images: its errors at the
first sampling step are multiplied by 150."""

log = logging.getLogger("pretrain")


def encoded_sources(config: dict[str, Any], vae: AutoencoderKL, work: Path) -> dict[str, Any]:
    """Latent means and captions of the augmented images; scaled to unit variance by the returned factor."""
    path = work / "latents.pt"
    if not path.exists():
        rng = np.random.default_rng([config["seed"], 20])
        means, captions, group = [], [], []
        for number, (name, images) in enumerate(
            [
                ("faces", face_images(config["resolution"], pretraining=True)),
                ("digits", digit_images(config["resolution"], pretraining=True)),
            ]
        ):
            for _ in range(COPIES[name]):
                pixels = augmented(images.pixels()[..., 0], rng, flip=name == "faces")
                with torch.no_grad():
                    for start in range(0, len(pixels), 64):
                        batch = to_model(pixels[start : start + 64])
                        means.append(vae.encode(batch).latent_dist.mean)
                captions.extend(images.captions)
                group.extend([number] * len(pixels))
        latents = torch.cat(means)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        torch.save({"latents": latents, "captions": captions, "group": torch.tensor(group)}, partial)
        partial.replace(path)
    stored: dict[str, Any] = torch.load(path)
    stored["factor"] = float(1 / stored["latents"].std())
    return stored


def build_unet(settings: dict[str, Any], latent_channels: int, text_width: int) -> UNet2DConditionModel:
    channels = tuple(settings["block_out_channels"])
    attention = len(channels) if len(channels) < 4 else 3
    plain = len(channels) - attention
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=latent_channels,
        out_channels=latent_channels,
        block_out_channels=channels,
        down_block_types=("CrossAttnDownBlock2D",) * attention + ("DownBlock2D",) * plain,
        up_block_types=("UpBlock2D",) * plain + ("CrossAttnUpBlock2D",) * attention,
        layers_per_block=settings["layers_per_block"],
        cross_attention_dim=text_width,
        attention_head_dim=2,  # in this class, the number of heads
        norm_num_groups=8,
    )


def train(
    config: dict[str, Any],
    name: str,
    sources: dict[str, Any],
    encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    work: Path,
) -> UNet2DConditionModel:
    settings = config["unets"][name]
    torch.manual_seed(config["seed"])
    latents = sources["latents"] * sources["factor"]
    unet = build_unet(settings, latents.shape[1], config["text_encoder"]["hidden_size"])
    optimizer = torch.optim.AdamW(unet.parameters(), lr=settings["learning_rate"], weight_decay=0.0)
    average = EMAModel(unet.parameters(), decay=0.999, use_ema_warmup=True)
    checkpoint, start = work / f"{name}.pt", 0
    if checkpoint.exists():
        state = torch.load(checkpoint)
        unet.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average.load_state_dict(state["average"])
        start = state["step"]
    unique = ["", *sorted(set(sources["captions"]))]
    tokens = tokenizer(unique, padding="max_length", truncation=True, return_tensors="pt")
    with torch.no_grad():
        embeddings = encoder(tokens.input_ids).last_hidden_state
    caption_of = torch.tensor([unique.index(text) for text in sources["captions"]])
    members = [torch.nonzero(sources["group"] == number).flatten() for number in range(len(COPIES))]
    noise_schedule = DDPMScheduler(**NOISE)
    began = time.monotonic()
    for step in range(start, settings["steps"]):
        generator = torch.Generator().manual_seed(config["seed"] * 1_000_003 + step)
        half = settings["batch"] // 2
        chosen = torch.cat([rows[torch.randint(len(rows), (half,), generator=generator)] for rows in members])
        clean = latents[chosen]
        noise = torch.randn(clean.shape, generator=generator)
        timesteps = torch.randint(1000, (len(chosen),), generator=generator)
        kept = torch.rand(len(chosen), generator=generator) >= CAPTION_DROPOUT
        text = embeddings[torch.where(kept, caption_of[chosen], 0)]
        predicted = unet(noise_schedule.add_noise(clean, noise, timesteps), timesteps, text).sample
        loss = (predicted - noise_schedule.get_velocity(clean, noise, timesteps)).square().mean()
        for group in optimizer.param_groups:
            group["lr"] = settings["learning_rate"] * schedule(step, settings["steps"])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        average.step(unet.parameters())
        if (step + 1) % CHECKPOINT_EVERY == 0 or step + 1 == settings["steps"]:
            partial = checkpoint.with_suffix(".partial")
            state = {"model": unet.state_dict(), "optimizer": optimizer.state_dict(), "average": average.state_dict()}
            torch.save(state | {"step": step + 1}, partial)
            partial.replace(checkpoint)
            log.info("%s step %d loss %.4f, %.0f s", name, step + 1, loss.item(), time.monotonic() - began)
    average.copy_to(unet.parameters())
    return unet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=("tiny", "tiny-sd"))
    parser.add_argument("--config", type=Path, default=HERE / "config.yaml")
    parser.add_argument("--work", type=Path, default=HERE / "work", help="checkpoints, and the autoencoder")
    parser.add_argument("--out", type=Path, required=True, help="folder for the finished pipeline")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    config = yaml.safe_load(options.config.read_text())
    vae = AutoencoderKL.from_pretrained(options.work / "autoencoder").eval()
    sources = encoded_sources(config, vae, options.work)
    vae.register_to_config(scaling_factor=sources["factor"])
    tokenizer = build_tokenizer(config, options.work / "tokenizer")
    encoder = build_text_encoder(config, tokenizer)
    pipeline = StableDiffusionPipeline(
        vae=vae.half(),  # half the size on disk; loaded as float32 by default
        unet=train(config, options.name, sources, encoder, tokenizer, options.work).half(),
        text_encoder=encoder,
        tokenizer=tokenizer,
        scheduler=DPMSolverMultistepScheduler(**NOISE, algorithm_type="dpmsolver++", steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(options.out, safe_serialization=True)


if __name__ == "__main__":
    main()
