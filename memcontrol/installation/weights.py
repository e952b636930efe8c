"""Which encoders have their weights here, and how to get those that are missing."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from memcontrol import terms
from memcontrol.data.packages import package_file
from memcontrol.encoders import biovil, chest, clip, dinov2, efficientnet, inception
from memcontrol.errors import MissingPackageError

XRV_FILE = "mimic_ch-densenet121-d121-tw-lr001-rot45-tr15-sc15-seed0-best.pt"
"""As which torchxrayvision keeps the weights of `chest.WEIGHTS`."""


@dataclass(frozen=True)
class EncoderWeights:
    """An encoder and its weights.

    Attributes:
        needs: the optional package that it runs on; None where it needs none.
        place: where its weights are; None where they were not found.
        get: how to get them, or how to give them; empty where nothing is needed.
        terms: under which they stand.
    """

    name: str
    needs: str | None
    place: str | None
    get: str
    terms: str


def encoder_weights() -> tuple[EncoderWeights, ...]:
    """Every encoder; nothing is loaded or fetched."""
    return (
        _embedded(),
        EncoderWeights("pixels", None, "none needed", "", terms.ENCODERS["pixels"].terms),
        EncoderWeights("latents", None, "the model's own", "", terms.ENCODERS["latents"].terms),
        _on_hub("clip", clip.DEFAULT, "config.json", None),
        _on_hub("dinov2", dinov2.DEFAULT, "config.json", None),
        _file("inception", _torch_hub() / inception.WEIGHTS, "torch_fidelity", "torch-fidelity's release v0.2.0"),
        _file(
            "xrv-densenet121",
            Path.home() / ".torchxrayvision" / "models_data" / XRV_FILE,
            "torchxrayvision",
            f'torchxrayvision.models.DenseNet(weights="{chest.WEIGHTS}"), which fetches it',
        ),
        _on_hub("biovil-t", biovil.HUB_ID, biovil.IMAGE_WEIGHTS, "health_multimodal"),
    )


def _embedded() -> EncoderWeights:
    name = efficientnet.EfficientNetLite0.name
    try:
        place, get = str(package_file(*efficientnet.FILE, extra="demo")), ""
    except MissingPackageError as error:
        place, get = None, str(error)
    return EncoderWeights(name, "efficientnet_lite_pytorch", place, get, terms.ENCODERS[name].terms)


def _on_hub(name: str, source: str, file: str, needs: str | None) -> EncoderWeights:
    """Of a repository of the Hugging Face hub, where its copy in the local cache is found by one of its files."""
    found = sorted((_hub_cache() / f"models--{source.replace('/', '--')}" / "snapshots").glob(f"*/{file}"))
    place = str(found[-1].parent) if found else None
    get = f"hf download {source}"
    # Those that know a hub id of their own look in the cache themselves.
    given = "" if name in ("clip", "dinov2") else f"--weights {name}={place or 'FOLDER'}"
    steps = [given] if place else [get, given]
    return EncoderWeights(name, needs, place, ", then ".join(filter(None, steps)), terms.ENCODERS[name].terms)


def _file(name: str, path: Path, needs: str, source: str) -> EncoderWeights:
    """Of a file that another package keeps."""
    place = str(path) if path.is_file() else None
    given = f"--weights {name}={place or 'FILE'}"
    get = given if place else f"get {path.name} from {source}, then {given}"
    return EncoderWeights(name, needs, place, get, terms.ENCODERS[name].terms)


def _hub_cache() -> Path:
    """As huggingface_hub finds it."""
    base = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or Path(base) / "hub").expanduser()


def _torch_hub() -> Path:
    """Where torch keeps downloaded weights."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("TORCH_HOME") or base / "torch").expanduser() / "hub" / "checkpoints"
