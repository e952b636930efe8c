"""The command line as a user meets it: bad input in one line, Ctrl-C, JSON, and every option that the README names."""

import contextlib
import csv
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from memcontrol.cli import app, sharing
from memcontrol.cli.options import chosen_mitigations, option_name, overridden, worker_count
from memcontrol.config import RunConfig, load_config
from memcontrol.errors import MemControlError

README = Path(__file__).parents[1] / "README.md"
DOCS = sorted((Path(__file__).parents[1] / "docs").glob("*.md"))
CONFIG = {
    "data": {"train_size": 8, "fidelity": 32, "copying": 64, "confirmation": 16},
    "tuning": {"steps": 3, "batch": 4},
    "sampling": {"images": 16, "steps": 2},
    "scoring": {
        "objectives": ["fd@pixels", "copy_gap@pixels"],
        "reported": [],
        "components": 4,
        "permutations": 10,
    },
    "search": {"budget": 2, "trajectory_rates": [1e-3], "trajectory_points": [1.0]},
    "confirm": {"seeds": 0},
}
COMMANDS = (
    *(
        "search",
        "status",
        "confirm",
        "inspect",
        "export",
        "import",
        "finetune",
        "transfer",
        "compare",
        "audit",
        "report",
    ),
    *("doctor", "schema"),
)


def run(*args, **environment):
    return CliRunner().invoke(app, [str(arg) for arg in args], env=environment or None)


def refused(*args):
    """The one line on stderr with which the program refuses these arguments."""
    result = run(*args)
    assert result.exit_code == 1, (result.output, result.exception)
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("memcontrol: ")
    return result.stderr.removeprefix("memcontrol: ").strip()


@pytest.fixture(scope="module")
def config(tmp_path_factory, space_file):
    """A configuration file of a search that takes some seconds."""
    path = tmp_path_factory.mktemp("config") / "small.yaml"
    path.write_text(yaml.safe_dump(CONFIG | {"space": str(space_file)}))
    return path


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    """The folder of a finished search, and what it printed on a narrow terminal without colour."""
    folder = tmp_path_factory.mktemp("runs") / "one"
    result = run("search", "--config", config, "--workers", "1", "--out", folder, NO_COLOR="1", COLUMNS="60")
    assert result.exit_code == 0, result.output
    return folder, result


def photos(folder, count=30):
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(count):
        pixels = rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:02d}.png")
    rows = "".join(f"{i:02d}.png,photo {i}\n" for i in range(count))
    (folder / "metadata.csv").write_text(f"file_name,text\n{rows}")
    return folder


def empty(folder):
    folder.mkdir()
    return folder


def with_broken_image(folder):
    photos(folder)
    for name in ("03.png", "04.png"):
        (folder / name).write_bytes(b"not an image")
    return folder


def with_row_without_file(folder):
    photos(folder)
    (folder / "07.png").unlink()
    return folder


def with_other_columns(folder):
    photos(folder)
    metadata = folder / "metadata.csv"
    metadata.write_text(metadata.read_text().replace("file_name,text", "file_name,label"))
    return folder


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path, r'no data source ".*photos", and no such file or folder: .* give a path'),
        (empty, r"no images in .*photos .*: name a folder that holds images"),
        (with_broken_image, r"photos/0[34]\.png does not decode \(not an image\): .* --bad-images skip"),
        (with_row_without_file, r'row 8 of .*metadata\.csv names "07\.png"'),
        (
            with_other_columns,
            r'no caption column "text" in .*\(columns: file_name, label\): .* --caption-column, or use',
        ),
        (lambda path: photos(path, 1), r"1 image"),
        (lambda path: photos(path, 20), r"fd@pixels on 4 components needs 5 held-out images for fidelity or more, got"),
    ],
)
def test_bad_data_is_one_line_and_leaves_nothing(make, message, tmp_path, config):
    data, out = make(tmp_path / "photos"), tmp_path / "run"
    assert re.search(message, refused("search", "--config", config, "--data", data, "--out", out))
    assert not out.exists()


