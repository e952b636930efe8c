"""Plans: what is counted, what is refused, and that nothing is written."""

import errno
import io
import json
import os
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from memcontrol.cache import existing
from memcontrol.config import RunConfig, validated
from memcontrol.mask import Mask
from memcontrol.pipeline import model_folder
from memcontrol.pipeline.outline import load_outline
from memcontrol.planning import machine, plan_finetune, plan_search, planner
from memcontrol.planning.costs import Training
from memcontrol.planning.counting import training_cost
from memcontrol.planning.machine import Machine, matmul_tflops
from memcontrol.releasing import FinetuneConfig
from memcontrol.report.planning import plan_lines
from memcontrol.report.wording import size_text
from memcontrol.space import load_space


def planned(config, out, **changes):
    settings = config.model_dump(mode="json")
    for section, values in changes.items():
        settings[section] = settings[section] | values if isinstance(values, dict) else values
    return plan_search(validated(settings, where="test"), out, workers=1, tflops=0.1)


def text_of(plan):
    console = Console(width=300, file=io.StringIO())
    console.print(plan_lines(plan))
    return console.file.getvalue()


@pytest.fixture(scope="module", autouse=True)
def counted_once():
    """Counting the same networks again and again is what takes a test's time."""
    known = {}

    def remembered(count):
        def recall(outline, names=(), **settings):
            key = (count, outline.folder, frozenset(names), tuple(settings.items()))
            if key not in known:
                known[key] = count(outline, names, **settings) if names else count(outline)
            return known[key]

        return recall

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planner, "image_cost", remembered(planner.image_cost))
        patch.setattr(planner, "training_cost", remembered(planner.training_cost))
        yield


@pytest.fixture(scope="module")
def plan(small_config, tmp_path_factory):
    return planned(small_config, tmp_path_factory.mktemp("out") / "run")


def work(plan):
    return {one.what: one for one in plan.work}


def test_a_search_that_could_start_is_ready_and_writes_nothing(plan, small_config, tmp_path):
    out = tmp_path / "runs" / "one"
    assert planned(small_config, out).problems == plan.problems == ()
    assert list(tmp_path.iterdir()) == []
    assert plan.data["sets"] == {"training": 8, "fidelity": 32, "copying": 64, "confirmation": 16}
    assert plan.settings["groups"] == 3
    assert plan.settings["candidates in the space"] == 36
    assert plan.settings["sampler"] == "hamming"


def test_work_is_what_the_search_would_train_and_generate(plan, small_config):
    budget, steps, images = 3, small_config.tuning.steps, small_config.sampling.images
    found = work(plan)
    assert (found["candidates"].trainings, found["candidates"].steps) == (budget, budget * steps)
    assert found["candidates"].images == budget * images
    reference = found["full fine-tuning, the reference"]
    assert (reference.trainings, reference.steps, reference.images) == (1, steps, images)
    assert found["untuned model, the reference"].images == images
    assert found["encoding real images"].images == 8 + 32 + 64
    assert found["confirmation, at most"].trainings == 15


def test_operations_are_the_steps_and_the_images_times_what_each_costs(plan, small_config):
    outline = load_outline("tiny")
    names = [name for name, _ in outline.unet.named_parameters()]
    each = plan.model["tflop of one image"]
    step = training_cost(outline, names).flops / 1e12
    sampling = small_config.sampling
    images = sampling.images * (sampling.steps * each["U-Net forward"] + each["decoding"])
    expected = small_config.tuning.steps * small_config.tuning.batch * step + images
    assert work(plan)["full fine-tuning, the reference"].tflop == pytest.approx(expected)
    assert plan.seconds == pytest.approx(sum(one.tflop for one in plan.work) / 0.1)
    assert work(plan)["reading real images"].seconds == 0


def test_guidance_doubles_the_sampling_and_a_budget_beyond_the_space_is_cut(plan, small_config, tmp_path):
    other = planned(small_config, tmp_path, sampling={"guidance": 4.0}, search={"budget": 1000}, confirm={"seeds": 0})
    assert work(other)["candidates"].trainings == 36
    assert "confirmation, at most" not in work(other)
    each, sampling = plan.model["tflop of one image"], small_config.sampling
    added = sampling.images * sampling.steps * each["U-Net forward"]
    name = "untuned model, the reference"
    assert work(other)[name].tflop - work(plan)[name].tflop == pytest.approx(added)


