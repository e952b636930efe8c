"""Stable Diffusion style pipelines: an autoencoder, a text encoder, and a U-Net that is told the caption."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from memcontrol.cache import Cache
from memcontrol.data.identity import images_fingerprint
from memcontrol.data.images import ImageSet, Pixels
from memcontrol.fingerprint import fingerprint
from memcontrol.pipeline.frozen import ENCODE_BATCH, FrozenPipeline, LatentMoments, TextEmbeddings, as_pixels
from memcontrol.pipeline.upsampling import upsample_in_quarters

DECODE_BATCH = 16
"""Small, so that the decoder's activations stay in a CPU's cache."""


class LatentPipeline(FrozenPipeline):
    """A text-conditional pipeline whose U-Net works on an autoencoder's latents.

    Attributes:
        identity: hash of the autoencoder's and the text encoder's weights, of how latents are scaled, and of the
            tokenizer's vocabulary.
    """

    has_autoencoder = True

    def __init__(self, pipeline: Any, *, name: str, device: str, cache: Cache) -> None:
        super().__init__(pipeline, name=name, device=device, cache=cache)
        self.vae = pipeline.vae.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        if self.device.type == "cpu":
            upsample_in_quarters(self.vae)
        self.text_encoder = pipeline.text_encoder.eval().requires_grad_(False)
        self.tokenizer = pipeline.tokenizer
        vocabulary = sorted(self.tokenizer.get_vocab().items())
        tokens = fingerprint([text for text, _ in vocabulary], [number for _, number in vocabulary])
        length = int(self.tokenizer.model_max_length)
        scaling = self._scale(), self._shift()
        self.identity = fingerprint(_weights(self.vae), _weights(self.text_encoder), tokens, length, *scaling)

    @property
    def resolution(self) -> int:
        """Height and width of the images that the U-Net was made for, in pixels."""
        return int(self.unet.config["sample_size"]) * int(self.pipeline.vae_scale_factor)

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

    def encode_captions(self, captions: Sequence[str]) -> NDArray[np.float32]:
        """Embeddings `(N, L, D)` of one or more captions, encoded now and not kept: for those rarely seen twice."""
        parts = (captions[start : start + ENCODE_BATCH] for start in range(0, len(captions), ENCODE_BATCH))
        return np.concatenate([self._encode_text(list(part)) for part in parts])

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

    def notes(self, captions: Sequence[str], guidance: float = 1.0) -> tuple[str, ...]:  # noqa: ARG002
        """A sentence on captions that the text encoder does not read to their end, where there are any."""
        cut, longest = self.truncated(captions), int(self.tokenizer.model_max_length)
        said = f"{cut} distinct captions are longer than the {longest} tokens that the text encoder reads, and are cut"
        return (said,) if cut else ()

    def truncated(self, captions: Sequence[str]) -> int:
        """How many distinct captions are longer than the text encoder reads."""
        longest = int(self.tokenizer.model_max_length)
        return sum(len(tokens) > longest for tokens in self.tokenizer(sorted(set(captions))).input_ids)

    def _encoding(self) -> tuple[object, ...]:
        """What decides latents besides the images."""
        return self.identity, self.resolution

    def _scale(self) -> float:
        return float(self.vae.config["scaling_factor"])

    def _shift(self) -> float:
        return float(self.vae.config.get("shift_factor") or 0.0)

    def _scaled(self, latents: torch.Tensor) -> torch.Tensor:
        return (latents - self._shift()) * self._scale()

    @torch.no_grad()
    def _decoded(self, latents: torch.Tensor) -> Pixels:
        scaled = (latents / self._scale() + self._shift()).to(self.vae.dtype)
        return as_pixels(self.vae.decode(scaled.contiguous(memory_format=torch.channels_last)).sample)

    @torch.no_grad()
    def _posterior(self, pixels: Pixels) -> Any:
        images = torch.from_numpy(np.array(pixels)).to(self.device).permute(0, 3, 1, 2).to(self.vae.dtype) / 127.5 - 1
        return self.vae.encode(images.contiguous(memory_format=torch.channels_last)).latent_dist

    @torch.no_grad()
    def _encode_text(self, captions: list[str]) -> NDArray[np.float32]:
        tokens = self.tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt")
        encoded = self.text_encoder(tokens.input_ids.to(self.device)).last_hidden_state
        embedded: NDArray[np.float32] = encoded.float().cpu().numpy()
        return embedded


def _weights(module: torch.nn.Module) -> str:
    return fingerprint(*(part for name, tensor in module.state_dict().items() for part in (name, tensor.cpu().numpy())))
