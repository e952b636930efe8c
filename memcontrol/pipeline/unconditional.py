"""Unconditional pipelines: a U-Net on the pixels themselves and a noise schedule; no autoencoder, no text."""

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
from memcontrol.pipeline.frozen import ENCODE_BATCH, FrozenPipeline, LatentMoments, as_pixels

LUMINANCE = (19595, 38470, 7471)
"""Shares of red, green and blue in 65,536 parts (ITU-R 601-2), as Pillow's mode L has them."""


class UnconditionalPipeline(FrozenPipeline):
    """A pipeline whose latents are the pixels, scaled to -1 to 1.

    A U-Net of one channel is given luminance, and its images have that luminance in all three channels.

    Attributes:
        identity: hash of what an image is encoded to: channels and resolution.
        scheduler_config: the pipeline's own, with its `clip_sample` in words that DPM-Solver++ knows.
    """

    has_autoencoder = False

    def __init__(self, pipeline: Any, *, name: str, device: str, cache: Cache) -> None:
        super().__init__(pipeline, name=name, device=device, cache=cache)
        self.identity = fingerprint("pixels", *self.latent_shape)
        if self.scheduler_config.get("clip_sample") and self.scheduler_config.get("clip_sample_range", 1) == 1:
            # Predicted images clipped to -1 to 1 at every step are thresholded ones whose threshold may not exceed 1.
            self.scheduler_config |= {"thresholding": True, "sample_max_value": 1.0}

    @property
    def resolution(self) -> int:
        """Height and width of the images that the U-Net was made for, in pixels."""
        return self.latent_shape[1]

    def latent_moments(self, images: ImageSet) -> LatentMoments:
        """The images' own pixels, from the cache where they have been read before; their deviation is zero."""
        shape = (len(images), *self.latent_shape)

        def fill(target: NDArray[np.float32]) -> None:
            for start in range(0, len(images), ENCODE_BATCH):
                stop = min(start + ENCODE_BATCH, len(images))
                target[start:stop] = self._latents(images.pixels(range(start, stop)))

        key = fingerprint("pixels", self.identity, images_fingerprint(images))
        mean = self.cache.array("latents", key, shape, fill)
        return LatentMoments(mean, np.broadcast_to(np.float32(0), shape))

    def text_embeddings(self, captions: Sequence[str]) -> None:
        """None: the U-Net takes no text."""

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> Pixels:
        """Images `(N, H, W, 3)` of latents `(N, C, h, w)`, clamped and rounded."""
        return self._coloured(as_pixels(latents))

    def encode(self, pixels: Pixels) -> NDArray[np.float32]:
        """Pixels in -1 to 1, flattened to `(N, C*h*w)`."""
        return self._latents(pixels).reshape(len(pixels), -1)

    def reconstruct(self, images: ImageSet) -> Pixels:
        """The images themselves, `(N, H, W, 3)`, without their colour where the U-Net has one channel."""
        return self._coloured(self._channels(images.pixels()))

    def notes(self, captions: Sequence[str], guidance: float = 1.0) -> tuple[str, ...]:
        """A sentence that captions and guidance are ignored, where there are any."""
        if not any(captions) and guidance == 1:
            return ()
        return (f"model {self.name} is unconditional: captions are ignored, and guidance has no effect",)

    def _channels(self, pixels: Pixels) -> Pixels:
        """`(N, H, W, 3)` -> `(N, H, W, C)`: as they are, or their luminance."""
        if self.latent_shape[0] == 3:
            return pixels
        luminance = (pixels.astype(np.uint32) @ np.array(LUMINANCE, dtype=np.uint32) + 2**15) >> 16
        return luminance[..., None].astype(np.uint8)

    def _coloured(self, pixels: Pixels) -> Pixels:
        return pixels if pixels.shape[3] == 3 else np.repeat(pixels, 3, axis=3)

    def _latents(self, pixels: Pixels) -> NDArray[np.float32]:
        channels = self._channels(np.asarray(pixels)).transpose(0, 3, 1, 2)
        return channels.astype(np.float32) / np.float32(127.5) - np.float32(1)
