"""Unconditional pipelines through every command: inspect, search and finetune."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from accelerate import Accelerator
from ddpm_models import ddpm
from diffusers import DDPMPipeline
from typer.testing import CliRunner

from memcontrol.cache import Cache
from memcontrol.cli import app
from memcontrol.config import validated
from memcontrol.finetuning import finetune_pipeline, training_batches
from memcontrol.groups import parameter_groups
from memcontrol.mask import Mask
from memcontrol.methods import tuned
from memcontrol.pipeline import load_pipeline
from memcontrol.space import load_space
from memcontrol.study.trial import Laboratory

SECTIONS = {
    "data": {"train_size": 8, "fidelity": 32, "copying": 64, "confirmation": 16},
    "tuning": {"batch": 4},
    "sampling": {"steps": 2},
    "scoring": {
        "objectives": ["fd@pixels", "copy_gap@pixels"],
        "reported": ["fd@latents", "amd@pixels", "copy_gap_raw@pixels"],
        "components": 4,
        "permutations": 10,
    },
    "search": {"trajectory_rates": [1e-3], "trajectory_points": [1.0]},
    "confirm": {"seeds": 1, "trainings": 2},
}
SCORES = ["fd@pixels", "copy_gap@pixels", "fd@latents", "amd@pixels"]
SPACES = ("stage-kinds", "stages", "attention-blocks", "layer-kinds", "attention-matrices")


def run(*args):
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def trials(folder):
    """What every trial tried and scored, from the masks that it wrote."""
    masks = [Mask.from_pretrained(path) for path in sorted((folder / "masks").glob("*.json"))]
    return [(mask.bits, mask.learning_rate, mask.scores) for mask in masks]


@pytest.fixture(scope="module")
def searched(ddpm_folders, tmp_path_factory):
    """A finished search on handwritten digits for each number of channels: its folder and what it printed."""
    config = tmp_path_factory.mktemp("config") / "small.yaml"
    config.write_text(yaml.safe_dump(SECTIONS))
    runs = {}
    for channels, model in ddpm_folders.items():
        out = tmp_path_factory.mktemp("runs") / str(channels)
        arguments = ["--model", model, "--data", "digits", "--budget", 3, "--steps", 3, "--images", 24]
        arguments += ["--confirm", int(channels == 1)]
        told = run("search", "--config", config, *arguments, "--workers", 1, "--json", "--out", out)
        runs[channels] = SimpleNamespace(out=out, told=told)
    return runs


@pytest.mark.parametrize("channels", [1, 3])
def test_a_search_scores_its_candidates(searched, channels):
    done = trials(searched[channels].out)
    assert len(done) == 3
    for _, _, scores in done:
        assert list(scores) == SCORES, "without an autoencoder, a raw score would be a repetition"
        assert all(np.isfinite(score["value"]) for score in scores.values())
    assert len({scores["fd@pixels"]["value"] for _, _, scores in done}) == 3


def test_a_front_is_confirmed_on_an_encoder_that_needs_no_autoencoder(searched):
    front = json.loads((searched[1].out / "front.json").read_text())
    assert [score["name"] for score in front["confirmation"]["scores"]][2:] == [
        "fd@efficientnet-lite0",
        "copy_gap@efficientnet-lite0",
    ]
    assert [member["confirmed"]["seeds"] for member in front["front"] if member["confirmed"]] == [[101]]
    assert json.loads((searched[3].out / "front.json").read_text())["confirmation"] is None


@pytest.mark.parametrize("channels", [1, 3])
def test_the_user_is_told_once_that_captions_are_ignored(searched, channels):
    texts = [event.get("text", "") for event in map(json.loads, searched[channels].told.splitlines())]
    assert sum("is unconditional: captions are ignored, and guidance has no effect" in text for text in texts) == 1


@pytest.mark.parametrize("channels", [1, 3])
def test_a_searched_mask_is_released_as_a_stock_pipeline(searched, ddpm_folders, channels, tmp_path):
    file = sorted((searched[channels].out / "masks").glob("*.json"))[1]
    mask, out = Mask.from_pretrained(file), tmp_path / "tuned"
    assert 0 < mask.trainable.percent < 100
    options = ["--data", "digits", "--train-size", 8, "--steps", 3]
    said = run("finetune", "--mask", file, *options, "--out", out)
    assert "captions are ignored" in " ".join(said.split())
    before, after = (DDPMPipeline.from_pretrained(folder).unet.state_dict() for folder in (ddpm_folders[channels], out))
    assert {name for name, tensor in before.items() if not torch.equal(tensor, after[name])} == set(
        mask.trainable_names()
    )
    scheduler = "scheduler/scheduler_config.json"
    assert json.loads((out / scheduler).read_text()) == json.loads((ddpm_folders[channels] / scheduler).read_text())
    assert Mask.from_pretrained(out / "training") == mask
    assert Mask.from_pretrained(out).groups == mask.groups
    stock = DDPMPipeline.from_pretrained(out)
    stock.set_progress_bar_config(disable=True)
    images = stock(2, num_inference_steps=2, generator=torch.Generator().manual_seed(0), output_type="np").images
    assert images.shape == (2, 16, 16, channels)


@pytest.fixture(scope="module")
def laboratory(ddpm_folders, cache_folder):
    content = {**SECTIONS, "model": str(ddpm_folders[3]), "space": "stage-kinds"}
    content |= {"data": {**SECTIONS["data"], "source": "faces"}, "tuning": {"steps": 3, "batch": 4}}
    content["sampling"] = {"images": 24, "steps": 2, "guidance": 3.0}
    return Laboratory(validated(content, where="tests"), cache=Cache(cache_folder), device="cpu")


def test_the_same_seed_gives_the_same_scores_in_a_new_process(laboratory, tmp_path):
    fresh = Laboratory(laboratory.config, cache=Cache(tmp_path), device="cpu")
    first, again = (lab.evaluate(lab.candidates.groups[:3], 1e-2, 3, lambda *_: None) for lab in (laboratory, fresh))
    assert first.scores == again.scores
    assert first.loss == again.loss
    other = Laboratory(laboratory.config.model_copy(update={"seed": 1}), cache=Cache(tmp_path), device="cpu")
    assert other.untuned(lambda *_: None).scores != laboratory.untuned(lambda *_: None).scores


def test_images_are_compared_as_they_are_and_held_once(laboratory):
    real = laboratory.scorer.real
    np.testing.assert_array_equal(real.training, laboratory.dataset.training.pixels())
    np.testing.assert_array_equal(real.copying, laboratory.dataset.heldout.copying.pixels())
    for part in ("training", "fidelity", "copying", "same_subjects"):
        assert getattr(real, part) is getattr(real, f"{part}_raw")


def test_a_raw_objective_stays_and_has_the_others_value(laboratory):
    objectives = ("fd@pixels", "copy_gap_raw@pixels")
    scoring = laboratory.config.scoring.model_copy(update={"objectives": objectives, "reported": ("copy_gap@pixels",)})
    config = laboratory.config.model_copy(update={"scoring": scoring})
    raw = Laboratory(config, cache=laboratory.frozen.cache, device="cpu")
    scores = raw.untuned(lambda *_: None).scores
    assert list(scores)[:3] == ["fd@pixels", "copy_gap_raw@pixels", "copy_gap@pixels"]
    assert scores["copy_gap_raw@pixels"] == scores["copy_gap@pixels"]


def test_a_trial_touches_its_groups_alone_and_leaves_nothing(laboratory, monkeypatch):
    unet, scorer, touched = laboratory.frozen.unet, laboratory.scorer, []
    before = {name: tensor.clone() for name, tensor in unet.state_dict().items()}

    def changed():
        return {name for name, tensor in unet.state_dict().items() if not torch.equal(tensor, before[name])}

    def spy(images, prompts):
        touched.append(changed())
        return scorer(images, prompts)

    monkeypatch.setattr(laboratory, "scorer", spy)
    group = laboratory.candidates.groups[1]
    first = laboratory.evaluate((group,), 1e-2, 3, lambda *_: None)
    again = laboratory.evaluate((group,), 1e-2, 3, lambda *_: None)
    assert touched == [set(group.parameters)] * 2
    assert changed() == set()
    assert first.scores == again.scores
    np.testing.assert_array_equal(first.images, again.images)
    assert np.abs(first.images.astype(int) - laboratory.untuned(lambda *_: None).images).max() > 1


@pytest.mark.parametrize("space", SPACES)
def test_spaces_fit_an_unconditional_model(space, ddpm_folders):
    content = json.loads(run("inspect", "--model", ddpm_folders[3], "--space", space, "--json"))
    assert content["bits"] > 1
    names = [name for group in content["groups"] for name in group["parameters"]]
    whole = space in ("stage-kinds", "stages", "layer-kinds")
    assert (content["trainable"]["percent"] == 100) == whole
    assert len(names) == len(set(names))
    attention = [group["name"] for group in content["groups"] if "attention" in group["name"]]
    expected = {
        "stage-kinds": ["down.1.attention", "mid.attention", "up.0.attention"],
        "stages": [],
        "layer-kinds": ["self-attention"],
    }
    places = ("down.1.attentions.0", "mid.attentions.0", "up.0.attentions.0", "up.0.attentions.1")
    ending = {"attention-blocks": "", "attention-matrices": ".self"}
    assert attention == expected.get(space, [place + ending.get(space, "") for place in places])


def test_a_space_of_attention_is_refused_where_there_is_none(tmp_path):
    plain = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2, "add_attention": False}
    ddpm(**plain).save_pretrained(tmp_path / "model")
    result = CliRunner().invoke(app, ["inspect", "--model", str(tmp_path / "model"), "--space", "attention-blocks"])
    assert result.exit_code == 1
    assert "selects none of" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("channels", [1, 3])
def test_full_tuning_learns_the_images(channels, ddpm_folders, cache_folder, laboratory):
    frozen = load_pipeline(str(ddpm_folders[channels]), cache=Cache(cache_folder))
    groups = parameter_groups(load_space("full-tuning"), frozen.unet)
    config = laboratory.config.tuning.model_copy(update={"steps": 40})
    batches = training_batches(frozen, laboratory.dataset, config, seed=0)
    with tuned(frozen.unet, groups) as tuning:
        steps = finetune_pipeline(
            frozen, tuning.parameters, batches, learning_rate=5e-3, config=config, accelerator=Accelerator(cpu=True)
        )
        losses = [step.loss for step in steps]
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:5])
