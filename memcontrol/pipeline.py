"""A diffusers pipeline in, `FrozenPipeline` out: the U-Net to tune, and everything else encoded once and cached."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
import transformers
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from numpy.typing import NDArray

from memcontrol.cache import Cache
from memcontrol.data.identity import images_fingerprint
from memcontrol.data.images import ImageSet, Pixels
from memcontrol.errors import ModelError, nearest_names
from memcontrol.fingerprint import fingerprint

SHIPPED = ("tiny", "tiny-sd")
ENCODE_BATCH = 32
DECODE_BATCH = 16
"""Small, so that the decoder's activations stay in a CPU's cache."""


@dataclass(frozen=True)
class LatentMoments:
    """Posterior means and standard deviations of encoded images, scaled as the U-Net expects.

    Attributes:
        mean, std: `(N, C, h, w)` float32, memory-mapped.
    """

    mean: NDArray[np.float32]
    std: NDArray[np.float32]


@dataclass(frozen=True)
class TextEmbeddings:
    """Each distinct caption encoded once.

    Attributes:
        table: `(U, L, D)` float32; row 0 is the empty caption.
        rows: `(N,)` the table row of each caption asked for.
    """

    table: NDArray[np.float32]
    rows: NDArray[np.intp]

    def at(self, positions: NDArray[np.intp]) -> torch.Tensor:
        """Embeddings `(len(positions), L, D)` of the captions at `positions`."""
        return torch.from_numpy(np.asarray(self.table[self.rows[positions]]))

    def empty(self, count: int) -> torch.Tensor:
        """The empty caption's embedding, `(count, L, D)`."""
        return torch.from_numpy(np.array(self.table[:1])).expand(count, -1, -1)


class FrozenPipeline:
    """A Stable Diffusion style pipeline of which nothing but the U-Net ever changes.

    Args:
        pipeline: a loaded pipeline; moved to `device`, set to evaluation, and frozen.
        name: what the user called it.
        cache: where encoded latents and captions are kept.

    Attributes:
        identity: hash of the autoencoder's and the text encoder's weights, and of the tokenizer's vocabulary.
    """

    def __init__(self, pipeline: Any, *, name: str, device: str, cache: Cache) -> None:
        self.name, self.device, self.cache = name, torch.device(device), cache
        self.pipeline = pipeline.to(self.device)
        self.unet: Any = pipeline.unet.eval().requires_grad_(False)
        self.vae = pipeline.vae.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.text_encoder = pipeline.text_encoder.eval().requires_grad_(False)
        self.tokenizer = pipeline.tokenizer
        self.scheduler_config: dict[str, Any] = dict(pipeline.scheduler.config)
        vocabulary = sorted(self.tokenizer.get_vocab().items())
        tokens = fingerprint([text for text, _ in vocabulary], [number for _, number in vocabulary])
        length = int(self.tokenizer.model_max_length)
        self.identity = fingerprint(_weights(self.vae), _weights(self.text_encoder), tokens, length)

    @property
    def resolution(self) -> int:
        """Height and width of the images that the U-Net was made for, in pixels."""
        return int(self.unet.config["sample_size"]) * int(self.pipeline.vae_scale_factor)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """`(C, h, w)` of one image's latents."""
        size = int(self.unet.config["sample_size"])
        return int(self.unet.config["in_channels"]), size, size

    def latent_moments(self, images: ImageSet) -> LatentMoments:
        """Moments of every image in `images`, from the cache where they have been encoded before."""
        shape = (2, len(images), *self.latent_shape)

        def fill(target: NDArray[np.float32]) -> None:
            for start in range(0, len(images), ENCODE_BATCH):
                stop = min(start + ENCODE_BATCH, len(images))
                posterior = self._posterior(images.pixels(range(start, stop)))
                target[0, start:stop] = self._scaled(posterior.mean).cpu().numpy()
                target[1, start:stop] = (posterior.std * self._scale()).cpu().numpy()

        key = fingerprint("latents", *self._encoding(), images_fingerprint(images))
        stored = self.cache.array("latents", key, shape, fill)
        return LatentMoments(stored[0], stored[1])

    def text_embeddings(self, captions: Sequence[str]) -> TextEmbeddings:
        """Embeddings of the distinct captions and of the empty one, from the cache where known."""
        unique = ["", *sorted(set(captions) - {""})]
        where = {caption: row for row, caption in enumerate(unique)}
        length, width = int(self.tokenizer.model_max_length), int(self.text_encoder.config.hidden_size)

        def fill(target: NDArray[np.float32]) -> None:
            for start in range(0, len(unique), ENCODE_BATCH):
                target[start : start + ENCODE_BATCH] = self._encode_text(unique[start : start + ENCODE_BATCH])

        key = fingerprint("text", self.identity, unique)
        table = self.cache.array("text", key, (len(unique), length, width), fill)
        return TextEmbeddings(table, np.array([where[caption] for caption in captions], dtype=np.intp))

    def decode(self, latents: torch.Tensor) -> Pixels:
        """Images `(N, H, W, 3)` of scaled latents `(N, C, h, w)`."""
        return np.concatenate([self._decoded(part) for part in torch.split(latents, DECODE_BATCH)])

    @torch.no_grad()
    def encode(self, pixels: Pixels) -> NDArray[np.float32]:
        """Scaled posterior means, flattened to `(N, C*h*w)`."""
        rows = [
            self._scaled(self._posterior(pixels[start : start + ENCODE_BATCH]).mean).flatten(1).cpu().numpy()
            for start in range(0, len(pixels), ENCODE_BATCH)
        ]
        return np.concatenate(rows)

    def reconstruct(self, images: ImageSet) -> Pixels:
        """Each image passed through the autoencoder, `(N, H, W, 3)`: what a perfect copy would look like. Cached."""
        mean = self.latent_moments(images).mean

        def fill(target: Pixels) -> None:
            for start in range(0, len(images), ENCODE_BATCH):
                latents = torch.from_numpy(np.array(mean[start : start + ENCODE_BATCH])).to(self.device)
                target[start : start + ENCODE_BATCH] = self.decode(latents)

        shape = (len(images), self.resolution, self.resolution, 3)
        key = fingerprint("reconstructed", *self._encoding(), images_fingerprint(images))
        return self.cache.array("reconstructed", key, shape, fill, np.uint8)

    def _encoding(self) -> tuple[object, ...]:
        """What decides latents besides the images."""
        return self.identity, self.resolution, self._scale(), self._shift()

    def _scale(self) -> float:
        return float(self.vae.config["scaling_factor"])

    def _shift(self) -> float:
        return float(self.vae.config.get("shift_factor") or 0.0)

    def _scaled(self, latents: torch.Tensor) -> torch.Tensor:
        return (latents - self._shift()) * self._scale()

    @torch.no_grad()
    def _decoded(self, latents: torch.Tensor) -> Pixels:
        scaled = (latents / self._scale() + self._shift()).to(self.vae.dtype)
        decoded = self.vae.decode(scaled.contiguous(memory_format=torch.channels_last)).sample
        bytes_ = (decoded.float() * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8)
        pixels: Pixels = bytes_.permute(0, 2, 3, 1).cpu().numpy()
        return pixels

    @torch.no_grad()
    def _posterior(self, pixels: Pixels) -> Any:
        images = torch.from_numpy(np.array(pixels)).to(self.device).permute(0, 3, 1, 2).to(self.vae.dtype) / 127.5 - 1
        return self.vae.encode(images.contiguous(memory_format=torch.channels_last)).latent_dist

    def truncated(self, captions: Sequence[str]) -> int:
        """How many distinct captions are longer than the text encoder reads."""
        longest = int(self.tokenizer.model_max_length)
        return sum(len(tokens) > longest for tokens in self.tokenizer(sorted(set(captions))).input_ids)

    @torch.no_grad()
    def _encode_text(self, captions: list[str]) -> NDArray[np.float32]:
        tokens = self.tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt")
        encoded = self.text_encoder(tokens.input_ids.to(self.device)).last_hidden_state
        embedded: NDArray[np.float32] = encoded.float().cpu().numpy()
        return embedded


