"""What is timed: each work gives what it computed, to be compared with float32."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler
from variants import DECODER, SAMPLING, TRAINING

from memcontrol.pipeline.latent import DECODE_BATCH
from memcontrol.study.trial import Laboratory

MASKS = ("all", "attention", "norms")
Line = dict[str, Any]
Work = Callable[[], torch.Tensor]
Make = Callable[[Laboratory], Work]


def mask_groups(laboratory: Laboratory, mask: str) -> tuple[Any, ...]:
    space = laboratory.candidates
    return space.trained([int(mask == "all" or mask in group.name.split(".")) for group in space.groups])


def training_work(laboratory: Laboratory, mask: str, name: str) -> Work:
    """Forward and backward of the first batch; gives the gradients."""
    frozen, batch, variant = laboratory.frozen, laboratory.batches.at(0), TRAINING[name]
    names = {name for group in mask_groups(laboratory, mask) for name in group.parameters}
    model = variant.model(frozen.unet)
    parameters = [one for name, one in frozen.unet.named_parameters() if name in names]
    for one in parameters:
        one.requires_grad_(True)
    scheduler = DDPMScheduler.from_config(frozen.scheduler_config)
    noisy = scheduler.add_noise(batch.clean, batch.noise, batch.timesteps)

    def work() -> torch.Tensor:
        predicted = model(noisy, batch.timesteps, *batch.conditioning, return_dict=False)[0]
        gradients = torch.autograd.grad((predicted - batch.noise).square().mean(), parameters)
        return torch.cat([one.flatten() for one in gradients])

    return work


def sampling_work(laboratory: Laboratory, name: str) -> Work:
    """One call of the U-Net at sampling's batch; gives the prediction."""
    frozen, size = laboratory.frozen, laboratory.config.sampling.batch
    model = SAMPLING[name](frozen.unet)
    embedded = frozen.text_embeddings(laboratory.prompts)
    text = () if embedded is None else (embedded.at(np.arange(size)),)
    noise = torch.randn((size, *frozen.latent_shape), generator=torch.Generator().manual_seed(721))

    def work() -> torch.Tensor:
        with torch.no_grad():
            return torch.Tensor(model(noise, torch.tensor(500), *text, return_dict=False)[0])

    return work


def decoder_work(laboratory: Laboratory, name: str) -> Work:
    """The decoder's 64 images in batches of 16; gives pixels from -1 to 1."""
    frozen, variant = laboratory.frozen, DECODER[name]
    layout = torch.channels_last if variant.last else torch.contiguous_format
    vae = frozen.pipeline.vae.to(memory_format=layout, dtype=variant.dtype)
    moments = frozen.latent_moments(laboratory.dataset.training)
    clean = torch.from_numpy(np.array(moments.mean[np.arange(64) % len(moments.mean)]))
    latents = (clean / vae.config.scaling_factor + (vae.config.shift_factor or 0)).to(variant.dtype)

    def work() -> torch.Tensor:
        with torch.no_grad(), variant.around():
            parts = torch.split(latents, DECODE_BATCH)
            return torch.cat([vae.decode(part.contiguous(memory_format=layout)).sample.float() for part in parts])

    return work


def works() -> Iterator[tuple[Line, Make]]:
    """Everything timed; of a part and groups, what there is now comes first."""
    for mask in MASKS:
        for name in TRAINING:
            yield {"part": "training", "groups": mask, "variant": name}, partial(training_work, mask=mask, name=name)
    for name in SAMPLING:
        yield {"part": "sampling", "groups": "", "variant": name}, partial(sampling_work, name=name)
    for name in DECODER:
        yield {"part": "decoder", "groups": "", "variant": name}, partial(decoder_work, name=name)