def test_images_that_do_not_decode_may_be_skipped(tmp_path, config):
    data = with_broken_image(tmp_path / "photos")
    search = ["search", "--config", config, "--data", data, "--bad-images", "skip", "--out", tmp_path / "run"]
    # Refused for its other settings, so that nothing is trained: the data have been read by then.
    assert "needs 33 held-out" in refused(*search, "--config", raised(config, tmp_path, components=32, images=64))


def raised(config, tmp_path, *, components, images):
    content = yaml.safe_load(config.read_text())
    content["scoring"]["components"], content["sampling"]["images"] = components, images
    path = tmp_path / "raised.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def space_of(*parts):
    return yaml.safe_dump(
        {"schema": "memcontrol/search-space@1", "name": "mine", "learning_rate": 1e-3, "parts": list(parts)}
    )


NOTHING = space_of({"select": ["*.attention.*"], "name": "attention"})
OVERLAP = space_of(
    {"select": ["*.attentions.*"], "name": "attention"}, {"select": ["*.attentions.0.*"], "name": "first"}
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (NOTHING, r"part 1 \(select \*\.attention\.\*\) selects none of the \d+ parameters"),
        (OVERLAP, r"is in two groups, attention and first: narrow a select rule"),
        ("parts: [", "is not YAML"),
        ("name: mine", "Field required"),
    ],
)
def test_bad_spaces_are_one_line_and_leave_nothing(content, message, tmp_path, config):
    space, out = tmp_path / "mine.yaml", tmp_path / "run"
    space.write_text(content)
    assert re.search(message, refused("search", "--config", config, "--space", space, "--out", out))
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--model tinyy", "unknown model 'tinyy': did you mean tiny"),
        ("--space stage-kind", "unknown search space 'stage-kind': did you mean stage-kinds"),
        ("--objectives fd@pixel", 'unknown encoder "pixel" in score "fd@pixel": did you mean pixels?'),
        ("--objectives copygap@pixels", 'unknown measure "copygap" in score "copygap@pixels": did you mean copy_gap'),
        ("--objectives fid-and-mfid", 'unknown measure "fid-and-mfid" in score "fid-and-mfid": did you mean fid-and-'),
        ("--objectives fd --images 4", "fd@efficientnet-lite0 on 4 components needs 5 generated images or more, got 4"),
        ("--objectives kid@clip", "give it with --weights clip=PATH"),
        ("--objectives kid@clip --weights clip=nowhere", "nowhere"),
        ("--weights clip", "--weights clip: expected NAME=PATH, such as inception=weights/inception.pth"),
        ("--weights clop=here", 'weights of an unknown encoder "clop": did you mean clip?'),
        ("--mitigation rwaa", 'unknown mitigation "rwaa": did you mean rwa?'),
        (
            "--mitigation rwa:cout=3",
            'mitigation rwa has no strength "cout=3": did you mean count? known: count, probability',
        ),
        ("--mitigation rwa:count=-1", "count is -1: expected a whole number, 0 or more"),
        ("--mitigation none --mitigation rwa", "--mitigation none beside 1 more: give none alone, or leave it out"),
        ("--mitigation threshold --mitigation agc", "choose one of them"),
        ("--objectives nowhere:score", "objective nowhere:score: cannot import 'nowhere'"),
        ("--objectives ,", "--objectives ,: Value should have at least 1 item"),
        ("--budget 0", "--budget 0: should be greater than or equal to 1"),
        ("--seed -1", "--seed -1: should be greater than or equal to 0"),
        ("--steps 0", "--steps 0: should be greater than or equal to 1"),
        ("--images 4", "fd@pixels on 4 components needs 5 generated images or more, got 4: ask for more with --images"),
        ("--sampler best", "--sampler best: should be 'auto', 'hamming', 'gp', 'tpe', 'nsga2' or 'random'"),
        ("--captions maybe", "--captions maybe: should be 'column', 'class-names' or 'none'"),
        ("--bad-images ignore", "--bad-images ignore: should be 'error' or 'skip'"),
        ("--workers none", "--workers none: expected auto or a number of at least 1"),
        ("--workers 0", "--workers 0: expected auto or a number of at least 1"),
        ("--learning-rate fast", "--learning-rate fast: expected LOW:HIGH with 0 < LOW <= HIGH, such as 3e-4:1e-2"),
        ("--learning-rate 1e-2:1e-3", "--learning-rate 1e-2:1e-3: expected LOW:HIGH with 0 < LOW <= HIGH"),
        ("--learning-rate 1:2:3", "--learning-rate 1:2:3: expected LOW:HIGH"),
        ("--learning-rate 1e-3:inf", "--learning-rate 1e-3:inf: expected LOW:HIGH"),
        ("--learning-rate 0", "--learning-rate 0: expected LOW:HIGH"),
        ("--repeat 50", 'repeat "50": expected F:K'),
        ("--train-size 1", "train_size is 1: every set needs at least 2 images"),
        ("--data faces --train-size 100", "use --train-size 96 or less"),
        ("--data face", 'no data source "face", and no such file or folder: did you mean faces?'),
    ],
)
def test_bad_options_are_one_line_and_leave_nothing(options, message, tmp_path, config):
    out = tmp_path / "run"
    line = refused("search", "--config", config, *options.split(), "--out", out)
    assert message in line
    assert len(line) < 320
    assert not out.exists()


