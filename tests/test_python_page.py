"""Every snippet of docs/python.md runs, with fewer steps and images than it says; so does the example that it names."""

import re
import runpy
import sys
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from mixed_masks import PARTS, mask_of

import memcontrol
from memcontrol.pipeline import load_unet

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "python.md").read_text(encoding="utf-8")
EXAMPLE = DOCS / "examples" / "train_with_a_mask.py"
SNIPPETS = [part.partition("```")[0] for part in PAGE.split("```python\n")[1:]]
SMALLER = {
    'data="brain", budget=50': "SMALL, budget=1",
    "fd@efficientnet-lite0": "fd@pixels",
    'memcontrol.DataConfig(source="brain")': "SMALL.data",
    'DataConfig(source="brain")': "SMALL.data",
    "steps=300": "steps=3, batch=4",
    "images=256": "images=24, steps=2",
    "step.number % 100": "step.number % 3",
}
"""What the page says -> what is run instead."""


def smaller(snippet):
    for text, other in SMALLER.items():
        snippet = snippet.replace(text, other)
    return snippet


def test_what_is_made_smaller_is_on_the_page():
    assert [text for text in SMALLER if text not in PAGE] == []


def test_the_snippets_run(tmp_path, monkeypatch, capsys, small_config):
    """In an order in which each finds the files that another makes: stages, own loop, search, what was tuned."""
    monkeypatch.chdir(tmp_path)
    space = {"SMALL": small_config}
    whole, settings, applied, folded, groups, tuned, scored, loaded = SNIPPETS
    for snippet in (groups, tuned, scored, applied, folded, whole, settings, loaded):
        exec(compile(smaller(snippet), "docs/python.md", "exec"), space)
    printed = capsys.readouterr().out
    assert "down.0.attention full " in printed
    assert re.search(r"^3 \d\.\d+$", printed, re.MULTILINE), "a step and its loss"
    assert "numbers train, and everything else is frozen" in printed
    assert "copy_gap@pixels " in printed
    assert space["config"].data.train_size == 64
    assert space["pipeline"].unet.conv_in.weight.isfinite().all()
    released = StableDiffusionPipeline.from_pretrained("tuned").unet.state_dict()
    assert all(torch.equal(tensor, released[name]) for name, tensor in space["pipeline"].unet.state_dict().items())


def test_the_page_names_every_function_and_its_settings():
    missing = [name for name in memcontrol.__all__ if name not in PAGE and name != "SearchSpace"]
    assert missing == []


@pytest.mark.parametrize("name", memcontrol.__all__)
def test_every_name_of_the_package_is_there(name):
    assert getattr(memcontrol, name).__name__ == name
    assert name in dir(memcontrol)


def test_a_stock_loop_trains_a_mask_of_every_method(tmp_path, monkeypatch):
    base = load_unet("tiny")
    mask = mask_of(base, *PARTS)
    file, out = str(mask.save(tmp_path / "one.json")), str(tmp_path / "tuned")
    # More in a batch than there are images.
    monkeypatch.setattr(sys, "argv", [EXAMPLE.name, file, "--out", out, "--steps", "4", "--batch", "40"])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    tuned = StableDiffusionPipeline.from_pretrained(tmp_path / "tuned").unet.state_dict()
    assert tuned.keys() == base.state_dict().keys()
    moved = {name for name, tensor in base.state_dict().items() if not torch.equal(tensor, tuned[name])}
    trained = set(mask.trainable_names())
    assert trained <= moved
    assert {name.replace(".bias", ".weight") for name in moved - trained} <= trained


def test_three_lines_make_a_stock_loop_train_a_mask():
    lines = [line for line in EXAMPLE.read_text(encoding="utf-8").splitlines() if line.endswith("  # mask")]
    assert [line.split()[0] for line in lines] == [
        "import",
        "parameters",
        "memcontrol.fold(accelerator.unwrap_model(unet))",
    ]
