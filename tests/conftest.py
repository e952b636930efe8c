"""One thread, no network, a cache of its own, and no test that needs a GPU where there is none."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

# Before any test module imports numpy, torch or huggingface_hub, which read these once.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MPLBACKEND"] = "Agg"

import pytest

if TYPE_CHECKING:
    from memcontrol.config import RunConfig
    from memcontrol.pipeline import FrozenPipeline
    from memcontrol.study.trial import Laboratory

# diffusers 0.42 hands a torch tensor to np.array, and torch 2.13 lacks the keyword that NumPy 2 asks for.
ALLOWED = (
    "ignore:__array__ implementation doesn't accept a copy keyword"
    ":DeprecationWarning:diffusers.schedulers.scheduling_dpmsolver_multistep"
)


def pytest_configure(config: pytest.Config) -> None:
    import torch

    torch.set_num_threads(1)
    config.addinivalue_line("filterwarnings", ALLOWED)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    import torch

    missing = {
        "gpu": None if torch.cuda.is_available() else "no CUDA device",
        "medical": None if importlib.util.find_spec("torchxrayvision") else "the medical extra is not installed",
    }
    for item in items:
        for name, reason in missing.items():
            if reason and item.get_closest_marker(name):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty cache, so that no test reads what an earlier run of the tests or of the program left."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEMCONTROL_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def tiny(cache_folder: Path) -> FrozenPipeline:
    """The shipped pipeline, shared: every test leaves its U-Net as it was."""
    from memcontrol.cache import Cache
    from memcontrol.pipeline import load_pipeline

    return load_pipeline("tiny", cache=Cache(cache_folder))


@pytest.fixture(scope="session")
def ddpm_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Saved unconditional pipelines, by their number of channels."""
    from ddpm_models import ddpm

    folders = {channels: tmp_path_factory.mktemp("models") / f"ddpm-{channels}" for channels in (1, 3)}
    for channels, folder in folders.items():
        ddpm(in_channels=channels, out_channels=channels).save_pretrained(folder)
    return folders


SPACE = """
schema: memcontrol/search-space@1
name: three-groups
learning_rate: {low: 1.0e-3, high: 1.0e-2}
parts:
  - {select: ["*.attentions.*"], name: attention}
  - {select: ["*.resnets.*"], name: resnets}
  - {select: ["conv_*"], name: ends}
"""


@pytest.fixture(scope="session")
def space_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search space of three groups and five learning rates, 36 candidates."""
    path = tmp_path_factory.mktemp("space") / "three-groups.yaml"
    path.write_text(SPACE)
    return path


@pytest.fixture(scope="session")
def small_config(space_file: Path) -> RunConfig:
    """A search of three candidates that takes some seconds, scored without a network."""
    from memcontrol.config import validated

    return validated(
        {
            "data": {"train_size": 8, "fidelity": 32, "copying": 64, "confirmation": 16},
            "space": str(space_file),
            "tuning": {"steps": 6, "batch": 4},
            "sampling": {"images": 24, "steps": 3},
            "scoring": {
                "objectives": ["fd@pixels", "copy_gap@pixels"],
                "reported": ["kid@pixels", "amd@pixels"],
                "permutations": 20,
            },
            "search": {"budget": 3, "trajectory_rates": [1e-3], "trajectory_points": [1.0]},
        },
        where="tests",
    )


@pytest.fixture(scope="session")
def laboratory(small_config: RunConfig, cache_folder: Path) -> Laboratory:
    """What the trials of `small_config` share."""
    from memcontrol.cache import Cache
    from memcontrol.study.trial import Laboratory

    return Laboratory(small_config, cache=Cache(cache_folder), device="cpu")