def _weights(module: torch.nn.Module) -> str:
    return fingerprint(*(part for name, tensor in module.state_dict().items() for part in (name, tensor.cpu().numpy())))


def model_folder(model: str) -> str:
    """What to hand to `from_pretrained`: the shipped folder, a local folder, or a hub id.

    Raises:
        ModelError: neither a shipped name, nor an existing folder, nor of the form `owner/name`.
    """
    if model in SHIPPED:
        return str(Path(__file__).parent / "assets" / model)
    path = Path(model)
    if path.is_dir():
        if not (path / "model_index.json").is_file():
            raise ModelError(
                f"{model} is not a saved pipeline: it has no model_index.json; save one with save_pretrained"
            )
        return model
    if model.count("/") == 1 and not path.is_absolute() and not model.startswith("."):
        return model
    close = nearest_names(model, SHIPPED)
    raise ModelError(f"unknown model {model!r}: {close}; or give a pipeline folder or a hub id owner/name")


def load_pipeline(model: str, *, cache: Cache, device: str = "cpu") -> FrozenPipeline:
    """A `FrozenPipeline` from a shipped name, a folder of `save_pretrained`, or a hub id.

    Raises:
        ModelError: it cannot be found or loaded, or it is not a text-conditional latent diffusion pipeline.
    """
    source = model_folder(model)
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    loaded = _loaded(
        lambda: StableDiffusionPipeline.from_pretrained(
            source, dtype=torch.float32, safety_checker=None, requires_safety_checker=False
        ),
        model,
    )
    _check_kind(loaded, model)
    return FrozenPipeline(loaded, name=model, device=device, cache=cache)


def _check_kind(loaded: Any, model: str) -> None:
    """Refuse what would train on wrong inputs or towards a wrong target."""
    unet, latents = loaded.unet.config, loaded.vae.config["latent_channels"]
    target = loaded.scheduler.config["prediction_type"]
    if unet["in_channels"] != latents:
        raise ModelError(f"{model}: its U-Net takes {unet['in_channels']} channels and its autoencoder gives {latents}")
    if unet.get("addition_embed_type"):
        raise ModelError(f"{model}: its U-Net takes more than latents, time and caption (as SDXL's does)")
    if target not in ("epsilon", "v_prediction"):
        raise ModelError(f"{model}: prediction type {target}, expected epsilon or v_prediction")


def load_unet(model: str) -> torch.nn.Module:
    """The U-Net of a pipeline alone.

    Raises:
        ModelError: it cannot be found or loaded.
    """
    source = model_folder(model)
    diffusers.utils.logging.disable_progress_bar()
    loaded: torch.nn.Module = _loaded(lambda: UNet2DConditionModel.from_pretrained(source, subfolder="unet"), model)
    return loaded


def _loaded(load: Callable[[], Any], model: str) -> Any:
    try:
        return load()
    except (OSError, ValueError, KeyError, TypeError) as error:
        first = str(error).splitlines()[0]
        raise ModelError(f"cannot load {model} as a Stable Diffusion pipeline: {first}") from error
