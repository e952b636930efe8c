"""Pictures and figures for the README: samples of both pipelines, reconstructions of unseen brain slices, PSNR.

    python experiments/pretrain_tiny/samples.py

Loads the shipped folders with stock diffusers alone.
"""

import json
from pathlib import Path

import numpy as np
import torch
from autoencoder import to_model
from diffusers import AutoencoderKL, StableDiffusionPipeline
from PIL import Image

import memcontrol
from memcontrol.data.brain import draw_slices
from memcontrol.data.digits import NAMES
from memcontrol.data.faces import PRETRAINING_PEOPLE

HERE = Path(__file__).parent
ASSETS = Path(memcontrol.__file__).parent / "assets"
STEPS, GUIDANCE, SEED = 25, 3.0, 0
UNSEEN = 256


def prompts() -> list[str]:
    digits = [f"a handwritten {name}" for name in NAMES]
    return [*digits, *digits, *(f"photo of a face, subject {person}" for person in [*PRETRAINING_PEOPLE][:10] * 2)]


def grid(images: np.ndarray, columns: int) -> Image.Image:
    """`(N, H, W, 3)` uint8 as rows of `columns`."""
    rows = [np.concatenate(list(images[i : i + columns]), axis=1) for i in range(0, len(images), columns)]
    return Image.fromarray(np.concatenate(rows, axis=0))


def sampled(name: str) -> np.ndarray:
    pipeline = StableDiffusionPipeline.from_pretrained(ASSETS / name)
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(SEED)
    images = pipeline(
        prompts(), num_inference_steps=STEPS, guidance_scale=GUIDANCE, generator=generator, output_type="np"
    ).images
    return (images * 255).round().astype(np.uint8)


def reconstructed(vae: AutoencoderKL, pixels: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        out = torch.cat([vae(to_model(part[..., 0])).sample for part in np.split(pixels, len(pixels) // 16)])
    return ((out.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def main() -> None:
    torch.set_num_threads(1)
    for name in ("tiny", "tiny-sd"):
        grid(sampled(name), 10).save(HERE / f"samples-{name}.png")
    vae = AutoencoderKL.from_pretrained(ASSETS / "tiny", subfolder="vae").eval()
    slices = draw_slices(UNSEEN, seed=0, stream="confirmation", resolution=64).pixels()
    seen = reconstructed(vae, slices)
    errors = np.square((slices.astype(float) - seen) / 255).mean(axis=(1, 2, 3))
    decibels = 10 * np.log10(1 / errors)
    pairs = np.concatenate([slices[:10], seen[:10], slices[10:20], seen[10:20]])
    grid(pairs, 10).save(HERE / "reconstructions.png")
    sizes = {name: sum(path.stat().st_size for path in (ASSETS / name).rglob("*.*")) for name in ("tiny", "tiny-sd")}
    result = {
        "psnr_db": {"mean": round(float(decibels.mean()), 2), "min": round(float(decibels.min()), 2), "n": UNSEEN},
        "bytes": sizes,
        "sampling": {"steps": STEPS, "guidance": GUIDANCE, "seed": SEED},
    }
    (HERE / "results.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
