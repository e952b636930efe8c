"""The Inception network that FID is defined by, as torch-fidelity carries it."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from memcontrol.data.images import Pixels
from memcontrol.data.packages import package_file
from memcontrol.encoders.encoder import Features, in_batches
from memcontrol.encoders.weights import given_weights, parameters_identity, read_state
from memcontrol.errors import ModelError, first_line

WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"


class InceptionEncoder:
    """FID's Inception v3: 2048 features after the last pooling.

    Images are resized to 299 by 299 as TensorFlow 1 did and scaled to -1 to 1, as FID's definition has it; both are
    done by torch-fidelity's network.

    Args:
        weights: the file that torch-fidelity's release v0.2.0 carries.
        device: a torch device.
        batch: images at a time.
    Raises:
        MissingPackageError: torch-fidelity is not installed.
        ModelError: no weights, or weights of another architecture.
    Source: Heusel et al. 2017 (arXiv 1706.08500).
    """

    name = "inception"

    def __init__(self, *, weights: str | None = None, device: str = "cpu", batch: int = 16) -> None:
        package_file("torch_fidelity", "feature_extractor_inceptionv3.py", extra="medical")
        path = given_weights(self.name, weights, f"the file {WEIGHTS} of torch-fidelity's release v0.2.0")
        # The class unpickles whatever it is given, so the file must first prove to hold tensors alone.
        read_state(path, self.name)
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        try:
            network = FeatureExtractorInceptionV3(self.name, ["2048"], feature_extractor_weights_path=str(path))
        except RuntimeError as error:
            lines = [first_line(ValueError(line)) for line in str(error).splitlines()[1:4]]
            raise ModelError(
                f"weights of encoder {self.name}: {path} is of another architecture ({'; '.join(lines)}): "
                f"give {WEIGHTS}"
            ) from error
        self.device, self.batch = device, batch
        self._network: Any = network.to(device)

    @cached_property
    def identity(self) -> str:
        """A hash of the weights."""
        return parameters_identity(self._network, self.name)

    def __call__(self, pixels: Pixels) -> Features:
        """`(N, H, W, 3)` uint8 -> `(N, 2048)` float32."""
        import torch

        def encode(batch: Pixels) -> Any:
            return self._network(torch.from_numpy(np.array(batch)).permute(0, 3, 1, 2).to(self.device))[0]

        return in_batches(pixels, self.batch, encode, name=self.name)
