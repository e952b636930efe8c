"""What training can run on here, and whether torchvision suits torch; torch is loaded only where there may be a GPU."""

from __future__ import annotations

import ast
import ctypes.util
import importlib.metadata
import importlib.util
import os
import platform
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from memcontrol.installation.packages import version_of
from memcontrol.study.placement import usable_cores

DRIVERS = (Path("/proc/driver/nvidia/version"), Path("/dev/kfd"))
"""What NVIDIA's driver and AMD's leave where they are loaded."""


@dataclass(frozen=True)
class Devices:
    """What training can run on.

    Attributes:
        cores: of the CPU that this process may use; a search has a worker on each where there is no GPU.
        threads: of each worker, from OMP_NUM_THREADS; None where it is not set, and commands take one.
        gpus: names of CUDA devices.
        mps: whether Apple's GPU can be used.
        note: why there is no GPU, or what there is.
    """

    cores: int
    threads: int | None
    gpus: tuple[str, ...]
    mps: bool
    note: str


def look_at_devices() -> Devices:
    """The devices of this machine."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    threads = int(given) if given.isdecimal() else None
    built = cuda_build()
    apple = sys.platform == "darwin" and platform.machine() == "arm64"
    if importlib.util.find_spec("torch") is None:
        return Devices(usable_cores(), threads, (), False, "torch is not installed")
    if not apple and built is None:
        return Devices(usable_cores(), threads, (), False, "no GPU: this torch is built for the CPU alone")
    if not apple and not (any(driver.exists() for driver in DRIVERS) or ctypes.util.find_library("cuda")):
        return Devices(
            usable_cores(), threads, (), False, f"no GPU: torch is built for CUDA {built}, no driver is here"
        )
    return _asked(threads)


def _asked(threads: int | None) -> Devices:
    import torch

    gpus = tuple(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    mps = torch.backends.mps.is_available()
    what = ", ".join([*gpus, *(["MPS, which searches do not use by themselves"] if mps else [])])
    return Devices(usable_cores(), threads, gpus, mps, what or "no GPU: torch finds none, though a driver is here")


def cuda_build() -> str | None:
    """The release of CUDA (or of ROCm) that the installed torch is built for; None for a build for the CPU.

    Read from the text of torch's own `version.py`, since importing torch takes seconds.
    """
    spec = importlib.util.find_spec("torch")
    place = next(iter(spec.submodule_search_locations or ()), None) if spec else None
    file = Path(place or ".") / "version.py"
    if place is None or not file.is_file():
        return None
    found: dict[str, str | None] = {}
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Constant):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Name):
                    found[target.id] = node.value.value if isinstance(node.value.value, str) else None
    return found.get("cuda") or found.get("hip")


def torchvision_problem() -> str | None:
    """Why torchvision keeps transformers, and so every pipeline, from being imported; None where it does not.

    torchvision is built for one release of torch, and one build of it. Nothing here needs it but the medical encoders.
    """
    vision, torch = version_of("torchvision"), version_of("torch")
    if vision is None or torch is None:
        return None
    wanted = torch_wanted(importlib.metadata.requires("torchvision") or [])
    if wanted and wanted != torch.partition("+")[0]:
        return _mend(f"torchvision {vision} is built for torch {wanted}, and torch is {torch}")
    builds = {build for version in (vision, torch) if (build := version.partition("+")[2])}
    if len(builds) > 1:
        return _mend(f"torchvision {vision} and torch {torch} are of different builds")
    return None


def torch_wanted(requirements: list[str]) -> str | None:
    """The release of torch that requirements pin."""
    pins = (
        re.fullmatch(r"torch\s*\(?==\s*([\w.]+)\)?", requirement.partition(";")[0].strip())
        for requirement in requirements
    )
    return next((pin[1] for pin in pins if pin), None)


def _mend(what: str) -> str:
    return (
        f"{what}: transformers cannot be imported then; pip uninstall torchvision, which only the medical encoders "
        "need, or install what constraints-medical.txt names"
    )
