"""A small data set, and monitors that look at twenty images of it."""

import pytest

from memcontrol.config import DataConfig, SamplingConfig, ScoringConfig
from memcontrol.data import load_dataset
from memcontrol.monitoring import Monitor
from memcontrol.monitoring.config import MonitorConfig

MEASURES = ("fd@pixels", "copy_gap@pixels")


@pytest.fixture(scope="session")
def slices(tiny):
    """Eight training slices, 32 and 64 held-out ones."""
    data = DataConfig(train_size=8, fidelity=32, copying=64, confirmation=16)
    return load_dataset(data, resolution=tiny.resolution, seed=0)


@pytest.fixture
def monitor(tiny, slices, tmp_path):
    """Makes a monitor of the shipped model; settings of `MonitorConfig` by name."""

    def made(*, frozen=tiny, dataset=slices, folder=tmp_path / "tuned", **settings):
        return Monitor(
            frozen,
            dataset,
            folder=folder,
            config=MonitorConfig(**({"every": 2, "images": 20, "measures": MEASURES, "grid": 10} | settings)),
            sampling=SamplingConfig(steps=2, batch=16),
            scoring=ScoringConfig(permutations=40),
            seed=0,
        )

    return made
