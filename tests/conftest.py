"""One thread, no network, and no test that needs a GPU where there is none."""

import importlib.util
import os

# Before any test module imports numpy, torch or huggingface_hub, which read these once.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MPLBACKEND"] = "Agg"

import pytest


def pytest_configure() -> None:
    import torch

    torch.set_num_threads(1)


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