def test_full_fine_tuning_decides_the_memory_and_micro_batches_lower_it(plan, small_config, tmp_path):
    unet = plan.model["numel"]["unet"]
    parts = plan.needs[0].parts
    assert parts["gradients"] == 4 * unet
    assert parts["optimizer"] == 8 * unet
    assert parts["pipeline"] == 4 * sum(plan.model["numel"].values())
    assert parts["generated images"] == small_config.sampling.images * 64 * 64 * 3
    one_by_one = planned(small_config, tmp_path, tuning={"batch": 64, "accumulation": 64})
    at_once = planned(small_config, tmp_path, tuning={"batch": 64})
    name = "activations of a step, or of decoding"
    assert at_once.needs[0].parts[name] > one_by_one.needs[0].parts[name]


def test_decompositions_are_counted_where_singular_values_train(small_config, tmp_path):
    found = planned(small_config, tmp_path, space="paper-svdiff")
    assert found.ready
    assert 0 < work(found)["decomposing weights"].seconds < 60
    assert found.seconds > work(found)["decomposing weights"].seconds
    assert found.needs[1].parts["decompositions"] > 0


def test_every_problem_is_listed_at_once(small_config, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    found = planned(
        small_config,
        file / "run",
        model="owner/name",
        data={"source": str(tmp_path / "nowhere")},
        space="stagekinds",
        mitigations=["rwaa"],
        scoring={"objectives": ["fd@dinov2", "clip_score@clip"], "encoder_weights": {"dinov2": str(tmp_path)}},
    )
    assert not found.ready
    expected = (
        "cannot write to",
        "owner/name is no folder",
        "no data source",
        "stagekinds",
        "rwaa",
        "encoder clip",
        "encoder dinov2",
    )
    assert len(found.problems) == len(expected)
    assert all(part in line for part, line in zip(expected, found.problems, strict=True)), found.problems
    assert all("\n" not in line for line in found.problems)
    shown = text_of(found)
    assert "It could not start: 7 problems" in shown
    assert all(line in shown for line in found.problems)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scoring": {"objectives": ["fdd@pixels"]}}, 'unknown measure "fdd"'),
        ({"sampling": {"images": 12}}, "needs 17 generated images or more, got 12"),
        ({"data": {"train_size": 1}}, "train_size is 1"),
        ({"space": "paper-lora-nothing"}, "paper-lora-nothing"),
        ({"confirm": {"measures": ["fd@nothing"]}}, 'unknown encoder "nothing"'),
    ],
)
def test_settings_that_a_search_would_refuse_are_problems(changes, message, small_config, tmp_path):
    (line,) = planned(small_config, tmp_path, **changes).problems
    assert message in line


