"""A training that was broken off, in whatever way, ends in the very tensors and tables of one that was not."""

import errno
import signal
import sys
from dataclasses import replace

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file
from small_release import finished
from typer.testing import CliRunner

from memcontrol.cli import app
from memcontrol.comparison.config import read_settings
from memcontrol.errors import RunError
from memcontrol.groups import parameter_groups
from memcontrol.mask import Mask
from memcontrol.mask_records import ModelIdentity
from memcontrol.releasing import FinetuneConfig, Told, release
from memcontrol.releasing.curve import LossCurve
from memcontrol.space import SearchSpace

MONITORED = ("--monitor-every", "3", "--monitor-images", "8", "--monitor-scores", "copy_gap@pixels")
KILLED_AT = 5
SUICIDAL = f"""
import os, signal
from memcontrol.releasing import curve

add = curve.LossCurve.add

def add_and_die(self, step):
    add(self, step)
    if step.number == {KILLED_AT}:
        os.kill(os.getpid(), signal.SIGKILL)

curve.LossCurve.add = add_and_die
from memcontrol.cli import main
main()
"""


@pytest.fixture(scope="module")
def run(mask_file, config_file):
    """`memcontrol finetune` in this process, with that mask and configuration."""

    def finetune(out, *options):
        command = ["finetune", "--mask", mask_file, "--config", config_file, "--out", out, *options]
        return CliRunner().invoke(app, [str(part) for part in command], env={"COLUMNS": "300"})

    return finetune


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory):
    """What an uninterrupted training saved."""
    out = tmp_path_factory.mktemp("whole") / "out"
    result = run(out, *MONITORED)
    assert result.exit_code == 0, result.output
    return out


def lines(path):
    return path.read_text().splitlines()


def assert_same_release(out, whole):
    """Every tensor bit for bit, and the tables of losses and looks line for line."""
    assert not (out / "training" / "checkpoints").exists()
    files = sorted(path.relative_to(whole) for path in whole.rglob("*.safetensors"))
    assert files == sorted(path.relative_to(out) for path in out.rglob("*.safetensors"))
    assert len(files) >= 4
    for file in files:
        expected, found = load_file(whole / file), load_file(out / file)
        assert expected.keys() == found.keys()
        assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items()), file
    for table in ("losses.csv", "monitor.csv"):
        assert lines(out / "training" / table) == lines(whole / "training" / table)
    assert {path.name for path in out.iterdir()} == {path.name for path in whole.iterdir()}
    # The command alone draws.
    names = {path.name for path in (out / "training").iterdir()} | {"monitor.png"}
    assert names == {path.name for path in (whole / "training").iterdir()}


def test_killed_in_the_middle_the_same_command_ends_in_the_same_tensors(started, run, whole, tmp_path):
    out = tmp_path / "out"
    process = started(out, *MONITORED, program=("-c", SUICIDAL))
    printed, errors = process.communicate(timeout=240)
    assert process.returncode == -signal.SIGKILL, printed + errors
    assert not (out / "mask.json").exists()
    assert not (out / "model_index.json").exists()
    records = out / "training"
    assert [path.name for path in sorted((records / "checkpoints").iterdir())] == ["step-00000002", "step-00000004"]
    assert len(lines(records / "losses.csv")) == 1 + KILLED_AT
    result = run(out, *MONITORED)
    assert result.exit_code == 0, result.output
    assert "goes on from step 4, where the last checkpoint was written" in result.stdout
    assert_same_release(out, whole)


class BrokenOffError(Exception):
    pass


def settings(config_file, **changes):
    content = read_settings(config_file, FinetuneConfig).model_dump(exclude_unset=True)
    monitor = {"every": 3, "images": 8, "measures": ["copy_gap@pixels"]}
    return FinetuneConfig.model_validate(content | {"monitor": monitor} | changes)


