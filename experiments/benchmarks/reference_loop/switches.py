"""Which parts of the reference loop are done our way."""

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Switches:
    """What is done our way; with all off this is the authors' loop.

    Attributes:
        kept: pipeline, captions and encoders stay in memory, and the tuned tensors are put back.
        latents: images are encoded once.
        text: captions are encoded once.
        solver: DPM-Solver++ in 12 steps instead of PNDM in 50.
        guidance: as the configuration says, which by default is none, instead of 4.
        memory: images are not written to files.
        real: features of real images are computed once.
        decomposed: decompositions are made once.
        factored: weights are not rebuilt: shifts act through the factors, and are folded in for sampling.
        averaged: the learning rate rises and decays, and images are sampled from a running average.
        optimizer: AdamW is the fused one, over all tensors side by side in one, instead of PyTorch's default.
        freed: the process keeps freed memory. It is set for a whole process, before anything is loaded.
        products: the U-Net's 1 x 1 convolutions and its narrow attention are matrix products.
        replayed: the U-Net's operations in training are traced once and replayed; with `kept` alone.
    """

    kept: bool = False
    latents: bool = False
    text: bool = False
    solver: bool = False
    guidance: bool = False
    memory: bool = False
    real: bool = False
    decomposed: bool = False
    factored: bool = False
    averaged: bool = False
    optimizer: bool = False
    freed: bool = False
    products: bool = False
    replayed: bool = False

    @classmethod
    def everything(cls) -> "Switches":
        """All on."""
        return cls(**{field.name: True for field in fields(cls)})