def test_a_data_source_that_there_is_not_is_told_before_torch_is_loaded(tmp_path):
    commands = (
        "search --data nowhere",
        "transfer --mask m --data nowhere",
        "compare --data nowhere",
        "finetune --mask m --data nowhere --out o",
        "audit --model tiny --train nowhere --out o",
        "audit --model tiny --train brain --holdout nowhere --out o",
    )
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom memcontrol.cli import app\n"
        f"for command in {commands}:\n    result = CliRunner().invoke(app, command.split())\n"
        "    sys.stderr.write(result.stderr)\nsys.exit('torch' in sys.modules and 99)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert told.stderr.count('memcontrol: no data source "nowhere"') == told.stderr.count("\n") == len(commands)
    assert told.returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_the_release_is_told():
    result = run("--version")
    assert result.exit_code == 0
    assert re.fullmatch(r"memcontrol \d+\.\d+\.\d+\S*\n", result.stdout)


def test_a_request_to_end_is_taken_as_ctrl_c_is(monkeypatch):
    from memcontrol import cli

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(cli, "app", lambda: os.kill(os.getpid(), signal.SIGTERM))
    try:
        with pytest.raises(KeyboardInterrupt):
            cli.main()
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_cache_that_cannot_be_written_is_one_line(config, tmp_path):
    (tmp_path / "cache").write_text("a file where a folder is expected")
    result = run("search", "--config", config, "--out", tmp_path / "run", MEMCONTROL_CACHE=str(tmp_path / "cache"))
    assert result.exit_code == 1, result.output
    assert result.stderr.startswith("memcontrol: cannot read or write")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("options", ["--tflops 50", "--json"])
def test_options_of_a_plan_are_refused_without_one(options, tmp_path):
    mask = Path(__file__).parents[1] / "experiments" / "capacity_control_tables" / "masks" / "knee.json"
    line = refused("finetune", "--mask", mask, "--out", tmp_path / "out", *options.split())
    assert "to --dry-run alone" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("preset", ["noise-magnitude-and-fid", "fid-and-mifid"])
def test_presets_with_inception_ask_for_its_package_or_its_weights(preset, tmp_path, config):
    line = refused("search", "--config", config, "--objectives", preset, "--out", tmp_path / "run")
    assert re.search(r"package torch_fidelity is not installed|encoder inception needs weights, got none", line)
    assert not (tmp_path / "run").exists()


