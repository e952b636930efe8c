"""What tuning, sampling and scoring ask of a pipeline, whatever kind of pipeline it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from memcontrol.cache import Cache
from memcontrol.data.images import ImageSet, Pixels
from memcontrol.pipeline.narrow_attention import attend_by_products
from memcontrol.pipeline.pointwise import multiply_pointwise

ENCODE_BATCH = 32


@dataclass(frozen=True)
class LatentMoments:
    """Posterior means and standard deviations of encoded images, scaled as the U-Net expects.

    Attributes:
        mean, std: `(N, C, h, w)` float32, memory-mapped; where latents are the pixels themselves, `std` is zero.
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


def as_pixels(images: torch.Tensor) -> Pixels:
    """Images `(N, C, H, W)` in -1 to 1, on any device, as `(N, H, W, C)` uint8: rounded, and clamped."""
    levels = (images.float() * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8)
    pixels: Pixels = levels.permute(0, 2, 3, 1).cpu().numpy()
    return pixels


class FrozenPipeline(ABC):
    """A pipeline of which nothing but the U-Net ever changes.

    Args:
        pipeline: a loaded pipeline; moved to `device`, its U-Net set to evaluation, and frozen.
        name: what the user called it.
        cache: where encoded images and captions are kept.

    Attributes:
        has_autoencoder: whether images are encoded to latents; otherwise the U-Net sees the pixels themselves.
        identity: hash of what decides latents and text embeddings besides images and captions.
    """

    has_autoencoder: ClassVar[bool]
    identity: str

    def __init__(self, pipeline: Any, *, name: str, device: str, cache: Cache) -> None:
        self.name, self.device, self.cache = name, torch.device(device), cache
        self.pipeline = pipeline.to(self.device)
        self.unet: Any = pipeline.unet.eval().requires_grad_(False)
        if self.device.type == "cpu":
            multiply_pointwise(self.unet)
            attend_by_products(self.unet)
        self.scheduler_config: dict[str, Any] = dict(pipeline.scheduler.config)

    @property
    @abstractmethod
    def resolution(self) -> int:
        """Height and width of the images that the U-Net was made for, in pixels."""

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """`(C, h, w)` of one image's latents."""
        size = int(self.unet.config["sample_size"])
        return int(self.unet.config["in_channels"]), size, size

    @abstractmethod
    def latent_moments(self, images: ImageSet) -> LatentMoments:
        """Moments of every image in `images`, from the cache where they have been encoded before."""

    @abstractmethod
    def text_embeddings(self, captions: Sequence[str]) -> TextEmbeddings | None:
        """Embeddings of the captions and of the empty one; None where the U-Net takes no text."""

    @abstractmethod
    def decode(self, latents: torch.Tensor) -> Pixels:
        """Images `(N, H, W, 3)` of scaled latents `(N, C, h, w)`."""

    @abstractmethod
    def encode(self, pixels: Pixels) -> NDArray[np.float32]:
        """Scaled posterior means, flattened to `(N, C*h*w)`."""

    @abstractmethod
    def reconstruct(self, images: ImageSet) -> Pixels:
        """What a perfect copy of each image would look like, `(N, H, W, 3)`."""

    @abstractmethod
    def notes(self, captions: Sequence[str], guidance: float = 1.0) -> tuple[str, ...]:
        """Sentences on what of these captions, and of this guidance, the model does not use."""
