"""A released pipeline is the base model but for the mask's tensors, and stock diffusers loads it."""

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from memcontrol.cache import Cache
from memcontrol.config import DataConfig, TuningConfig
from memcontrol.errors import MaskError, MemControlError, RunError
from memcontrol.groups import parameter_groups
from memcontrol.mask import Mask
from memcontrol.mask_records import ModelIdentity
from memcontrol.mitigations.plan import MitigationPlan
from memcontrol.pipeline import load_pipeline, model_folder
from memcontrol.releasing import finetune, mask_mitigations, mask_tuning
from memcontrol.sampling import sample


def mask_of(laboratory, bits, rate=5e-3):
    unet = laboratory.frozen.unet
    return Mask.build(
        laboratory.space,
        parameter_groups(laboratory.space, unet),
        bits,
        model=laboratory.model,
        unet_numel=sum(parameter.numel() for parameter in unet.parameters()),
        learning_rate=rate,
        provenance={"steps": 6},
    )


@pytest.fixture(scope="module")
def released(laboratory, tmp_path_factory):
    """The attention groups of the shipped model, tuned as a trial tunes them."""
    mask = mask_of(laboratory, "100")
    out = tmp_path_factory.mktemp("released") / "pipeline"
    notes, steps = [], []
    config = laboratory.config
    folder = finetune(mask, config.data, out, tuning=config.tuning, on_note=notes.append, on_step=steps.append)
    assert folder == out
    assert [step.number for step in steps] == [1, 2, 3, 4, 5, 6]
    assert notes[0].startswith("brain: 8 training slices")
    return mask, out


def test_the_masks_tensors_alone_differ_from_the_base_model(released):
    mask, out = released
    base = StableDiffusionPipeline.from_pretrained(model_folder("tiny"))
    tuned = StableDiffusionPipeline.from_pretrained(out)
    for part in ("vae", "text_encoder"):
        before, after = (getattr(pipeline, part).state_dict() for pipeline in (base, tuned))
        assert before.keys() == after.keys()
        assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    before, after = base.unet.state_dict(), tuned.unet.state_dict()
    different = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert before.keys() == after.keys()
    assert different == set(mask.trainable_names())
    assert tuned.scheduler.config == base.scheduler.config


def test_a_stock_pipeline_generates_from_it(released):
    pipeline = StableDiffusionPipeline.from_pretrained(released[1])
    pipeline.set_progress_bar_config(disable=True)
    (image,) = pipeline("axial brain MRI", num_inference_steps=2, output_type="np").images
    assert image.shape == (64, 64, 3)
    assert np.isfinite(image).all()


def test_the_mask_lies_beside_the_pipeline(released):
    mask, out = released
    assert Mask.from_pretrained(out) == mask


def test_what_is_released_is_what_the_trial_scored(released, laboratory, tmp_path):
    """Same data, seed and steps: the saved weights generate the trial's very images."""
    mask, out = released
    (attention, *_) = laboratory.candidates.groups
    trial = laboratory.evaluate((attention,), mask.learning_rate, 6, lambda *_: None)
    loaded = load_pipeline(str(out), cache=Cache(tmp_path))
    images = np.concatenate(list(sample(loaded, laboratory.prompts, laboratory.config.sampling, seed=0)))
    np.testing.assert_array_equal(images, trial.images)


def test_the_masks_own_steps_are_the_default(laboratory, tmp_path):
    mask = mask_of(laboratory, "001")
    steps = []
    data = DataConfig(train_size=4, fidelity=4, copying=8, confirmation=4)
    finetune(mask, data, tmp_path / "out", on_step=steps.append, learning_rate=1e-4)
    assert len(steps) == 6
    assert max(step.learning_rate for step in steps) == pytest.approx(1e-4)


def test_a_folder_with_something_in_it_is_refused_and_kept(laboratory, tmp_path):
    (tmp_path / "kept.txt").write_text("mine")
    with pytest.raises(RunError, match="exists and is not an empty folder: name another with --out"):
        finetune(mask_of(laboratory, "100"), laboratory.config.data, tmp_path)
    with pytest.raises(RunError, match="is not an empty folder"):
        finetune(mask_of(laboratory, "100"), laboratory.config.data, tmp_path / "kept.txt")
    with pytest.raises(RunError, match="cannot write to"):
        finetune(mask_of(laboratory, "100"), laboratory.config.data, tmp_path / "kept.txt" / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]


@pytest.mark.parametrize("rate", [None, 1e-3])
def test_a_mask_that_trains_nothing_is_refused(laboratory, tmp_path, rate):
    with pytest.raises(MaskError, match="trains nothing: pick one with a group that is on"):
        finetune(mask_of(laboratory, "000"), laboratory.config.data, tmp_path / "out", learning_rate=rate)
    assert not (tmp_path / "out").exists()


def test_a_mask_of_another_architecture_is_refused(laboratory, tmp_path):
    from memcontrol.space import SearchSpace

    space = SearchSpace.model_validate(
        {
            "schema": "memcontrol/search-space@1",
            "name": "all",
            "learning_rate": 1e-3,
            "parts": [{"select": ["*"], "name": "all"}],
        }
    )
    linear = torch.nn.Linear(2, 2)
    mask = Mask.build(
        space,
        parameter_groups(space, linear),
        "1",
        model=ModelIdentity.of(linear, "tiny"),
        unet_numel=6,
        learning_rate=1e-3,
    )
    with pytest.raises(MaskError, match="was made for Linear tiny"):
        finetune(mask, laboratory.config.data, tmp_path / "out", tuning=TuningConfig(steps=1))