def test_weights_and_mitigations_are_repeatable_and_none_clears_those_of_a_file(tmp_path):
    path = tmp_path / "mitigated.yaml"
    path.write_text("mitigations: [rwa]")
    kept = overridden(load_config(path), {"": {"mitigations": chosen_mitigations(None)}})
    cleared = overridden(load_config(path), {"": {"mitigations": chosen_mitigations(["none"])}})
    both = ["rt", "threshold:share=0.2"]
    assert [kept.mitigations, cleared.mitigations] == [("rwa",), ()]
    assert overridden(RunConfig(), {"": {"mitigations": chosen_mitigations(both)}}).mitigations == tuple(both)
    weights = {"scoring": {"encoder_weights": ["clip=a", "inception=b=c"]}}
    assert overridden(RunConfig(), weights).scoring.encoder_weights == {"clip": "a", "inception": "b=c"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"tuning: {step: 3}", "tuning.step: unknown key; did you mean steps or stop? (got 3)"),
        (b"budget: 3", "budget: unknown key; known: confirm, data, learning_rate, mitigations, model, "),
        (b"search: {budget: 0}", "search.budget: should be greater than or equal to 1 (got 0)"),
        (b"learning_rate: [1.0e-2, 1.0e-3]", "learning_rate: expected LOW:HIGH with 0 < LOW <= HIGH"),
        (b"a: [1", "is not YAML"),
        (b"\xff\xfe\x00", "is not YAML"),
    ],
)
def test_a_bad_configuration_file_is_one_line(content, message, tmp_path):
    path, out = tmp_path / "bad.yaml", tmp_path / "run"
    path.write_bytes(content)
    line = refused("search", "--config", path, "--out", out)
    assert str(path) in line
    assert message in line
    assert not out.exists()


def test_a_missing_configuration_file_is_one_line(tmp_path):
    assert "no configuration file" in refused("search", "--config", tmp_path / "absent.yaml")


def test_output_that_cannot_be_written_is_one_line(config):
    line = refused("search", "--config", config, "--out", config / "run")
    assert re.search(r"cannot write to .*small\.yaml/run: .*; name another folder with --out", line)


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        ("--space stages", r"space was \S+three-groups\.yaml, now stages"),
        ("--data faces", r"data\.source was brain, now faces"),
    ],
)
def test_a_study_made_with_other_settings_is_refused_and_kept(options, changed, finished, config):
    folder, _ = finished
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    line = refused("search", "--config", config, *options.split(), "--out", folder)
    assert re.fullmatch(rf"{re.escape(str(folder))} holds a study made with other settings: {changed}; use .*", line)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("args", [["sreach"], ["search", "--bogus", "3"], ["search", "--budget", "many"], ["finetune"]])
def test_usage_errors_exit_with_2(args):
    result = run(*args)
    assert result.exit_code == 2
    assert "Usage: " in result.stderr


def test_values_that_options_leave_alone_stay():
    settings = RunConfig().model_copy(update={"seed": 5})
    assert overridden(settings, {"": {"seed": None}, "search": {"budget": None}}) == settings
    assert overridden(settings, {"search": {"budget": 80}}).search.budget == 80


@pytest.mark.parametrize(("text", "rates"), [("3e-4:1e-2", (3e-4, 1e-2)), ("1e-3", (1e-3, 1e-3))])
def test_learning_rates_are_a_range_or_one(text, rates):
    assert overridden(RunConfig(), {"": {"learning_rate": text}}).learning_rate == rates


def test_workers_are_counted():
    assert [worker_count(text) for text in ("auto", "3")] == [None, 3]
    with pytest.raises(MemControlError, match="--workers -1"):
        worker_count("-1")


def test_output_elsewhere_than_on_a_terminal_has_no_control_codes(finished):
    _, result = finished
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", result.stdout + result.stderr)
    assert "trial 1  2/2" in result.stdout
    assert re.search(r"Trial \d+ trains", result.stdout)
    table = [line for line in result.stdout.splitlines() if line.startswith("  ")]
    assert table
    assert max(map(len, table)) <= 60


