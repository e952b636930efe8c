"""Names, folders and hub ids to loaded pipelines; what could not be tuned rightly is refused in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers import (
    DDIMPipeline,
    DDPMPipeline,
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    UNet2DModel,
)
from huggingface_hub import hf_hub_download

from memcontrol.cache import Cache
from memcontrol.errors import ModelError, first_line, nearest_names
from memcontrol.pipeline.frozen import FrozenPipeline
from memcontrol.pipeline.latent import LatentPipeline
from memcontrol.pipeline.unconditional import UnconditionalPipeline
from memcontrol.plain_files import load_json

SHIPPED = ("tiny", "tiny-sd")
INDEX = "model_index.json"
STABLE_DIFFUSION = "StableDiffusion"
"""How the class names of text-conditional latent pipelines begin."""
UNCONDITIONAL: dict[str, Any] = {"DDPMPipeline": DDPMPipeline, "DDIMPipeline": DDIMPipeline}


def model_folder(model: str) -> str:
    """What to hand to `from_pretrained`: the shipped folder, a local folder, or a hub id.

    Raises:
        ModelError: neither a shipped name, nor an existing folder, nor of the form `owner/name`.
    """
    if model in SHIPPED:
        return str(Path(__file__).parents[1] / "assets" / model)
    path = Path(model)
    if path.is_dir():
        if not (path / INDEX).is_file():
            raise ModelError(f"{model} is not a saved pipeline: it has no {INDEX}; save one with save_pretrained")
        return model
    if model.count("/") == 1 and not path.is_absolute() and not model.startswith("."):
        return model
    close = nearest_names(model, SHIPPED)
    raise ModelError(f"unknown model {model!r}: {close}; or give a pipeline folder or a hub id owner/name")


def load_pipeline(model: str, *, cache: Cache, device: str = "cpu") -> FrozenPipeline:
    """A `FrozenPipeline` from a shipped name, a folder of `save_pretrained`, or a hub id.

    Raises:
        ModelError: it cannot be found or loaded, or it is neither a text-conditional latent diffusion pipeline nor an
            unconditional one.
    """
    source = model_folder(model)
    kind = pipeline_class(source, model)
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    if kind in UNCONDITIONAL:
        loaded = refusing(lambda: UNCONDITIONAL[kind].from_pretrained(source, dtype=torch.float32), model, kind)
        check_unconditional(loaded, model)
        return UnconditionalPipeline(loaded, name=model, device=device, cache=cache)
    loaded = refusing(
        lambda: StableDiffusionPipeline.from_pretrained(
            source, dtype=torch.float32, safety_checker=None, requires_safety_checker=False
        ),
        model,
        "StableDiffusionPipeline",
    )
    check_latent(loaded, model)
    return LatentPipeline(loaded, name=model, device=device, cache=cache)


def load_unet(model: str) -> torch.nn.Module:
    """The U-Net of a pipeline alone.

    Raises:
        ModelError: it cannot be found or loaded, or it is not of a kind of pipeline that can be tuned.
    """
    source = model_folder(model)
    kind = pipeline_class(source, model)
    loaded: torch.nn.Module
    if kind in UNCONDITIONAL:
        # Nothing else in it has weights; and older ones have these beside model_index.json, not in a folder "unet".
        loaded = refusing(lambda: UNCONDITIONAL[kind].from_pretrained(source, dtype=torch.float32), model, kind).unet
    else:
        loaded = refusing(lambda: UNet2DConditionModel.from_pretrained(source, subfolder="unet"), model, kind)
    return loaded


def pipeline_class(source: str, model: str) -> str:
    """The pipeline's class by its model_index.json.

    Raises:
        ModelError: it cannot be read, or no such pipeline can be tuned.
    """
    diffusers.utils.logging.disable_progress_bar()
    named = refusing(lambda: pipeline_index(source), model, "pipeline").get("_class_name")
    # A pipeline that brings its own code names a file before its class.
    name = str(named[-1] if isinstance(named, list) and named else named)
    if name in UNCONDITIONAL or name.startswith(STABLE_DIFFUSION):
        return name
    raise ModelError(
        f"{model} is a {name}: expected a Stable Diffusion style pipeline, or an unconditional one "
        f"({' or '.join(UNCONDITIONAL)})"
    )


def pipeline_index(source: str) -> dict[str, Any]:
    """What model_index.json says of a pipeline: its class, and the library and class of each part.

    Raises:
        OSError, ValueError, TypeError: it cannot be read, or is no JSON object.
    """
    folder = Path(source)
    file = folder / INDEX if folder.is_dir() else Path(hf_hub_download(source, INDEX))
    return dict(load_json(file.read_text(encoding="utf-8")))


def check_latent(loaded: Any, model: str) -> None:
    """Refuse what would train on wrong inputs or towards a wrong target.

    Args:
        loaded: has a U-Net, an autoencoder and a scheduler, with their configurations.

    Raises:
        ModelError: naming what does not fit.
    """
    unet, latents = loaded.unet.config, loaded.vae.config["latent_channels"]
    if unet["in_channels"] != latents:
        raise ModelError(f"{model}: its U-Net takes {unet['in_channels']} channels and its autoencoder gives {latents}")
    colours = loaded.vae.config.get("in_channels", 3), loaded.vae.config.get("out_channels", 3)
    if colours != (3, 3):
        raise ModelError(
            f"{model}: its autoencoder takes images of {colours[0]} channels and gives {colours[1]}: expected 3 and 3; "
            "grey images have their grey in all three"
        )
    if unet.get("addition_embed_type"):
        raise ModelError(f"{model}: its U-Net takes more than latents, time and caption (as SDXL's does)")
    _check_target(loaded.scheduler.config, model)


def check_unconditional(loaded: Any, model: str) -> None:
    """Refuse what is no U-Net on images alone, or learns more than the noise.

    Args:
        loaded: has a U-Net and a scheduler, with their configurations.

    Raises:
        ModelError: naming what does not fit.
    """
    unet, scheduler = loaded.unet.config, loaded.scheduler.config
    if not isinstance(loaded.unet, UNet2DModel):
        raise ModelError(f"{model}: an unconditional pipeline with a {type(loaded.unet).__name__}, not a UNet2DModel")
    if unet["num_class_embeds"] is not None or unet["class_embed_type"] is not None:
        raise ModelError(f"{model}: its U-Net takes class labels: expected one that takes images and time alone")
    channels = unet["in_channels"]
    if unet["out_channels"] != channels or scheduler.get("variance_type") in ("learned", "learned_range"):
        raise ModelError(
            f"{model}: its U-Net takes {channels} channels and gives {unet['out_channels']}, variance "
            f"{scheduler.get('variance_type')}: expected as many out as in, and a variance that is not learned"
        )
    if unet["time_embedding_type"] == "fourier":
        raise ModelError(f"{model}: its U-Net divides by the timestep, which is 0 at times: expected one made for DDPM")
    if channels not in (1, 3):
        raise ModelError(f"{model}: its U-Net takes {channels} channels: expected 3, or 1 for images without colour")
    if not isinstance(unet["sample_size"], int):
        raise ModelError(f"{model}: its U-Net's sample_size is {unet['sample_size']}: expected one number of pixels")
    _check_target(scheduler, model)
    _check_sampler(scheduler, model)


def _check_target(scheduler: Any, model: str) -> None:
    target = scheduler["prediction_type"]
    if target not in ("epsilon", "v_prediction"):
        raise ModelError(f"{model}: prediction type {target}, expected epsilon or v_prediction")


def _check_sampler(scheduler: Any, model: str) -> None:
    """DDPM has noise schedules that the sampler lacks: better said now than after a tuning."""
    try:
        DPMSolverMultistepScheduler.from_config(scheduler)
    except NotImplementedError as error:
        raise ModelError(f"{model}: DPM-Solver++ cannot sample its schedule {scheduler['beta_schedule']}") from error


def refusing(load: Callable[[], Any], model: str, kind: str) -> Any:
    """What `load` gives.

    Raises:
        ModelError: it fails, in one line.
    """
    try:
        return load()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"cannot load {model} as a {kind}: {first_line(error)}") from error