def broken_off(mask, config, out, at):
    """A training that its caller breaks off after a step."""

    def on_step(step):
        if step.number == at:
            raise BrokenOffError

    with pytest.raises(BrokenOffError):
        release(mask, config, out, told=Told(step=on_step))


def test_from_a_truncated_checkpoint_it_goes_on_from_the_one_before(mask, config_file, whole, tmp_path):
    out, notes, steps = tmp_path / "out", [], []
    broken_off(mask, settings(config_file), out, 5)
    newest = out / "training" / "checkpoints" / "step-00000004" / "shared.safetensors"
    newest.write_bytes(newest.read_bytes()[:1000])
    release(mask, settings(config_file), out, told=Told(notes.append, lambda step: steps.append(step.number)))
    assert steps == [3, 4, 5, 6]
    (passed,) = (note for note in notes if "passed over" in note)
    assert "step-00000004 is not whole (shared.safetensors has 1,000 bytes of" in passed
    assert_same_release(out, whole)


def test_interrupted_before_any_checkpoint_it_has_its_picture_and_begins_anew(
    mask, config_file, run, whole, tmp_path, monkeypatch
):
    out, steps = tmp_path / "out", []

    def interrupted(_self, _step):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(LossCurve, "add", interrupted)
        result = run(out, *MONITORED)
    assert result.exit_code == 130
    assert (out / "training" / "monitor.png").read_bytes().startswith(b"\x89PNG")
    release(mask, settings(config_file), out, told=Told(step=lambda step: steps.append(step.number)))
    assert steps == [1, 2, 3, 4, 5, 6]
    assert_same_release(out, whole)


def test_a_full_disk_while_saving_leaves_the_checkpoint_and_the_same_command_saves(
    mask, config_file, whole, tmp_path, monkeypatch
):
    out = tmp_path / "out"

    def full(_pipeline, folder, **_settings):
        (folder / "model_index.json").write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(DiffusionPipeline, "save_pretrained", full)
        with pytest.raises(
            RunError, match=r"cannot save to .*out \(No space left on device\): free space there and give"
        ):
            release(mask, settings(config_file), out)
    assert [path.name for path in out.iterdir()] == ["training"]
    assert "checkpoints" in {path.name for path in (out / "training").iterdir()}
    steps = []
    release(mask, settings(config_file), out, told=Told(step=lambda step: steps.append(step.number)))
    assert steps == [], "the last step was in the last checkpoint"
    assert_same_release(out, whole)


def test_other_settings_are_refused_with_the_difference_and_overwriting_trains_anew(mask, config_file, tmp_path):
    out = tmp_path / "out"
    plain = settings(config_file, monitor={})
    broken_off(mask, plain, out, 3)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for change, said in (
        ({"learning_rate": 1e-4}, r"learning_rate was 0\.005, now 0\.0001"),
        ({"data": {"train_size": 7, "fidelity": 24}}, r"data\.train_size was 8, now 7"),
        ({"tuning": plain.tuning.model_copy(update={"steps": 7})}, r"tuning\.steps was 6, now 7"),
    ):
        with pytest.raises(RunError, match=f"unfinished training with other settings: .*{said}.*--overwrite"):
            release(mask, plain.model_copy(update=change) if "tuning" in change else merged(plain, change), out)
    other = replace(mask, name="another")
    with pytest.raises(RunError, match=r"mask was .*, now another"):
        release(other, plain, out)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    steps = []
    told = Told(step=lambda step: steps.append(step.number))
    release(mask, merged(plain, {"tuning": {"steps": 2, "batch": 4}}), out, overwrite=True, told=told)
    assert steps == [1, 2]


def merged(config, change):
    return FinetuneConfig.model_validate(config.model_dump(exclude_unset=True) | change)