def test_a_resumed_search_prints_json_lines_alone(finished, config, tmp_path):
    folder, _ = finished
    result = run("search", "--config", config, "--workers", "1", "--out", folder, "--budget", "3", "--json")
    assert result.exit_code == 0, result.output
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert {event["event"] for event in events} <= {"note", "progress", "finished", "result"}
    assert [event["trial"] for event in events if event["event"] == "finished"] == [2]
    assert events[-1]["event"] == "result"
    assert events[-1]["budget"] == 3
    front = json.loads((folder / "front.json").read_text())["front"]
    assert [member["trial"] for member in events[-1]["front"]] == [member["trial"] for member in front]


def test_inspect_prints_a_table_or_json():
    table = run("inspect", "--model", "tiny", "--space", "stage-kinds", COLUMNS="100")
    assert table.exit_code == 0
    content = json.loads(run("inspect", "--model", "tiny", "--space", "stage-kinds", "--json").stdout)
    for group in content["groups"]:
        assert re.search(rf"\b{re.escape(group['name'])}\b.*\b{group['numel']:,}\b", table.stdout)
    assert sum(group["numel"] for group in content["groups"]) == content["trainable"]["numel"]
    assert "unknown model 'tinyy': did you mean tiny" in refused("inspect", "--model", "tinyy")
    assert "did you mean stage-kinds" in refused("inspect", "--space", "stagekinds")


@pytest.mark.parametrize("pick", ["knee", "best-fidelity", "least-copied", "all"])
def test_export_prints_the_paths_that_it_wrote(pick, finished, tmp_path):
    folder, _ = finished
    result = run("export", folder, "--pick", pick, "--out", tmp_path / "masks")
    assert result.exit_code == 0, result.output
    printed = [Path(line) for line in result.stdout.splitlines()]
    assert sorted(printed) == sorted((tmp_path / "masks").iterdir())
    front = json.loads((folder / "front.json").read_text())["front"]
    assert len(printed) == (len(front) if pick == "all" else 1)


def test_export_refuses_what_is_not_there(finished, tmp_path):
    folder, _ = finished
    assert "unknown pick 'knees': did you mean knee" in refused("export", folder, "--pick", "knees")
    assert "no front.json in" in refused("export", tmp_path)


def test_import_makes_a_mask_file_of_an_array(tmp_path):
    np.save(tmp_path / "mask.npy", np.array([1, 0, 0, 1, 0, 0, 1]))
    options = ["--space", "paper-difffit", "--learning-rate", "1e-3", "--steps", "5", "--out", tmp_path / "masks"]
    result = run("import", tmp_path / "mask.npy", "--model", "tiny", *options)
    assert result.exit_code == 0, result.output
    (path,) = (tmp_path / "masks").iterdir()
    assert result.stdout == f"{path}\n"
    content = json.loads(path.read_text())
    assert [group["on"] for group in content["groups"]][:7] == [True, False, False, True, False, False, True]
    assert content["model"]["id"] == "tiny"
    assert content["provenance"]["steps"] == 5


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        (None, "--space paper-difffit", "no mask array"),
        ([1, 0, 0], "--space paper-difffit", "holds 3 bits and paper-difffit has 7 on tiny"),
        ([1, 0, 0.5], "--space paper-difffit", "continuous masks are not imported"),
        ([1, 0] * 8, "", "holds 16 bits and paper-attention has 7 on tiny"),
        ([1] * 13, "", "13 bits fit paper-svdiff and paper-difffit alike: name the search space with --space"),
        ([1, 0, 0], "--space paper-diffit", "did you mean paper-difffit"),
        ([1, 0, 0], "--model tinyy --space paper-difffit", "unknown model 'tinyy'"),
        ([1, 0, 0], "--space paper-difffit --learning-rate 0", "learning rate 0: expected a rate above 0"),
        ([1, 0, 0], "--space paper-difffit --steps 0", "0 steps: expected"),
    ],
)
def test_import_refuses_bad_input_and_leaves_nothing(values, options, message, tmp_path):
    file, out = tmp_path / "mask.npy", tmp_path / "masks"
    if values is not None:
        np.save(file, np.array(values))
    assert message in refused("import", file, "--learning-rate", "1e-3", "--out", out, *options.split())
    assert not out.exists()


