"""A monitor sees copies, changes nothing in the training it looks at, and goes on after an interruption."""

import csv
import json
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image

import memcontrol.monitoring.monitor as monitoring
from memcontrol.config import TuningConfig
from memcontrol.errors import DataError, MemControlError, ModelError, RunError
from memcontrol.finetuning import finetune_pipeline, training_batches
from memcontrol.groups import ParameterGroup
from memcontrol.methods import tuned
from memcontrol.monitoring import TABLE, Monitor, columns
from memcontrol.monitoring.config import MonitorConfig
from memcontrol.monitoring.sheet import GAP, LABELS, MARGIN, side_of
from memcontrol.pipeline import load_pipeline

GROUPS = [
    ParameterGroup("ends", "full", ("conv_in.weight", "conv_out.bias"), 0),
    ParameterGroup("shifted", "svdiff", ("conv_out.weight",), 0),
]


def disturbing(latents, timestep, told, empty):
    """A mitigation at sampling that draws from every global generator."""
    noise = torch.randn(told.shape) + float(np.random.rand()) + random.random()
    return told + 0.1 * noise.to(told)


def trained(tiny, slices, monitor=None):
    """Every tuned number after each of four steps and at the end, and what follows from global generators."""
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)
    config, seen = TuningConfig(steps=4, batch=4, ema_decay=0.9), []
    with tuned(tiny.unet, GROUPS) as tuning:
        tiny.unet.train()
        for step in finetune_pipeline(
            tiny,
            tuning.parameters,
            training_batches(tiny, slices, config, seed=0),
            learning_rate=1e-2,
            config=config,
            accelerator=Accelerator(cpu=True),
        ):
            if monitor is not None and monitor.config.due(step.number):
                with step.averaged(), tuning.folded():
                    monitor.look(step.number, disturbing)
            modes = [module.training for module in tiny.unet.modules()]
            trains = [parameter.requires_grad for parameter in tiny.unet.parameters()]
            seen += [step.loss, modes, trains, [p.detach().numpy().tobytes() for p in step.parameters.values()]]
        with step.averaged():
            seen.append([p.detach().numpy().tobytes() for p in step.parameters.values()])
        tiny.unet.eval()
    return seen, (torch.rand(3).tolist(), random.random(), np.random.rand(3).tolist())


def test_a_monitored_training_is_the_same_to_the_last_bit(tiny, slices, monitor):
    watching = monitor(every=2)
    plain, watched = trained(tiny, slices), trained(tiny, slices, watching)
    assert plain == watched
    assert any(plain[0][1]), "training mode was on"
    assert [look.step for look in watching.looks] == [2, 4]
    distances = [look.scores["fd@pixels"].value for look in watching.looks]
    assert len(set(distances)) == 2, "the model changed between looks, and the looks saw it"


def test_an_untuned_look_has_the_scores_of_the_untuned_model_in_a_search(laboratory, tmp_path):
    config = laboratory.config
    watching = Monitor(
        laboratory.frozen,
        laboratory.dataset,
        folder=tmp_path,
        config=monitoring.MonitorConfig(every=1, images=config.sampling.images, measures=config.scoring.objectives),
        sampling=config.sampling,
        scoring=config.scoring,
        seed=config.seed,
    )
    untuned = laboratory.untuned(lambda *_: None).scores
    assert watching.look(0).scores == {name: untuned[name] for name in config.scoring.objectives}


def test_looks_at_the_same_model_are_the_same(monitor):
    watching = monitor()
    assert watching.look(2).scores == watching.look(4).scores


def generating(monkeypatch, images):
    """Whatever the model, these images come out."""
    monkeypatch.setattr(monitoring, "sample", lambda *_, **__: iter([images[:7], images[7:]]))


@pytest.fixture
def honest(monitor, monkeypatch):
    """A monitor to which every model generates held-out images."""

    def made(**settings):
        watching = monitor(**settings)
        generating(monkeypatch, watching.scorer.real.fidelity[:20])
        return watching

    return made


def copies(watching):
    return np.resize(watching.scorer.real.training, (20, 64, 64, 3))


