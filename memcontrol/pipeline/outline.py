"""A pipeline as far as it can be known before anything large is loaded: its files, and its networks without weights."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import transformers
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel, UNet2DModel
from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open

from memcontrol.errors import ModelError, listed
from memcontrol.pipeline.loading import (
    UNCONDITIONAL,
    check_latent,
    check_unconditional,
    model_folder,
    pipeline_class,
    pipeline_index,
    refusing,
)
from memcontrol.plain_files import load_json

NOT_LOADED = ("safety_checker", "image_encoder")
_SETTINGS = {
    "scheduler": ("scheduler_config.json",),
    "tokenizer": ("vocab.json", "tokenizer.json"),
    "feature_extractor": ("preprocessor_config.json",),
}
"""For each part without weights, the files of which one must be there."""
_WEIGHTS = re.compile(r"(diffusion_pytorch_model|model|pytorch_model)\.(safetensors|bin)(\.index\.json)?")
_SHOWN = 3


@dataclass(frozen=True)
class PipelineOutline:
    """A pipeline without weights.

    Attributes:
        folder: where its files are.
        unet: on the meta device, as are the others.
        vae, text_encoder: None in an unconditional pipeline.
        text_length: tokens of a caption; 0 without text.
        resolution: height and width of its images, in pixels.
        latent_shape: `(C, h, w)` of one image's latents.
    """

    folder: Path
    unet: Any
    vae: Any
    text_encoder: Any
    text_length: int
    resolution: int
    latent_shape: tuple[int, int, int]

    @property
    def text_width(self) -> int:
        """Numbers in the embedding of one token; 0 without text."""
        return 0 if self.text_encoder is None else int(self.text_encoder.config.hidden_size)

    @property
    def modules(self) -> dict[str, torch.nn.Module]:
        """Its networks by what the pipeline calls them."""
        named = {"unet": self.unet, "vae": self.vae, "text_encoder": self.text_encoder}
        return {name: module for name, module in named.items() if module is not None}


def local_folder(model: str) -> Path:
    """The folder that holds a model's files: shipped, the user's own, or in the hub's cache; nothing is fetched.

    Raises:
        ModelError: no such model, or a hub id that has not been downloaded.
    """
    source = model_folder(model)
    if Path(source).is_dir():
        return Path(source)
    try:
        return Path(snapshot_download(source, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, HfHubHTTPError, OSError) as error:
        raise ModelError(
            f"{model} is no folder here and has not been downloaded (nothing of it in {constants.HF_HUB_CACHE}): "
            f"give the folder of a saved pipeline with --model, or run hf download {model} where there is a network"
        ) from error


def file_problems(folder: Path, model: str) -> list[str]:
    """A sentence on each part of a saved pipeline whose files are missing or broken."""
    problems = []
    for name, kind in pipeline_index(str(folder)).items():
        if name.startswith("_") or not isinstance(kind, list) or kind[:1] in ([], [None]) or name in NOT_LOADED:
            continue
        place = _place(folder, name)
        wanted = _SETTINGS.get(name, ("config.json",))
        if not any((place / file).is_file() for file in wanted):
            problems.append(f"{model}: no {name}/{' or '.join(wanted)} in {folder}: copy the whole pipeline there")
        elif name not in _SETTINGS:
            problems += _weight_problems(place, name, model)
    return problems


def load_outline(model: str) -> PipelineOutline:
    """A model's networks on the meta device, refused where `load_pipeline` would refuse them.

    Raises:
        ModelError: not downloaded, not readable, or no pipeline that can be tuned.
    """
    folder = local_folder(model)
    kind = pipeline_class(str(folder), model)
    return refusing(lambda: _outlined(folder, kind, model), model, kind)  # type: ignore[no-any-return]


def weight_mismatch(outline: PipelineOutline, model: str) -> str | None:
    """A sentence where the U-Net's weights are not those of its config.json; None where they are, or cannot be read."""
    stored: dict[str, list[int]] = {}
    for file in sorted(_place(outline.folder, "unet").glob("*.safetensors")):
        if not _WEIGHTS.fullmatch(file.name) and "-of-" not in file.name:
            continue
        try:
            with safe_open(file, framework="pt") as tensors:
                stored |= {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}  # noqa: SIM118
        except SafetensorError:
            return None
    wanted = {name: list(tensor.shape) for name, tensor in outline.unet.state_dict().items()}
    # Older U-Nets have other names for attention, which diffusers puts right where it loads them.
    outline.unet._fix_state_dict_keys_on_load(stored)
    wrong = sorted(name for name, shape in wanted.items() if stored.get(name) != shape)
    if not stored or not wrong:
        return None
    named = listed(wrong, _SHOWN)
    return f"{model}: {len(wrong)} of {len(wanted)} tensors of unet are missing or of another size ({named})"