def test_finetune_saves_a_pipeline_that_diffusers_loads(finished, tmp_path):
    from diffusers import StableDiffusionPipeline

    folder, _ = finished
    mask = Path(run("export", folder, "--pick", "best-fidelity", "--out", tmp_path).stdout.strip())
    out = tmp_path / "tuned"
    options = ["--train-size", "8", "--batch", "4", "--steps", "2", "--out", out]
    result = run("finetune", "--mask", mask, *options)
    assert result.exit_code == 0, result.output
    assert f"saved {out}: " in result.stdout.replace("\n", "")
    assert StableDiffusionPipeline.from_pretrained(out).unet is not None
    assert json.loads((out / "training" / "mask.json").read_text()) == json.loads(mask.read_text())
    # A narrow terminal breaks lines anywhere in a path, so that white space says nothing.
    said = "".join(result.stdout.split())
    assert "trainingholdspathsofthismachine:itdoesnotbelonginapublication" in said
    assert "exists and is not an empty folder" in refused("finetune", "--mask", mask, *options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--data nowhere", 'no data source "nowhere"'),
        ("--learning-rate 0", "--learning-rate 0: expected a rate above 0"),
        ("--steps 0", "--steps 0: should be"),
        ("--model tinyy", "unknown model 'tinyy'"),
        ("--mask nowhere.json", "no mask file nowhere.json"),
        ("--mitigation rwaa", 'unknown mitigation "rwaa": did you mean rwa?'),
    ],
)
def test_finetune_refuses_bad_input_and_leaves_nothing(options, message, finished, tmp_path):
    folder, _ = finished
    mask, out = next((folder / "masks").iterdir()), tmp_path / "tuned"
    assert message in refused("finetune", "--mask", mask, "--out", out, *options.split())
    assert not out.exists()


def test_a_search_under_a_mitigation_says_so_in_its_masks_and_finetune_follows(config, tmp_path):
    folder, out = tmp_path / "run", tmp_path / "tuned"
    search = ["search", "--config", config, "--workers", "1", "--mitigation", "fewer-steps:share=0.34", "--out", folder]
    assert run(*search).exit_code == 0
    trained = next(path for path in (folder / "masks").iterdir() if json.loads(path.read_text())["learning_rate"])
    assert json.loads(trained.read_text())["provenance"]["settings"]["mitigations"] == ["fewer-steps:share=0.34"]
    assert "mitigations was ['fewer-steps:share=0.34'], now []" in refused(*search[:5], "--out", folder)
    result = run("finetune", "--mask", trained, "--train-size", "8", "--out", out, COLUMNS="200")
    assert result.exit_code == 0, result.output
    assert "trained under fewer-steps:share=0.34, as mask " in result.stdout
    assert "tuned parameters, 1 steps" in result.stdout


def children(group):
    """Processes of a group, by number, zombies left out."""
    listed = subprocess.run(["ps", "-eo", "pid=,pgid=,stat="], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in listed.splitlines()]
    return [int(pid) for pid, pgid, stat in rows if int(pgid) == group and not stat.startswith("Z")]


def wait_for(happened, seconds, what):
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, f"{what} did not happen in {seconds} s"
        time.sleep(0.1)


