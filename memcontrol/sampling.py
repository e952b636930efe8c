"""Seeded images from a model: DPM-Solver++, guidance in one batch, images kept in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler
from numpy.typing import NDArray

from memcontrol.config import SamplingConfig
from memcontrol.data.images import Pixels
from memcontrol.pipeline import FrozenPipeline, TextEmbeddings

_PROMPTS_STREAM = 201


def drawn_prompts(captions: Sequence[str], count: int, seed: int) -> list[str]:
    """`count` prompts drawn from the training captions with replacement."""
    rng = np.random.default_rng([seed, _PROMPTS_STREAM])
    return [captions[i] for i in rng.integers(len(captions), size=count)]


class AtInference(Protocol):
    """What is done to captions' embeddings before images are generated from them."""

    def __call__(
        self, latents: torch.Tensor, timestep: torch.Tensor, told: torch.Tensor, empty: torch.Tensor
    ) -> torch.Tensor:
        """Embeddings `(n, L, D)` in place of `told`.

        Args:
            latents: `(n, C, h, w)`, what the U-Net is given first.
            timestep: the first one, a scalar.
            told, empty: `(n, L, D)` embeddings of the captions, and of the empty one.
        """
        ...


@torch.no_grad()
def sample(
    frozen: FrozenPipeline,
    prompts: Sequence[str],
    config: SamplingConfig,
    *,
    seed: int,
    inference: AtInference | None = None,
    places: range | None = None,
) -> Iterator[Pixels]:
    """Images of `prompts` in batches of `(n, H, W, 3)` uint8; one image's noise does not depend on the batch size.

    Without a text encoder the prompts only say how many, and `inference` is not called.

    Args:
        places: of the prompts to generate images of, each the same as among all of them; all unless given.

    Source: DPM-Solver++ (Lu et al. 2022, arXiv 2211.01095); classifier-free guidance (Ho and Salimans 2022).
    """
    text = frozen.text_embeddings(prompts)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn((len(prompts), *frozen.latent_shape), generator=generator)
    wanted = np.arange(len(prompts)) if places is None else np.array(places, dtype=np.intp)
    for start in range(0, len(wanted), config.batch):
        chosen = wanted[start : start + config.batch]
        yield images_of_noise(frozen, noise[chosen], text, chosen, config, inference=inference)


@torch.no_grad()
def images_of_noise(
    frozen: FrozenPipeline,
    noise: torch.Tensor,
    text: TextEmbeddings | None,
    chosen: NDArray[np.intp],
    config: SamplingConfig,
    *,
    inference: AtInference | None = None,
) -> Pixels:
    """Images `(n, H, W, 3)` of noise `(n, C, h, w)` and of the captions at `chosen`, `(n,)`, in one batch."""
    scheduler = solver(frozen, config)
    latents = noise.to(frozen.device) * scheduler.init_noise_sigma
    embeddings = None
    if text is not None:
        told, empty = text.at(chosen).to(frozen.device), text.empty(len(chosen)).to(frozen.device)
        if inference is not None:
            told = inference(latents, scheduler.timesteps[0], told, empty)
        # Captions to guide by stand after as many empty ones where they guide by more than they say.
        embeddings = torch.cat([empty, told]) if config.guidance > 1 else told
    return frozen.decode(_denoised(frozen, scheduler, latents, embeddings, config.guidance))


def solver(frozen: FrozenPipeline, config: SamplingConfig) -> Any:
    """The scheduler of a pipeline's images, its timesteps set."""
    scheduler = DPMSolverMultistepScheduler.from_config(frozen.scheduler_config, algorithm_type="dpmsolver++")
    scheduler.set_timesteps(config.steps, device=frozen.device)
    return scheduler


def _denoised(
    frozen: FrozenPipeline,
    scheduler: Any,
    latents: torch.Tensor,
    embeddings: torch.Tensor | None,
    guidance: float,
) -> torch.Tensor:
    conditioning = () if embeddings is None else (embeddings,)
    copies = 1 if embeddings is None else len(embeddings) // len(latents)
    for timestep in scheduler.timesteps:
        inputs = scheduler.scale_model_input(torch.cat([latents] * copies), timestep)
        # One timestep an image, as attacks give them: on a CPU both are then replayed from one trace.
        predicted = frozen.unet(inputs, timestep.repeat(len(inputs)), *conditioning, return_dict=False)[0]
        if copies == 2:
            empty, conditional = predicted.chunk(2)
            predicted = empty + guidance * (conditional - empty)
        latents = scheduler.step(predicted, timestep, latents).prev_sample
    return latents
