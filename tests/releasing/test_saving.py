"""What a full-length training leaves behind: tensors, a card, a curve, what was seen on the way, and why it ended."""

import csv
import shutil
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
import yaml
from diffusers import DiffusionPipeline
from safetensors import safe_open
from safetensors.torch import load_file
from small_release import CONFIG
from typer.testing import CliRunner

from memcontrol.cli import app
from memcontrol.comparison.config import read_settings
from memcontrol.config import DataConfig, SamplingConfig, TuningConfig
from memcontrol.errors import MaskError, MemControlError, MissingPackageError
from memcontrol.mask import Mask
from memcontrol.monitoring import Look, Monitor
from memcontrol.pipeline import model_folder
from memcontrol.releasing import FinetuneConfig, Told, release
from memcontrol.releasing.config import all_given, mask_tuning
from memcontrol.tuned_tensors import public_mask


def settings(**changes):
    return FinetuneConfig.model_validate(CONFIG | {"checkpoint_every": 0} | changes)


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_the_tuned_tensors_alone_belong_to_the_base_model_as_it_was_before(mask, laboratory, tmp_path):
    out = release(mask, settings(save="tuned"), tmp_path / "out")
    assert names(out) == {"training", "mask.json", "README.md", "tuned.safetensors"}
    assert names(out / "training") == {"config.yaml", "losses.csv", "mask.json", "released.json"}
    with safe_open(out / "tuned.safetensors", "pt") as file:
        assert file.metadata()["weights"] == laboratory.model.weights
    card = (out / "README.md").read_text()
    assert "6" in card
    assert "safetensors" in card


def test_the_pipeline_alone_has_no_tuned_tensors_beside_it(mask, tmp_path):
    out = release(mask, settings(save="pipeline", tuning={"steps": 1, "batch": 2}), tmp_path / "out")
    assert "model_index.json" in names(out)
    assert not list(out.glob("tuned*"))


def test_the_curve_has_every_step_and_the_configuration_trains_the_same_again(mask, tmp_path):
    steps = []
    out = release(mask, settings(), tmp_path / "out", told=Told(step=steps.append))
    with (out / "training" / "losses.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(int(row["step"]), float(row["loss"]), float(row["learning_rate"]), int(row["kept"])) for row in rows] == [
        (step.number, step.loss, step.learning_rate, step.kept) for step in steps
    ]
    written = read_settings(out / "training" / "config.yaml", FinetuneConfig)
    assert written.learning_rate == mask.learning_rate
    assert written.model == "tiny"
    again = release(mask, written, tmp_path / "again")
    curves = [(folder / "training" / "losses.csv").read_text() for folder in (again, out)]
    assert curves[0] == curves[1]
    tensors, same = (load_file(folder / "tuned.safetensors") for folder in (out, again))
    assert all(torch.equal(tensor, same[name]) for name, tensor in tensors.items())


LOOKING = {"every": 2, "images": 8, "measures": ["copy_gap@pixels"], "grid": 8}


def test_a_monitor_that_finds_copies_at_every_look_ends_the_training_and_leaves_it_unchanged_until_then(mask, tmp_path):
    looks, notes, losses, tensors = [], [], [], []
    monitor = LOOKING | {"stop_copy_gap": -9, "patience": 3}
    out = release(mask, settings(monitor=monitor), tmp_path / "out", told=Told(notes.append, look=looks.append))
    assert [look.step for look in looks] == [0, 2, 4]
    assert [look.stop for look in looks] == [False, False, True]
    assert notes[-1].startswith("Stopped at step 4: copy_gap@pixels is ")
    assert notes[-1].endswith("That was so at every look, so what is saved are the tensors of step 4 all the same.")
    card = (out / "README.md").read_text()
    assert notes[-1] in card
    assert "| optimizer steps | 4 |" in card
    assert "while it was trained at step 4" in card

    def on_step(step):
        losses.append(step.loss)
        if step.number == 4:
            tensors.append(averages(step))

    release(mask, settings(save="tuned"), tmp_path / "plain", told=Told(step=on_step))
    curve = (out / "training" / "losses.csv").read_text().splitlines()
    assert [float(line.split(",")[1]) for line in curve[1:]] == losses[:4]
    assert_saved(out, tensors[0])
    assert sorted(names(out / "training" / "samples")) == ["step-000000.png", "step-000002.png", "step-000004.png"]


def averages(step):
    with step.averaged():
        return {name: tensor.detach().clone() for name, tensor in step.parameters.items()}


