"""Everything that is known of this machine without training, and whether the default search could run on it."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from memcontrol import terms
from memcontrol.cache import default_cache_folder
from memcontrol.data import brain, digits, faces
from memcontrol.data.packages import package_file
from memcontrol.errors import MemControlError, MissingPackageError
from memcontrol.installation.devices import Devices, look_at_devices, torchvision_problem
from memcontrol.installation.folders import Folder, look_at
from memcontrol.installation.packages import (
    OptionalPackage,
    missing_requirements,
    optional_packages,
    shown_versions,
)
from memcontrol.installation.weights import EncoderWeights, encoder_weights
from memcontrol.space import load_space

SCHEMA: Literal["memcontrol/doctor@1"] = "memcontrol/doctor@1"
LEAST_FREE = 500_000_000
"""Bytes that a default search and its cache may take, with room to spare."""
DEFAULT_NEEDS = ("faiss", "efficientnet_lite_pytorch", "nibabel", "nilearn")
"""Optional packages without which the default search cannot run."""
FILES: Mapping[str, tuple[str, str]] = {"brain": brain.FILE, "faces": faces.FILE, "digits": digits.FILE}
ASSETS = Path(__file__).parents[1] / "assets"


@dataclass(frozen=True)
class Embedded:
    """A data source or a model that comes with a package.

    Attributes:
        kind: what it is.
        name: as `--data` or `--model` takes it.
        what: in words.
        comes_with: the package that carries it.
        terms: under which it stands.
        problem: why it cannot be used; None where it can.
    """

    kind: Literal["data", "model"]
    name: str
    what: str
    comes_with: str
    terms: str
    problem: str | None


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What this machine has, and what keeps the default search from running.

    Attributes:
        ready: whether `memcontrol search`, without options, could run.
        problems: one line each; none where it is ready.
        python: its release.
        platform: the operating system and the processor.
        versions: releases of the packages that matter most.
        packages: the optional ones.
        encoders: and their weights.
        embedded: data and models that come with packages.
        cache: where latents, embeddings and features are kept (MEMCONTROL_CACHE).
        here: the folder that this was asked in, where `runs/` is made.
    """

    schema: Literal["memcontrol/doctor@1"] = SCHEMA
    ready: bool
    problems: tuple[str, ...]
    python: str
    platform: str
    versions: Mapping[str, str]
    devices: Devices
    packages: tuple[OptionalPackage, ...]
    encoders: tuple[EncoderWeights, ...]
    embedded: tuple[Embedded, ...]
    cache: Folder
    here: Folder

    def to_json(self) -> dict[str, Any]:
        """The same for scripts."""
        return asdict(self)


def diagnose(here: Path) -> Diagnosis:
    """Look at this machine; nothing is fetched, written or trained, and torch is not loaded where there is no GPU.

    Args:
        here: the folder that runs would be made in.
    """
    packages, encoders, embedded = optional_packages(), encoder_weights(), embedded_sources()
    cache, place = look_at(default_cache_folder(), sized=True), look_at(here, sized=False)
    problems = tuple(dict.fromkeys(_problems(packages, encoders, embedded, (cache, place))))
    return Diagnosis(
        ready=not problems,
        problems=problems,
        python=platform.python_version(),
        platform=platform.platform(),
        versions=shown_versions(),
        devices=look_at_devices(),
        packages=packages,
        encoders=encoders,
        embedded=embedded,
        cache=cache,
        here=place,
    )


def embedded_sources() -> tuple[Embedded, ...]:
    """Data and models that come with packages, and whether they are here."""
    data = [
        Embedded("data", name, told.what, told.comes_with, told.terms, _missing_file(name))
        for name, told in terms.DATA.items()
    ]
    models = [
        Embedded("model", name, told.what, told.comes_with, told.terms, _missing_model(name))
        for name, told in terms.MODELS.items()
    ]
    return (*data, *models)


def _missing_file(name: str) -> str | None:
    try:
        package_file(*FILES[name], extra="demo")
    except MissingPackageError as error:
        return str(error)
    return None


def _missing_model(name: str) -> str | None:
    whole = (ASSETS / name / "model_index.json").is_file() and any((ASSETS / name / "unet").glob("*.safetensors"))
    return None if whole else f"model {name} is not installed with memcontrol: reinstall it"


def _problems(
    packages: Sequence[OptionalPackage],
    encoders: Sequence[EncoderWeights],
    embedded: Sequence[Embedded],
    folders: Sequence[Folder],
) -> Iterator[str]:
    yield from missing_requirements()
    for package in packages:
        if package.name in DEFAULT_NEEDS and package.version is None:
            yield f"package {package.name} is missing ({package.purpose}): {package.get}"
    if (vision := torchvision_problem()) is not None:
        yield vision
    for source in embedded:
        if source.name in ("brain", "tiny") and source.problem is not None:
            yield source.problem
    default = next(encoder for encoder in encoders if encoder.name == "efficientnet-lite0")
    if default.place is None:
        yield default.get
    try:
        load_space("stage-kinds")
    except MemControlError as error:
        yield str(error)
    for folder in folders:
        if not folder.writable:
            yield f"{folder.path} cannot be written: go to another folder, or name one with MEMCONTROL_CACHE or --out"
        elif folder.free < LEAST_FREE:
            yield f"{folder.path}: {folder.free / 1e6:.0f} MB are free, expected {LEAST_FREE / 1e6:.0f}: make room"