def test_a_mask_is_tuned_under_the_settings_it_was_scored_under(laboratory):
    mask = mask_of(laboratory, "100")
    assert mask_tuning(mask) == TuningConfig(steps=6)
    mask.provenance["settings"] = {"tuning": {"steps": 6, "batch": 3, "clip": 0.5}}
    assert mask_tuning(mask) == TuningConfig(steps=6, batch=3, clip=0.5)


def test_other_images_than_the_masks_own_are_noted(laboratory, tmp_path):
    mask, notes = mask_of(laboratory, "001"), []
    mask.provenance["data"] = {"name": "photos", "n": 3, "sha256": "sha256:other"}
    tuning = TuningConfig(steps=1, batch=2)
    finetune(mask, laboratory.config.data, tmp_path / "out", tuning=tuning, on_note=notes.append)
    assert "was found on other images (photos)" in notes[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def found_under(laboratory, *mitigations):
    """A mask with scores, found by a search under these mitigations."""
    mask = mask_of(laboratory, "100")
    mask.provenance["settings"] = {"mitigations": list(mitigations)}
    mask.scores["fd@pixels"] = {"value": 1.0, "low": 1.0, "high": 1.0, "n": 8, "better": "lower"}
    return mask


def test_a_mask_is_tuned_under_the_mitigations_that_it_was_found_under(laboratory, tmp_path):
    """Same data, seed, steps and mitigations: the saved weights generate the trial's very images."""
    mask, notes = found_under(laboratory, "embedding-noise:strength=0.5"), []
    assert mask_mitigations(mask) == ("embedding-noise:strength=0.5",)
    config = laboratory.config
    finetune(mask, config.data, tmp_path / "out", tuning=config.tuning, on_note=notes.append)
    assert notes[-1].startswith("trained under embedding-noise:strength=0.5, as mask ")
    assert "--mitigation none leaves it out" in notes[-1]
    plan = MitigationPlan.of(mask_mitigations(mask))
    (attention, *_) = laboratory.candidates.groups
    trial = laboratory.evaluate((attention,), mask.learning_rate, 6, lambda *_: None, mitigations=plan)
    plain = laboratory.evaluate((attention,), mask.learning_rate, 6, lambda *_: None)
    loaded = load_pipeline(str(tmp_path / "out"), cache=Cache(tmp_path))
    images = np.concatenate(list(sample(loaded, laboratory.prompts, config.sampling, seed=0)))
    np.testing.assert_array_equal(images, trial.images)
    assert not np.array_equal(images, plain.images)


def test_other_mitigations_than_the_masks_own_are_noted_and_none_leaves_them_out(laboratory, released, tmp_path):
    mask, notes = found_under(laboratory, "fewer-steps:share=0.5"), []
    config = laboratory.config
    out = finetune(mask, config.data, tmp_path / "out", tuning=config.tuning, mitigations=(), on_note=notes.append)
    assert notes[-1].endswith(" was found under fewer-steps:share=0.5: its scores do not hold here")
    plain, same = (StableDiffusionPipeline.from_pretrained(folder).unet.state_dict() for folder in (released[1], out))
    assert all(torch.equal(tensor, same[name]) for name, tensor in plain.items())


def test_fewer_steps_are_taken_under_that_mitigation(laboratory, tmp_path):
    steps, notes = [], []
    data, tuning = laboratory.config.data, laboratory.config.tuning
    finetune(
        mask_of(laboratory, "100"),
        data,
        tmp_path / "out",
        tuning=tuning,
        mitigations=["fewer-steps:share=0.5"],
        on_note=notes.append,
        on_step=steps.append,
    )
    assert [step.number for step in steps] == [1, 2, 3]
    assert notes[-1] == "trained under fewer-steps:share=0.5"


def test_a_mitigation_at_sampling_is_said_not_to_be_saved(laboratory, released, tmp_path):
    notes = []
    config = laboratory.config
    mask, names = mask_of(laboratory, "100"), ["inference-noise"]
    out = finetune(mask, config.data, tmp_path / "out", tuning=config.tuning, mitigations=names, on_note=notes.append)
    assert notes[-1].startswith("inference-noise works while sampling and is not in the saved pipeline")
    plain, same = (StableDiffusionPipeline.from_pretrained(folder).unet.state_dict() for folder in (released[1], out))
    assert all(torch.equal(tensor, same[name]) for name, tensor in plain.items())


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["rwaa"], 'unknown mitigation "rwaa": did you mean rwa'),
        (["rwa:cnt=3"], "did you mean count"),
        (["iet-agc:shards=900"], "900"),
    ],
)
def test_mitigations_that_cannot_be_are_refused_and_leave_nothing(names, message, laboratory, tmp_path):
    with pytest.raises(MemControlError, match=message):
        finetune(mask_of(laboratory, "100"), laboratory.config.data, tmp_path / "out", mitigations=names)
    assert not (tmp_path / "out").exists()