@pytest.mark.parametrize("rule", [{"stop_above_null": True}, {"stop_copy_gap": 0.01}])
def test_planted_copies_stop_a_training_and_honest_images_do_not(monitor, monkeypatch, rule):
    watching = monitor(**rule)
    real = watching.scorer.real.fidelity[:20]
    looks = []
    for step, images in ((2, real), (4, copies(watching)), (6, real), (8, copies(watching)), (10, copies(watching))):
        generating(monkeypatch, images)
        looks.append(watching.look(step))
    assert [look.clear for look in looks] == [True, False, True, False, False]
    assert [look.stop for look in looks] == [False] * 4 + [True]
    assert "at 2 looks in a row (steps 8 to 10)" in looks[-1].reason


def rows_of(folder):
    with (folder / TABLE).open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_has_a_line_for_each_look(honest, tmp_path):
    watching = honest()
    looks = [watching.look(step) for step in (0, 2)]
    rows = rows_of(tmp_path / "tuned")
    assert list(rows[0]) == columns(watching.config.measures)
    assert [int(row["step"]) for row in rows] == [0, 2]
    assert float(rows[1]["copy_gap@pixels low"]) == looks[1].scores["copy_gap@pixels"].low
    assert [look.step for look in watching.looks] == [0, 2]


def test_a_resumed_training_has_the_table_of_an_uninterrupted_one(honest, tmp_path):
    first = honest(stop_copy_gap=0.01)
    for step in (2, 4):
        first.look(step)
    state = json.loads(json.dumps(first.state_dict()))
    first.look(6)
    whole = (tmp_path / "tuned" / TABLE).read_bytes()
    resumed = honest(stop_copy_gap=0.01)
    resumed.load_state_dict(state)
    assert [row["step"] for row in rows_of(tmp_path / "tuned")] == ["2", "4"], "look 6 came after the checkpoint"
    resumed.look(6)
    assert (tmp_path / "tuned" / TABLE).read_bytes() == whole
    assert resumed.state_dict() == first.state_dict()


def test_lines_that_were_lost_come_back(honest, tmp_path):
    first = honest(folder=tmp_path / "first")
    first.look(2)
    other = honest(folder=tmp_path / "other")
    other.load_state_dict(first.state_dict())
    assert rows_of(tmp_path / "other") == rows_of(tmp_path / "first")


def test_a_step_looked_at_twice_has_one_line(honest, tmp_path):
    watching = honest()
    for step in (2, 4, 2):
        watching.look(step)
    assert [row["step"] for row in rows_of(tmp_path / "tuned")] == ["2"]


def test_looks_in_a_row_are_counted_over_an_interruption(monitor, monkeypatch):
    first = monitor(stop_above_null=True)
    generating(monkeypatch, copies(first))
    assert not first.look(2).stop
    resumed = monitor(stop_above_null=True)
    resumed.load_state_dict(first.state_dict())
    assert resumed.look(4).stop


def test_a_state_of_other_measures_is_refused(monitor):
    state = monitor(measures=("fd@pixels",)).state_dict()
    with pytest.raises(
        RunError, match=r"monitored by fd@pixels, and now fd@pixels, copy_gap@pixels are asked for: ask"
    ):
        monitor().load_state_dict(state)


@pytest.mark.parametrize(("every", "due"), [(3, [0, 3, 6]), (None, [])])
def test_looks_are_due_at_the_start_and_every_so_many_steps(every, due):
    assert [step for step in range(8) if MonitorConfig(every=every).due(step)] == due


def test_the_picture_shows_generated_images_above_their_nearest_training_images(monitor, monkeypatch, tmp_path):
    watching = monitor()
    generating(monkeypatch, copies(watching))
    watching.look(2)
    (file,) = (tmp_path / "tuned" / "samples").iterdir()
    assert file.name == "step-000002.png"
    with Image.open(file) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    training = watching.scorer.real.training
    upper = tops_of(pixels, training[0])[:4]  # of ten images, one of the first eight and one of the last two
    assert upper[1] - upper[0] == upper[3] - upper[2] == SIDE + GAP
    for column in range(8):
        for top in upper[:2]:
            np.testing.assert_array_equal(shown_at(pixels, top, column), training[column])
    lower = min(top for image in training for top in tops_of(pixels, image) if top > upper[3])
    closest = [shown_at(pixels, lower, column) for column in range(8)]
    assert {image.tobytes() for image in closest} == {image.tobytes() for image in training}, "each of them once"


