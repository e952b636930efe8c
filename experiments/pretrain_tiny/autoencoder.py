"""Pretrain the tiny pipelines' autoencoder on digits, faces and brain draws that nothing else uses.

    python experiments/pretrain_tiny/autoencoder.py

Resumes from its last checkpoint; each step's batch is a function of (seed, step), so a resumed run is the same run.
"""

import argparse
import logging
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from diffusers import AutoencoderKL

from memcontrol.data.brain import draw_slices
from memcontrol.data.digits import digit_images
from memcontrol.data.faces import face_images

HERE = Path(__file__).parent
CHECKPOINT_EVERY = 500
SHARES = {"brain": 0.7, "faces": 0.2, "digits": 0.1}

log = logging.getLogger("pretrain")


def source_pixels(config: dict[str, Any]) -> dict[str, np.ndarray]:
    """Grey images `(N, H, W)` uint8 of each source."""
    size = config["resolution"]
    brain = draw_slices(
        config["autoencoder"]["brain_draws"], seed=config["seed"], stream="pretraining", resolution=size
    )
    return {
        "brain": brain.pixels()[..., 0],
        "faces": face_images(size, pretraining=True).pixels()[..., 0],
        "digits": digit_images(size, pretraining=True).pixels()[..., 0],
    }


def augmented(images: np.ndarray, rng: np.random.Generator, *, flip: bool) -> np.ndarray:
    """Each image shifted by up to 3 pixels, and mirrored half of the time where `flip`."""
    out = np.empty_like(images)
    for row, image in enumerate(images):
        down, right = rng.integers(0, 7, size=2)
        framed = np.pad(image, 3, mode="edge")
        moved = framed[down : down + image.shape[0], right : right + image.shape[1]]
        out[row] = moved[:, ::-1] if flip and rng.random() < 0.5 else moved
    return out


def to_model(pixels: np.ndarray) -> torch.Tensor:
    """Grey uint8 `(N, H, W)` to float RGB `(N, 3, H, W)` in -1 to 1."""
    return (torch.from_numpy(pixels).float() / 127.5 - 1)[:, None].expand(-1, 3, -1, -1).contiguous()


def batch_at(step: int, sources: dict[str, np.ndarray], config: dict[str, Any]) -> torch.Tensor:
    rng = np.random.default_rng([config["seed"], 10, step])
    picked = rng.choice(list(SHARES), size=config["autoencoder"]["batch"], p=list(SHARES.values()))
    rows = np.stack([sources[name][rng.integers(len(sources[name]))] for name in picked])
    mirrored = np.array([name != "digits" for name in picked])
    rows[mirrored] = augmented(rows[mirrored], rng, flip=True)
    rows[~mirrored] = augmented(rows[~mirrored], rng, flip=False)
    return to_model(rows)


def psnr(model: AutoencoderKL, pixels: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of the reconstructed means, averaged over images."""
    with torch.no_grad():
        images = to_model(pixels).contiguous(memory_format=torch.channels_last)
        error = (model(images, sample_posterior=False).sample.clamp(-1, 1) - images).square().mean(dim=(1, 2, 3))
    return float((10 * torch.log10(4 / error)).mean())


def build(config: dict[str, Any]) -> AutoencoderKL:
    channels = config["autoencoder"]["block_out_channels"]
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        block_out_channels=tuple(channels),
        layers_per_block=1,
        latent_channels=config["autoencoder"]["latent_channels"],
        norm_num_groups=8,
        sample_size=config["resolution"],
    )


def schedule(step: int, steps: int, warmup: int = 200) -> float:
    """Learning-rate factor: linear warm-up, then cosine to zero."""
    return min(1.0, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * step / steps))


def train(config: dict[str, Any], work: Path) -> AutoencoderKL:
    settings = config["autoencoder"]
    torch.manual_seed(config["seed"])
    model = build(config).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings["learning_rate"], weight_decay=0.0)
    checkpoint, start = work / "autoencoder.pt", 0
    if checkpoint.exists():
        state = torch.load(checkpoint)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["step"]
    sources = source_pixels(config)
    unseen = draw_slices(64, seed=config["seed"], stream="confirmation", resolution=config["resolution"]).pixels()[
        ..., 0
    ]
    began = time.monotonic()
    for step in range(start, settings["steps"]):
        for group in optimizer.param_groups:
            group["lr"] = settings["learning_rate"] * schedule(step, settings["steps"])
        images = batch_at(step, sources, config).contiguous(memory_format=torch.channels_last)
        generator = torch.Generator().manual_seed(config["seed"] * 1_000_003 + step)
        posterior = model.encode(images).latent_dist
        reconstruction = model.decode(posterior.sample(generator=generator)).sample
        error = (reconstruction - images).square().mean()
        loss = error + settings["kl_weight"] * posterior.kl().mean() / posterior.mean[0].numel()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % CHECKPOINT_EVERY == 0 or step + 1 == settings["steps"]:
            partial = checkpoint.with_suffix(".partial")
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}, partial)
            partial.replace(checkpoint)
            log.info(
                "step %d loss %.4f, unseen brain %.2f dB, %.0f s",
                step + 1,
                loss.item(),
                psnr(model, unseen),
                time.monotonic() - began,
            )
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=HERE / "config.yaml")
    parser.add_argument("--work", type=Path, default=HERE / "work", help="checkpoints, and the result")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    config = yaml.safe_load(options.config.read_text())
    options.work.mkdir(parents=True, exist_ok=True)
    train(config, options.work).to(memory_format=torch.contiguous_format).save_pretrained(options.work / "autoencoder")


if __name__ == "__main__":
    main()