def assert_saved(out, tensors):
    saved = load_file(out / "tuned.safetensors")
    assert saved.keys() == tensors.keys()
    assert all(torch.equal(tensor, saved[name]) for name, tensor in tensors.items())


def test_the_last_step_is_looked_at_and_the_cards_scores_are_of_the_saved_model(mask, tmp_path):
    looks = []
    config = settings(monitor=LOOKING | {"every": 4}, tuning={"steps": 3, "batch": 2})
    out = release(mask, config, tmp_path / "out", told=Told(look=looks.append))
    assert [look.step for look in looks] == [0, 3]
    card, score = (out / "README.md").read_text(), looks[-1].scores["copy_gap@pixels"]
    assert "while it was trained at step 3" in card
    assert f"| copy_gap@pixels | {score.value:.4g} | {score.low:.4g} to {score.high:.4g} |" in card


@pytest.fixture
def scripted(monkeypatch):
    """Looks that find nothing or copying as it is written, at once; by their steps, the tensors that they looked at."""

    def made(raised=(), stop=None):
        seen = {}

        def look(self, step, _inference=None):
            seen[step] = {name: tensor.detach().clone() for name, tensor in self.frozen.unet.named_parameters()}
            ends = step == stop
            found = Look(step, {}, clear=step not in raised, stop=ends, reason="much is copied" if ends else None)
            self.looks = [*(one for one in self.looks if one.step < step), found]
            return found

        monkeypatch.setattr(Monitor, "look", look)
        return seen

    return made


STOPPING = LOOKING | {"stop_copy_gap": 9}


class BrokenOffError(Exception):
    pass


def test_a_stop_saves_the_tensors_of_the_last_clear_look_broken_off_or_not(mask, tmp_path, scripted):
    out, seen, notes, steps = tmp_path / "out", scripted(raised=(4, 6), stop=6), [], []
    config = settings(monitor=STOPPING, tuning={"steps": 8, "batch": 2}, checkpoint_every=2, save="tuned")

    def on_step(step):
        steps.append(step.number)
        if len(steps) == 5:
            raise BrokenOffError

    def on_note(note):
        notes.append(note)
        if note.startswith("Stopped") and len(steps) == 7:
            steps.append(None)
            raise BrokenOffError

    for _ in range(2):  # on the way, and between the stop's checkpoint and saving
        with pytest.raises(BrokenOffError):
            release(mask, config, out, told=Told(on_note, on_step))
    release(mask, config, out, told=Told(on_note, on_step))
    assert steps == [1, 2, 3, 4, 5, 5, 6, None]
    said = (
        "Stopped at step 6: much is copied. What is saved are the tensors of step 2, the last look at which that was "
    )
    assert notes[-1] == f"{said}not so."
    assert_saved(out, {name: seen[2][name] for name in mask.trainable_names()})
    assert any(not torch.equal(seen[2][name], seen[6][name]) for name in mask.trainable_names())
    card = (out / "README.md").read_text()
    assert notes[-1] in card
    assert "| optimizer steps | 2 |" in card


def test_where_only_the_untuned_model_was_clear_that_is_saved_and_said(mask, laboratory, tmp_path, scripted):
    scripted(raised=(2,), stop=2)
    notes = []
    out = release(mask, settings(monitor=STOPPING, save="tuned"), tmp_path / "out", told=Told(notes.append))
    assert "the tensors of step 0, the last look at which that was not so: the base model's" in notes[-1]
    base = dict(laboratory.frozen.unet.named_parameters())
    assert_saved(out, {name: base[name] for name in mask.trainable_names()})


def test_where_the_untuned_model_is_stopped_already_nothing_is_trained(mask, tmp_path, scripted):
    scripted(raised=(0,), stop=0)
    steps = []
    with pytest.raises(MemControlError, match="nothing was trained, since the untuned model is stopped already: much"):
        release(mask, settings(monitor=STOPPING), tmp_path / "out", told=Told(step=steps.append))
    assert steps == []