def test_ctrl_c_keeps_what_is_done_and_the_same_command_completes(config, tmp_path):
    folder, log = tmp_path / "run", tmp_path / "run" / "log.jsonl"
    options = shlex.split(f"search --config {config} --budget 7 --sampler random --steps 12 --out {folder}")
    # The handler is set anew because whoever runs the tests in the background makes children ignore Ctrl-C.
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); import memcontrol.cli as c; c.main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, *options, "--workers", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        wait_for(lambda: log.exists() and '"trial ' in log.read_text(), 300, "a first trial")
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the program and its workers
        _, errors = process.communicate(timeout=60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130, errors
    assert errors == "memcontrol: interrupted; what was finished is kept, the same command goes on\n"
    wait_for(lambda: children(process.pid) == [], 10, "the end of every worker")
    done = completed(folder)
    assert 1 <= len(done) < 7
    assert (folder / "front.json").is_file()
    resumed = run(*options, "--workers", "1")
    assert resumed.exit_code == 0, resumed.output
    assert f"{len(done)} of 7 candidates are done already" in resumed.stdout
    after = completed(folder)
    assert len(after) == 7
    assert {number: row for number, row in after.items() if number in done} == done


def completed(folder):
    """Number -> mask and scores of every completed trial."""
    with (folder / "trials.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["state"] == "complete"]
    return {row["number"]: [row[key] for key in ("mask", "learning_rate", "fd@pixels")] for row in rows}


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_says_what_each_option_is_for(command):
    result = run(*command.split(), "--help")
    assert result.exit_code == 0
    assert "Usage: " in result.stdout


def declared(command):
    """Every option of a command, and its parameters."""
    import typer.main

    parameters = typer.main.get_command(app).commands[command].params
    names = (name for parameter in parameters for name in (*parameter.opts, *parameter.secondary_opts))
    return {name for name in names if name.startswith("--")}, parameters


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_has_help(command):
    _, parameters = declared(command)
    assert [parameter.name for parameter in parameters if not getattr(parameter, "help", "")] == []


def test_every_setting_that_search_overrides_is_called_after_its_option():
    options, _ = declared("search")
    settings = RunConfig().model_dump()
    keys = [f"data.{key}" for key in settings["data"] if key not in ("fidelity", "copying", "confirmation", "seed")]
    keys += ["model", "space", "learning_rate", "seed", "tuning.steps", "tuning.batch", "sampling.images"]
    keys += ["scoring.objectives", "scoring.encoder_weights", "mitigations", "search.budget", "search.sampler"]
    keys += ["search.rungs"]
    keys += [f"confirm.{key}" for key in settings["confirm"]]
    others = {"--workers", "--out", "--config", "--json", "--dry-run", "--tflops"}
    others |= {f"--{name.replace('_', '-')}" for name in sharing.OPTIONS}
    assert {option_name(key) for key in keys} == options - others


def written_commands(page=README):
    """Every `memcontrol ...` line of a page's blocks, as words."""
    lines = [line.strip() for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("    ")]
    return [shlex.split(line.partition("memcontrol ")[2]) for line in lines if re.search(r"(^|&& )memcontrol ", line)]


def test_readme_has_every_command():
    assert {words[0] for words in written_commands()} == set(COMMANDS)


@pytest.mark.parametrize("words", [words for page in (README, *DOCS) for words in written_commands(page)], ids=" ".join)
def test_written_commands_are_ones_that_the_program_has(words):
    if words[0].startswith("--"):  # of the program itself
        assert words[0] in {"--help", "--install-completion", "--show-completion"}
        return
    options, parameters = declared(words[0])
    given = [word for word in words[1:] if word.startswith("--")]
    assert set(given) <= options
    required = [p.opts[0] for p in parameters if p.required and p.param_type_name == "option"]
    assert set(required) <= set(given)


def test_readme_options_exist():
    text = re.sub(r"(pip install[^`\n]*|accelerate launch.*? -m )", "", README.read_text(encoding="utf-8"))
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text)) - {"--help"}
    assert named <= set().union(*(declared(command)[0] for command in COMMANDS))
