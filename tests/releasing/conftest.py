"""A mask of the shipped model in a file, a training that takes seconds, and the program as users start it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from small_release import CONFIG

from memcontrol.groups import parameter_groups
from memcontrol.mask import Mask


@pytest.fixture(scope="session")
def mask(laboratory):
    unet = laboratory.frozen.unet
    return Mask.build(
        laboratory.space,
        parameter_groups(laboratory.space, unet),
        "100",
        model=laboratory.model,
        unet_numel=sum(parameter.numel() for parameter in unet.parameters()),
        learning_rate=5e-3,
        provenance={"steps": 6},
    )


@pytest.fixture(scope="session")
def mask_file(mask, tmp_path_factory) -> Path:
    return mask.save(tmp_path_factory.mktemp("masks") / "mask.json")


@pytest.fixture(scope="session")
def config_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("config") / "small.yaml"
    path.write_text(yaml.safe_dump(CONFIG))
    return path


@pytest.fixture(scope="session")
def started(mask_file, config_file):
    """Start `memcontrol finetune` with that mask and configuration in a process of its own."""

    def start(
        out: Path, *options: str, launcher: tuple[str, ...] = (), program: tuple[str, ...] = (), modules: str = ""
    ):
        begin = launcher or (sys.executable, *(program or ("-m", "memcontrol.cli")))
        command = [*begin, "finetune", "--mask", mask_file, "--config", config_file, "--out", out, *options]
        return subprocess.Popen(
            [str(part) for part in command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TRANSFORMERS_VERBOSITY": "error", "PYTHONPATH": modules},
            start_new_session=True,
        )

    return start