def test_broken_files_of_a_model_are_problems(small_config, tmp_path):
    model = shutil.copytree(model_folder("tiny"), tmp_path / "model")
    (model / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    (line,) = planned(small_config, tmp_path / "out", model=str(model)).problems
    assert "no weights of unet" in line


def test_an_image_that_does_not_decode_is_a_problem_unless_skipped(small_config, tmp_path):
    from PIL import Image

    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(120):
        Image.new("RGB", (16, 16), (i, 0, 0)).save(folder / f"{i:03}.png")
    (folder / "000.png").write_bytes(b"no image")
    data = {"source": str(folder), "captions": "none"}
    (line,) = planned(small_config, tmp_path / "out", data=data).problems
    assert "000.png does not decode" in line
    assert planned(small_config, tmp_path / "out", data=data | {"bad_images": "skip"}).ready


def test_too_little_memory_is_a_problem_that_says_what_takes_it(small_config, tmp_path, monkeypatch):
    little = Machine("cpu", 2, 10_000_000, None, 0.1, "given")
    monkeypatch.setattr(planner, "look", lambda *_args, **_kwargs: little)
    (line,) = planned(small_config, tmp_path).problems
    assert line.startswith("memory: an estimated ")
    assert "0.0 GB is free (most of it " in line
    assert "use fewer --workers" in line


def test_a_gpu_has_memory_of_its_own(small_config, tmp_path, monkeypatch):
    monkeypatch.setattr(planner, "look", lambda *_args, **_kwargs: Machine("cuda", 1, 10**12, 1_000_000, 50.0, "given"))
    found = planned(small_config, tmp_path)
    assert [need.where for need in found.needs] == ["GPU memory", "memory", "cache"]
    assert "optimizer" in found.needs[0].parts
    assert "optimizer" not in found.needs[1].parts
    (line,) = found.problems
    assert line.startswith("GPU memory: ")


def test_workers_on_one_gpu_share_its_memory(small_config, tmp_path, monkeypatch):
    found = []
    for together in (1, 2):
        gpus = Machine("cuda", 2, 10**12, 1_000_000, 50.0, "given", together)
        monkeypatch.setattr(planner, "look", lambda *_args, gpus=gpus, **_kwargs: gpus)
        found.append(planned(small_config, tmp_path))
    alone, shared = (plan.needs[0].bytes for plan in found)
    assert shared == 2 * alone
    assert "use fewer --workers, a smaller tuning.batch" in found[1].problems[0]
    assert "--workers" not in found[0].problems[0]


def test_workers_on_one_device_share_its_rate(monkeypatch):
    monkeypatch.setattr(machine, "usable_cores", lambda: 2)
    monkeypatch.setattr(machine, "matmul_tflops", lambda *_args, **_kwargs: 0.8)
    assert [machine.workers_together(["cpu"] * count) for count in (1, 2, 3, 4, 5)] == [1, 1, 2, 2, 3]
    assert machine.workers_together(["cuda:0", "cuda:1", "cuda:0"]) == 2
    rates = [machine.look(["cpu"] * count, tflops=None, rows=64, width=64).tflops for count in (1, 2, 4)]
    assert rates == [0.4, 0.4, 0.2]
    assert machine.look(["cpu"] * 4, tflops=0.3, rows=64, width=64).tflops == 0.3


def test_a_folder_that_this_user_may_not_look_into_is_a_problem(tmp_path, monkeypatch):
    closed, usual = tmp_path / "closed", os.stat
    closed.mkdir()

    def stat(path, *args, **given):
        if str(path).startswith(f"{closed}{os.sep}"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return usual(path, *args, **given)

    monkeypatch.setattr(os, "stat", stat)
    assert existing(closed / "runs" / "one") == closed


def finetuning(tiny, small_config, out, **changes):
    mask = Mask.of(tiny.unet, load_space("bias-tuning"), "1", model="tiny", learning_rate=1e-3)
    content = {"data": small_config.data.model_dump(), "tuning": {"steps": 10, "batch": 4}} | changes
    return plan_finetune(mask, FinetuneConfig.model_validate(content), out, tflops=0.1)


def looks_planned(every, tiny, small_config, out, **changes):
    monitor = {"every": every, "images": 24, "measures": ["fd@pixels", "copy_gap@pixels"]}
    found = work(finetuning(tiny, small_config, out, monitor=monitor, **changes))["fine-tuning"]
    return found.steps, found.images // 24


@pytest.mark.parametrize(("every", "looks"), [(5, 3), (4, 4), (10, 2), (50, 2)])
def test_a_fine_tuning_is_looked_at_before_it_begins_and_at_its_end_too(every, looks, tiny, small_config, tmp_path):
    assert looks_planned(every, tiny, small_config, tmp_path / "out") == (10, looks)


def test_a_fine_tuning_without_looks_scores_nothing(tiny, small_config, tmp_path):
    found = finetuning(tiny, small_config, tmp_path / "out")
    assert work(found)["fine-tuning"].images == 0
    assert found.ready


def test_a_fine_tunings_mitigations_are_read_and_may_shorten_it(tiny, small_config, tmp_path):
    found = looks_planned(5, tiny, small_config, tmp_path / "out", mitigations=["fewer-steps:share=0.5"])
    assert found == (5, 2)
    wrong = finetuning(tiny, small_config, tmp_path / "out", mitigations=["rwaa"])
    assert any("rwaa" in line for line in wrong.problems)
    assert not wrong.ready


def test_a_plan_is_json_and_text(plan):
    content = json.loads(json.dumps(plan.to_json()))
    assert content["schema"] == "memcontrol/plan@1"
    assert content["ready"] is True
    assert content["needs"][0]["bytes"] == sum(content["needs"][0]["parts"].values())
    shown = text_of(plan)
    assert "Nothing is missing: it could start. Nothing was written." in shown
    assert "tiny: unet 279,592" in shown
    assert "given with --tflops" in shown


def test_a_matrix_product_has_a_rate():
    assert 1e-4 < matmul_tflops("cpu", rows=256, width=64, seconds=0.05) < 1e3


def test_alternatives_count_at_their_largest():
    from memcontrol.groups import ParameterGroup

    small = ParameterGroup("a", "lora", ("x.weight",), 10)
    group = ParameterGroup("a", "lora", ("x.weight",), 5, alternatives=(small,))
    assert Training("t", (group,), 1, 1, 1).numel == 10


@pytest.mark.parametrize(("count", "text"), [(12, "12 B"), (1500, "1.5 kB"), (17_400_000, "17.4 MB"), (3e12, "3.0 TB")])
def test_sizes_have_units(count, text):
    assert size_text(count) == text


def test_the_default_search_could_start():
    found = plan_search(RunConfig(), Path("runs") / "one", workers=1, tflops=0.1)
    assert found.problems == ()