def test_a_finished_training_is_refused_and_kept_unless_it_may_be_overwritten(run, whole, tmp_path):
    out = tmp_path / "out"
    assert run(out, "--steps", "1").exit_code == 0
    before = (out / "tuned.safetensors").read_bytes()
    result = run(out, "--steps", "1")
    assert result.exit_code == 1
    assert (
        "it holds a finished training: name another with --out, or train anew in it with --overwrite" in result.stderr
    )
    assert (out / "tuned.safetensors").read_bytes() == before
    result = run(out, "--steps", "1", "--seed", "1", "--overwrite")
    assert result.exit_code == 0, result.output
    assert (out / "tuned.safetensors").read_bytes() != before
    (out / "notes.txt").write_text("mine")
    assert "it holds notes.txt, which this program did not write" in run(out, "--steps", "1", "--overwrite").stderr
    (out / "training" / "mask.json").unlink()
    assert "exists and is not an empty folder: name another" in run(out, "--steps", "1", "--overwrite").stderr
    assert (out / "notes.txt").read_text() == "mine"


# In a file of its own, so that it can be started as `memcontrol.cli` is: that program twice, broken off the first time.
TWICE = """
import runpy
from memcontrol.releasing.session import Session

check_point = Session._check_point

class BrokenOffError(Exception):
    pass

def broken_off(self, number, state):
    check_point(self, number, state)
    if number == 2:
        Session._check_point = check_point
        raise BrokenOffError

Session._check_point = broken_off
try:
    runpy.run_module("memcontrol.cli", run_name="__main__", alter_sys=True)
except BrokenOffError:
    runpy.run_module("memcontrol.cli", run_name="__main__", alter_sys=True)
"""


def test_two_processes_broken_off_and_resumed_end_where_one_does(started, run, laboratory, tmp_path):
    """Every method's gradients are averaged: the same losses and tensors up to rounding, and one process's words."""
    (tmp_path / "twice.py").write_text(TWICE)
    masks, one, two = tmp_path / "mask.json", tmp_path / "one", tmp_path / "two"
    all_methods(laboratory.frozen.unet).save(masks)
    launched = (
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--multi_gpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
    )
    launched += (
        "--mixed_precision",
        "no",
        "--dynamo_backend",
        "no",
        "--main_process_port",
        "0",
        "-m",
        "twice",
    )
    options = ("--mask", masks, "--steps", "4", "--accumulation", "2", "--save", "tuned")
    process = started(two, *options, launcher=launched, modules=str(tmp_path))
    plain = run(one, "--mask", masks, *options)
    assert plain.exit_code == 0, plain.output
    printed = finished(process)
    assert printed.count("saved ") == printed.count("goes on from step 2, where") == 1
    tables = (lines(folder / "training" / "losses.csv")[1:] for folder in (one, two))
    expected, found = ([line.split(",") for line in table] for table in tables)
    assert [float(row[1]) for row in found] == pytest.approx([float(row[1]) for row in expected], rel=1e-4)
    assert [row[1] for row in found] != [row[1] for row in expected], "one process trained alone"
    expected, found = (load_file(folder / "tuned-compact.safetensors") for folder in (one, two))
    assert {name.rpartition(".")[2] for name in expected} >= {"shift", "lora_A", "lora_B", "difffit_scale_0", "bias"}
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=2e-2, atol=1e-3)


def all_methods(unet):
    """A mask with a group of each method."""
    parts = [
        {"name": "full", "select": ["conv_norm_out.*", "conv_out.bias"]},
        {"name": "shifts", "method": "svdiff", "select": ["conv_in.weight"]},
        {"name": "scales", "method": "difffit", "select": ["time_embedding.linear_1.weight"]},
        {"name": "low-rank", "method": "lora", "rank": 2, "alpha": 2, "select": ["*.to_q.weight"]},
    ]
    content = {"schema": "memcontrol/search-space@1", "name": "mixed", "learning_rate": 1e-3, "parts": parts}
    space = SearchSpace.model_validate(content)
    return Mask.build(
        space,
        parameter_groups(space, unet),
        "1111",
        model=ModelIdentity.of(unet, "tiny"),
        unet_numel=sum(parameter.numel() for parameter in unet.parameters()),
        learning_rate=5e-3,
    )
