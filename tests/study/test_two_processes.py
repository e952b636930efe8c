"""One trial under `accelerate launch`: its processes agree on the mask, share batches, and end with the same model."""

import json
import os
import runpy
import subprocess
import sys

import pytest

from memcontrol.finetuning import loop

TRIAL = """
import hashlib, json, os, sys
from pathlib import Path

import torch

from memcontrol.cache import Cache
from memcontrol.config import load_config
from memcontrol.finetuning import loop
from memcontrol.study.proposals import Proposer
from memcontrol.study.trial import Laboratory
from memcontrol.tuned_tensors import tensors_sha256

torch.set_num_threads(1)
laboratory = Laboratory(load_config(Path(sys.argv[1])), cache=Cache(Path(sys.argv[2])), device="cpu")
space, objectives = laboratory.candidates, laboratory.config.scoring.objectives
proposer = Proposer(space=space, sampler="random", directions=("minimize",) * len(objectives), seed=3)
candidate = proposer._asked([], 5, 0)

ended = {}
end = loop.Optimization.end

def ending(self, done, before, after):
    end(self, done, before, after)
    ended.update(step=done.number, loss=done.loss, tensors={k: v.detach().clone() for k, v in self.parameters.items()})

loop.Optimization.end = ending
shares = set()
learnt = loop._learnt
loop._learnt = lambda objective, batch, parts: (shares.add(len(batch)), learnt(objective, batch, parts))[1]
groups = space.trained(candidate.levels)
evaluation = laboratory.evaluate(groups, candidate.learning_rate, candidate.steps, lambda *told: None)
found = {
    "processes": laboratory.accelerator.num_processes,
    "mask": candidate.mask,
    "rate": candidate.learning_rate,
    "images of a step": sorted(shares),
    "step": ended["step"],
    "loss": ended["loss"],
    "tensors": tensors_sha256(ended["tensors"]),
    "norm": sum(float(tensor.double().square().sum()) for tensor in ended["tensors"].values()),
    "images": hashlib.sha256(evaluation.images.tobytes()).hexdigest(),
    "scores": {name: evaluation.scores[name].value for name in objectives},
}
Path(sys.argv[3], f"{os.environ.get('RANK', 'alone')}.json").write_text(json.dumps(found))
"""
LAUNCH = "accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no"
EXACT = ("processes", "mask", "rate", "images of a step", "step", "loss", "tensors", "norm", "images", "scores")


def test_two_processes_agree_on_a_trials_mask_and_end_with_the_same_tensors(
    small_config, cache_folder, tmp_path, monkeypatch
):
    (tmp_path / "one_trial.py").write_text(TRIAL)
    (tmp_path / "config.yaml").write_text(small_config.to_yaml())
    words = [str(path) for path in (tmp_path / "config.yaml", cache_folder, tmp_path)]
    launch = [*LAUNCH.split(), "--dynamo_backend", "no", "--main_process_port", "0", "one_trial.py"]
    ran(tmp_path, "-m", *launch, *words)
    monkeypatch.setattr(loop, "_learnt", loop._learnt)  # which the script replaces
    monkeypatch.setattr(loop.Optimization, "end", loop.Optimization.end)
    monkeypatch.setattr(sys, "argv", ["one_trial.py", *words])
    runpy.run_path(str(tmp_path / "one_trial.py"), run_name="__main__")
    alone, first, second = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("alone", "0", "1"))
    assert {key: first[key] for key in EXACT} == {key: second[key] for key in EXACT}
    assert (alone["processes"], first["processes"]) == (1, 2)
    assert (alone["images of a step"], first["images of a step"]) == ([4], [2]), "they share each batch"
    assert "1" in first["mask"]
    assert (first["mask"], first["rate"], first["step"]) == (alone["mask"], alone["rate"], alone["step"])
    assert first["loss"] == pytest.approx(alone["loss"], rel=1e-4)
    assert first["norm"] == pytest.approx(alone["norm"], rel=1e-3)


def ran(folder, *command):
    """A process that ends well."""
    environment = {**os.environ, "TRANSFORMERS_VERBOSITY": "error", "CUDA_VISIBLE_DEVICES": ""}
    words = [sys.executable, *map(str, command)]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
