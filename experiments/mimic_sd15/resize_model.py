"""A Stable Diffusion pipeline saved for another image size, its weights unchanged.

    python experiments/mimic_sd15/resize_model.py stable-diffusion-v1-5/stable-diffusion-v1-5 models/sd15-224

A pipeline's images have the size that its U-Net's config.json says, 512 pixels for Stable Diffusion 1.5; the papers
tune it at 224. Convolutions and attention take any size, so that the number alone changes.
"""

import argparse
from pathlib import Path

from diffusers import StableDiffusionPipeline


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a hub id, or the folder of a saved pipeline")
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--pixels", type=int, default=224)
    options = parser.parse_args(arguments)
    pipeline = StableDiffusionPipeline.from_pretrained(
        options.model, safety_checker=None, requires_safety_checker=False
    )
    steps = 2 ** (len(pipeline.unet.config.block_out_channels) - 1)
    latent, rest = divmod(options.pixels, pipeline.vae_scale_factor)
    if rest or latent < steps:
        raise SystemExit(
            f"--pixels {options.pixels}: expected a multiple of {pipeline.vae_scale_factor}, from "
            f"{steps * pipeline.vae_scale_factor}"
        )
    pipeline.unet.register_to_config(sample_size=latent)
    pipeline.save_pretrained(options.out)
    print(f"{options.out}: images of {options.pixels} pixels, latents of {latent}")


if __name__ == "__main__":
    main()