SIDE = side_of(64)


def shown_at(pixels, top, column):
    left = MARGIN + LABELS + column * (SIDE + GAP)
    return pixels[top : top + SIDE : 2, left : left + SIDE : 2]


def tops_of(pixels, image):
    """Where in the first column of a picture an image lies, every pixel of it twice as wide and high."""
    left = MARGIN + LABELS
    column, large = pixels[:, left : left + SIDE], np.repeat(np.repeat(image, 2, axis=0), 2, axis=1)
    return [top for top in range(len(pixels) - SIDE) if np.array_equal(column[top : top + SIDE], large)]


def test_an_unconditional_model_is_monitored(monitor, ddpm_folders, tiny, slices):
    frozen = load_pipeline(str(ddpm_folders[1]), cache=tiny.cache)
    small = replace(
        slices,
        resolution=frozen.resolution,
        training=resized(slices.training, frozen.resolution),
        heldout=type(slices.heldout)(
            *(
                resized(part, frozen.resolution)
                for part in (slices.heldout.fidelity, slices.heldout.copying, slices.heldout.confirmation)
            )
        ),
    )
    look = monitor(frozen=frozen, dataset=small).look(0)
    assert list(look.scores) == ["fd@pixels", "copy_gap@pixels"]
    with pytest.raises(ModelError, match=r"score noise_magnitude@unet needs captions, and model .* takes no text"):
        monitor(frozen=frozen, dataset=small, measures="noise_magnitude")


def resized(images, side):
    pixels = np.stack([np.asarray(Image.fromarray(one).resize((side, side))) for one in images.pixels()])
    return replace(images, read=lambda positions: pixels[positions])


def test_attacks_on_the_model_are_measured_too(monitor):
    look = monitor(measures=("membership_auc@loss", "copy_gap@pixels")).look(2)
    assert list(look.scores) == ["membership_auc@loss", "copy_gap@pixels"]
    assert 0 <= look.scores["membership_auc@loss"].value <= 1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"images": 16}, "fd@pixels on 16 components needs 17 generated images or more, got 16"),
        ({"measures": "fid@inceptio"}, "is measured on inception"),
        ({"measures": "fd@pixel"}, 'unknown encoder "pixel"'),
        ({"measures": "copy_gap_same_subjects@pixels"}, "needs same_subjects images, this data has none"),
        ({"measures": "nowhere:function"}, "cannot import 'nowhere'"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_training(monitor, tmp_path, settings, said):
    with pytest.raises(MemControlError, match=said):
        monitor(**settings)
    assert not (tmp_path / "tuned").exists()


def test_too_few_held_out_images_are_refused_before_training(monitor, slices):
    few = replace(slices, heldout=replace(slices.heldout, fidelity=slices.heldout.fidelity.take(range(9))))
    with pytest.raises(MemControlError, match="needs 17 held-out images for fidelity or more, got 9"):
        monitor(dataset=few)
    one = replace(slices, training=slices.training.take([0]))
    with pytest.raises(DataError, match="a look needs 2 training images or more, brain has 1: give more data"):
        monitor(dataset=one)


def test_scores_of_captions_are_refused_without_captions(monitor, slices):
    silent = replace(slices, training=slices.training.with_captions("none"))
    with pytest.raises(DataError, match="score noise_magnitude@unet needs captions, and brain has none: drop that"):
        monitor(dataset=silent, measures="noise_magnitude")
    assert monitor(dataset=silent).look(0).scores["fd@pixels"].n == 20


def test_a_folder_that_cannot_be_written_to_is_one_line(monitor, tmp_path):
    (tmp_path / "file").write_text("mine")
    watching = monitor(folder=tmp_path / "file")
    with pytest.raises(RunError, match=r"cannot write to .*file: .*; free space or name another folder"):
        watching.look(0)


def test_a_full_disk_leaves_the_last_table(honest, tmp_path, monkeypatch):
    watching = honest()
    watching.look(2)
    before = (tmp_path / "tuned" / TABLE).read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(RunError, match="No space left on device"):
        watching.look(4)
    assert (tmp_path / "tuned" / TABLE).read_bytes() == before
