"""A diffusers pipeline in, a `FrozenPipeline` out: the U-Net to tune, and everything else encoded once and cached."""

from memcontrol.pipeline.frozen import FrozenPipeline, LatentMoments, TextEmbeddings
from memcontrol.pipeline.latent import LatentPipeline
from memcontrol.pipeline.loading import SHIPPED, load_pipeline, load_unet, model_folder
from memcontrol.pipeline.unconditional import UnconditionalPipeline

__all__ = [
    "SHIPPED",
    "FrozenPipeline",
    "LatentMoments",
    "LatentPipeline",
    "TextEmbeddings",
    "UnconditionalPipeline",
    "load_pipeline",
    "load_unet",
    "model_folder",
]