def test_the_last_look_sees_the_tensors_that_early_stopping_put_back(mask, tmp_path, scripted):
    """Its last step is due for a look, and what it leaves is put in place behind that step."""
    seen = scripted()
    tuning = {"steps": 4, "batch": 2}
    names = ["early-stopping:every=1,patience=9,improvement=0.9,pairs=8"]
    config = settings(monitor=LOOKING, tuning=tuning, mitigations=names, learning_rate=0.3, save="tuned")
    out = release(mask, config, tmp_path / "out")
    assert_saved(out, {name: seen[4][name] for name in mask.trainable_names()})
    plain = release(mask, config.model_copy(update={"mitigations": ()}), tmp_path / "plain")
    one, other = (load_file(folder / "tuned.safetensors") for folder in (out, plain))
    assert any(not torch.equal(tensor, other[name]) for name, tensor in one.items()), "nothing was put back"


def test_what_is_to_be_published_names_no_folder_and_what_is_not_keeps_them(laboratory, mask, tmp_path):
    """Of a model, data and a mask that lie in folders of this machine."""
    model = tmp_path / "secret-place" / "my-model"
    shutil.copytree(model_folder("tiny"), model)
    given = replace(mask, model=replace(mask.model, id=str(model)), provenance=dict(mask.provenance))
    given.provenance["settings"] = {"data": {"source": str(tmp_path / "secret-place" / "images")}}
    out = release(given, settings(tuning={"steps": 1, "batch": 2}), tmp_path / "out")
    published = [path for path in out.rglob("*") if path.is_file() and path.relative_to(out).parts[0] != "training"]
    assert {"mask.json", "README.md", "model_index.json", "tuned.safetensors"} <= {path.name for path in published}
    assert not [path for path in published if b"secret-place" in path.read_bytes()]
    assert "does not belong in a publication" in (out / "README.md").read_text()
    assert Mask.from_pretrained(out) == public_mask(given)
    assert Mask.from_pretrained(out / "training" / "mask.json") == given
    assert DiffusionPipeline.from_pretrained(out).unet is not None
    command = ["finetune", "--mask", str(out / "mask.json"), "--out", str(tmp_path / "again")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1
    assert "gives only the name of its model, 'my-model', which is none of tiny, tiny-sd: give that" in result.stderr
    assert result.stderr.count("\n") == 1
    assert FinetuneConfig(model=str(model)).resolved(Mask.from_pretrained(out)).model == str(model)


def test_differential_privacy_says_its_epsilon_and_the_card_does_too(mask, tmp_path):
    pytest.importorskip("opacus")
    notes = []
    out = release(mask, settings(mitigations=["dp-sgd"]), tmp_path / "out", told=Told(notes.append))
    assert notes[-1].startswith("DP-SGD: epsilon ")
    assert "6 steps" in notes[-1]
    assert "epsilon" in (out / "README.md").read_text()


@pytest.mark.skipif(find_spec("tensorboard") is None, reason="the trackers extra is not installed")
def test_a_tracker_has_the_losses_of_every_step(mask, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    steps = []
    out = release(mask, settings(tracker="tensorboard"), tmp_path / "out", told=Told(step=steps.append))
    (events,) = (out / "training" / "tensorboard" / "memcontrol").glob("events.*")
    found = EventAccumulator(str(events)).Reload().Scalars("loss")
    assert [(event.step, pytest.approx(event.value)) for event in found] == [(s.number, s.loss) for s in steps]


def test_a_tracker_that_is_not_installed_is_refused_and_leaves_nothing(mask, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(MissingPackageError, match=r"package wandb is not installed: .*\[trackers\]"):
        release(mask, settings(tracker="wandb"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


# The configuration


def test_what_is_not_given_is_the_masks_own(mask):
    mask.provenance["settings"] = {
        "tuning": {"steps": 6, "batch": 3, "clip": 0.5},
        "mitigations": ["rwa"],
        "sampling": {"images": 99, "steps": 7, "guidance": 3.0},
        "scoring": {"objectives": ["fd@pixels"], "permutations": 44},
    }
    try:
        given = {"tuning": {"steps": 9}, "sampling": {"steps": 5}, "scoring": {"components": 4}}
        found = FinetuneConfig.model_validate(given).resolved(mask)
        assert found.sampling == SamplingConfig(images=99, steps=5, guidance=3)
        assert (found.scoring.permutations, found.scoring.components) == (44, 4)
        assert found.tuning == TuningConfig(steps=9, batch=3, clip=0.5)
        assert (found.mitigations, found.model, found.learning_rate) == (("rwa",), "tiny", mask.learning_rate)
        assert FinetuneConfig(tuning=all_given(TuningConfig(steps=9))).resolved(mask).tuning == TuningConfig(steps=9)
        assert FinetuneConfig().resolved(mask).tuning == mask_tuning(mask)
    finally:
        del mask.provenance["settings"]


def test_a_mask_is_tuned_on_its_own_data_where_their_name_says_where_they_are(mask, monkeypatch):
    monkeypatch.setitem(mask.provenance, "data", {"name": "faces"})
    assert FinetuneConfig.model_validate({"data": {"train_size": 8}}).resolved(mask).data == DataConfig(
        source="faces", train_size=8
    )
    assert FinetuneConfig.model_validate({"data": {"source": "brain"}}).resolved(mask).data.source == "brain"


def test_a_mask_found_on_a_folder_is_not_tuned_on_other_images_unasked(mask, monkeypatch):
    monkeypatch.setitem(mask.provenance, "data", {"name": "photos"})
    with pytest.raises(MaskError, match="was found on photos, and does not say where these images are: name them with"):
        FinetuneConfig().resolved(mask)
    given = FinetuneConfig.model_validate({"data": {"source": "here/photos"}}).resolved(mask)
    assert given.resolved(mask).data.source == "here/photos"


def test_settings_of_a_mask_that_are_none_are_refused_in_one_line(mask):
    mask.provenance["settings"] = {"sampling": {"guidance": -3}}
    try:
        with pytest.raises(MaskError, match=r"its provenance\.settings are no SamplingConfig \(guidance: should be"):
            FinetuneConfig().resolved(mask)
    finally:
        del mask.provenance["settings"]


@pytest.mark.parametrize(("steps", "given", "every"), [(99, None, 0), (100, None, 10), (1000, 0, 0), (20, 7, 7)])
def test_checkpoints_are_a_tenth_of_a_long_training_unless_it_is_said(steps, given, every):
    config = FinetuneConfig(tuning=TuningConfig(steps=steps), checkpoint_every=given)
    assert config.checkpoint_steps == every


def test_options_override_the_file_and_the_file_the_mask(mask_file, tmp_path):
    path, out = tmp_path / "small.yaml", tmp_path / "out"
    path.write_text(yaml.safe_dump(CONFIG | {"tuning": {"steps": 3, "batch": 2, "clip": 0.5}}))
    options = ["--steps", "2", "--min-snr", "5", "--accumulation", "2", "--gradient-checkpointing", "--save", "tuned"]
    result = CliRunner().invoke(
        app, ["finetune", "--mask", str(mask_file), "--config", str(path), "--out", str(out), *options]
    )
    assert result.exit_code == 0, result.output
    tuning = read_settings(out / "training" / "config.yaml", FinetuneConfig).tuning
    assert (tuning.steps, tuning.batch, tuning.clip) == (2, 2, 0.5)
    assert (tuning.min_snr_gamma, tuning.accumulation, tuning.gradient_checkpointing) == (5, 2, True)
    assert "2 steps" in result.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--accumulation 0", "--accumulation 0: should be greater than or equal to 1"),
        ("--accumulation 9", "accumulation 9 of 4 images a step"),
        ("--mitigation dp-sgd --accumulation 2", "differential privacy: accumulation 2: expected none"),
        ("--min-snr 0", "--min-snr 0.0: should be greater than 0"),
        ("--schedule linear", "--schedule linear: should be 'cosine' or 'constant'"),
        ("--mixed-precision fp8", "--mixed-precision fp8: should be 'no', 'fp16' or 'bf16'"),
        ("--save all", "--save all: should be 'pipeline', 'tuned' or 'both'"),
        ("--tracker mlflow", "--tracker mlflow: should be 'tensorboard' or 'wandb'"),
        ("--checkpoint-every -1", "--checkpoint-every -1: should be greater than or equal to 0"),
        ("--monitor-every 0", "--monitor-every 0: should be greater than or equal to 1"),
        ("--stop-above-null", "stopping early needs looks"),
        ("--config nowhere.yaml", "no configuration file nowhere.yaml"),
    ],
)
def test_bad_options_are_one_line_and_leave_nothing(mask_file, config_file, options, message, tmp_path):
    out = tmp_path / "out"
    command = ["finetune", "--mask", mask_file, "--config", config_file, "--out", out, *options.split()]
    result = CliRunner().invoke(app, [str(part) for part in command])
    assert result.exit_code == 1, result.output
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not out.exists()


def test_a_file_with_an_unknown_key_is_refused_by_its_name(tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text("tuning: {stepps: 4}")
    with pytest.raises(MemControlError, match=r"wrong\.yaml: .*stepps"):
        read_settings(path, FinetuneConfig)