def _outlined(folder: Path, kind: str, model: str) -> PipelineOutline:
    place = _place(folder, "scheduler")
    scheduler = DDPMScheduler.from_config(DDPMScheduler.load_config(place))
    if kind in UNCONDITIONAL:
        unet = _on_meta(UNet2DModel, _place(folder, "unet"))
        check_unconditional(SimpleNamespace(unet=unet, scheduler=scheduler), model)
        size, channels = int(unet.config["sample_size"]), int(unet.config["in_channels"])
        return PipelineOutline(folder, unet, None, None, 0, size, (channels, size, size))
    unet, vae = _on_meta(UNet2DConditionModel, folder / "unet"), _on_meta(AutoencoderKL, folder / "vae")
    check_latent(SimpleNamespace(unet=unet, vae=vae, scheduler=scheduler), model)
    settings = transformers.CLIPTextConfig.from_pretrained(folder / "text_encoder")
    with torch.device("meta"):
        text_encoder = transformers.CLIPTextModel(settings)
    size = int(unet.config["sample_size"])
    factor = 2 ** (len(vae.config["block_out_channels"]) - 1)
    shape = (int(unet.config["in_channels"]), size, size)
    return PipelineOutline(folder, unet, vae, text_encoder, int(settings.max_position_embeddings), size * factor, shape)


def _on_meta(kind: Any, place: Path) -> Any:
    with torch.device("meta"):
        return kind.from_config(kind.load_config(place)).eval()


def _place(folder: Path, name: str) -> Path:
    """The subfolder of a part; older unconditional pipelines have their files beside model_index.json."""
    return folder / name if (folder / name).is_dir() or not (folder / "config.json").is_file() else folder


def _weight_problems(place: Path, name: str, model: str) -> Iterator[str]:
    files = sorted(file for file in place.iterdir() if _WEIGHTS.fullmatch(file.name))
    if not files:
        others = sorted(file.name for file in place.iterdir() if file.suffix in (".safetensors", ".bin"))
        got = f" (only {', '.join(others)}, which is a variant)" if others else ""
        yield f"{model}: no weights of {name} in {place}{got}: copy diffusion_pytorch_model or model .safetensors there"
        return
    chosen = next((file for file in files if ".safetensors" in file.name), files[0])
    try:
        shards = _shards(chosen)
    except (ValueError, LookupError, TypeError, AttributeError):
        yield f"{model}: {chosen} is not whole (expected JSON with a weight_map from tensors to files): copy it again"
        return
    for file in shards:
        if not file.is_file():
            yield f"{model}: {place / chosen.name} names {file.name}, which is not there: copy all of its files"
        elif file.suffix == ".safetensors":
            try:
                with safe_open(file, framework="pt"):
                    pass
            except (SafetensorError, OSError) as error:
                yield f"{model}: {file} is not whole ({error}): copy it again"


def _shards(file: Path) -> list[Path]:
    if not file.name.endswith(".index.json"):
        return [file]
    named = load_json(file.read_text(encoding="utf-8"))["weight_map"]
    return [file.parent / name for name in sorted(set(named.values()))]
