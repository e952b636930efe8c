"""A stock diffusers training loop, and the three lines that make it train a mask; each ends in `# mask`.

The mask is a JSON file that `memcontrol export` wrote. Model and data are those that come with MemControl, so that this
runs as it is; a pipeline and images of your own go in their place.

    python docs/examples/train_with_a_mask.py MASK --out tuned
"""

import argparse
import logging

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import set_seed
from diffusers import DDPMScheduler, StableDiffusionPipeline
from torch.utils.data import DataLoader

import memcontrol  # mask
from memcontrol.data import load_dataset
from memcontrol.pipeline import model_folder

LOG = logging.getLogger("train")


def loaded_images(tokenizer, resolution, batch):
    """Batches of pixels `(B, 3, H, W)` from -1 to 1 and of tokens; any images with captions would do."""
    data = memcontrol.DataConfig(source="brain", fidelity=2, copying=2, confirmation=2)  # the rest is not used
    images = load_dataset(data, resolution=resolution, seed=0).training
    pixels = torch.from_numpy(np.array(images.pixels())).permute(0, 3, 1, 2) / 127.5 - 1
    tokens = tokenizer(list(images.captions), padding="max_length", truncation=True, return_tensors="pt").input_ids
    return DataLoader(list(zip(pixels, tokens, strict=True)), batch_size=batch, shuffle=True)


def train(mask_file, model, out, *, steps, batch, learning_rate, seed):
    """Fine-tune a pipeline's U-Net on images and captions, and save the pipeline."""
    accelerator = Accelerator()
    set_seed(seed, device_specific=True)
    pipeline = StableDiffusionPipeline.from_pretrained(model)
    unet, vae, text_encoder = pipeline.unet, pipeline.vae, pipeline.text_encoder
    vae.requires_grad_(False).to(accelerator.device)
    text_encoder.requires_grad_(False).to(accelerator.device)
    noise_scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
    size = unet.config.sample_size * pipeline.vae_scale_factor
    loader = loaded_images(pipeline.tokenizer, size, batch)

    parameters = memcontrol.Mask.from_pretrained(mask_file).apply(unet)  # mask
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate)
    unet, optimizer, loader = accelerator.prepare(unet, optimizer, loader)

    unet.train()
    step = 0
    while step < steps:
        for pixels, tokens in loader:
            with torch.no_grad():
                latents = vae.encode(pixels).latent_dist.sample() * vae.config.scaling_factor
                text = text_encoder(tokens)[0]
            noise = torch.randn_like(latents)
            count = noise_scheduler.config.num_train_timesteps
            timesteps = torch.randint(0, count, (len(latents),), device=latents.device)
            noisy = noise_scheduler.add_noise(latents, noise, timesteps)
            if noise_scheduler.config.prediction_type == "v_prediction":
                target = noise_scheduler.get_velocity(latents, noise, timesteps)
            else:
                target = noise
            predicted = unet(noisy, timesteps, text, return_dict=False)[0]
            loss = F.mse_loss(predicted.float(), target.float())
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            LOG.info("step %d loss %.4f", step, loss.item())
            if step == steps:
                break

    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        memcontrol.fold(accelerator.unwrap_model(unet))  # mask
        pipeline.save_pretrained(out)


def main():
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Train a mask in a stock diffusers loop.")
    parser.add_argument("mask", help="a mask's JSON file")
    parser.add_argument("--model", default=model_folder("tiny"), help="a Stable Diffusion style pipeline")
    parser.add_argument("--out", default="tuned", help="folder of the tuned pipeline")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    train(
        given.mask,
        given.model,
        given.out,
        steps=given.steps,
        batch=given.batch,
        learning_rate=given.learning_rate,
        seed=given.seed,
    )


if __name__ == "__main__":
    main()
