"""An interrupted transfer goes on; its JSON agrees with its lines; tables, words and picture say what it says."""

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from PIL import Image
from schema_problems import schema_problems
from small_transfer import SMALL, small, stage_kinds_mask
from typer.testing import CliRunner

from memcontrol.cli import app
from memcontrol.errors import MaskError
from memcontrol.mask import Mask
from memcontrol.report.comparison import read_results
from memcontrol.report.transfer import write_transfer
from memcontrol.report.transfer_words import transfer_sentences, verdict
from memcontrol.study.events import Finished, Note
from memcontrol.transferring.results import TransferFolder
from memcontrol.transferring.transfer import transfer

ROWS = (
    *("found", "freeze", "full", "full, 1 steps", "all of stage-kinds, rate 0.001", "own"),
    *("found, random 1", "found, random 2"),
)
SCORES = ("fd@pixels", "copy_gap@pixels", "amd@pixels", "copy_gap_same_subjects@pixels")


@pytest.fixture(scope="module")
def files(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("masks")
    kept = {"data": {"name": "brain", "sha256": "sha256:x"}, "steps": 300}
    one = stage_kinds_mask(tiny, folder / "found.json", "down.0.attention", "mid.resnets", "up.norms", provenance=kept)
    return one, stage_kinds_mask(tiny, folder / "own.json", "up.0.attention", "ends")


@pytest.fixture(scope="module")
def finished(files, cache_folder, tmp_path_factory):
    """A transfer that was stopped after two trainings and finished by the same call."""
    folder = TransferFolder(tmp_path_factory.mktemp("runs") / "transfer")
    config = small(masks=[str(files[0])], target_masks=[str(files[1])])
    heard = []

    def stop(event):
        heard.append(event)
        if sum(isinstance(one, Finished) for one in heard) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        transfer(config, folder.path, workers=1, listener=stop)
    half, more = folder.read(), []
    write_transfer(folder)
    result = transfer(config, folder.path, workers=1, listener=more.append)
    write_transfer(folder)
    notes = [event.text for event in heard if isinstance(event, Note)]
    return SimpleNamespace(folder=folder, half=half, heard=more, notes=notes, document=result.document)


def by_seed(folder, row, score):
    return {int(line["seed"]): float(line[score]) for line in read_results(folder) if line["cell"] == row}


def test_an_interrupted_transfer_goes_on_and_trains_nothing_twice(finished):
    assert [row["seeds"] for row in finished.half["cells"][:3]] == [[1], [1], []]
    assert finished.half["masks"][0]["random"]["fd@pixels"] is None
    assert finished.half["masks"][0]["minus"]["untuned"]["fd@pixels"]["n"] == 1
    assert any(
        "2 of 16 trainings are done already" in event.text for event in finished.heard if isinstance(event, Note)
    )
    assert sum(isinstance(event, Finished) for event in finished.heard) == 14
    assert [(line["cell"], int(line["seed"]), line["state"]) for line in read_results(finished.folder)] == [
        (row, seed, "complete") for seed in (1, 2) for row in ROWS
    ]


def test_each_seed_draws_its_own_training_set_and_full_has_its_own_steps(finished):
    assert finished.document["data"] == {"name": "faces", "n": 8, "drawn_anew": True}
    steps = {line["cell"]: line["steps"] for line in read_results(finished.folder)}
    assert (steps["full, 1 steps"], steps["full"], steps["found"], steps["freeze"]) == ("1", "2", "2", "0")
    assert [row["steps"] for row in finished.document["cells"]] == [2, 0, 2, 1, 2, 2, 2, 2]


def test_differences_and_ranks_are_those_of_the_lines(finished):
    (mask,) = finished.document["masks"]
    assert mask["rows"] == {"full": "full", "untuned": "freeze", "all groups": ROWS[4], "own": "own"}
    for score in SCORES:
        own = by_seed(finished.folder, "found", score)
        for what, row in mask["rows"].items():
            other = by_seed(finished.folder, row, score)
            expected = np.mean([own[seed] - other[seed] for seed in (1, 2)])
            assert mask["minus"][what][score]["mean"] == pytest.approx(expected)
        sign = -1 if score == "amd@pixels" else 1
        twins = [sign * np.mean(list(by_seed(finished.folder, row, score).values())) for row in ROWS[6:]]
        rank = 1 + sum(twin <= sign * np.mean(list(own.values())) for twin in twins)
        assert (mask["random"][score]["rank"], mask["random"][score]["twins"]) == (rank, 2)
        assert mask["random"][score]["p"] == pytest.approx(rank / 3)
    assert set(mask["equal_fidelity"]) == {"copy_gap@pixels"}
    assert set(mask["equal_fidelity"]["copy_gap@pixels"]["shares"]) <= {"full", "full, 1 steps"}
    assert json.loads(json.dumps(finished.document)) == finished.folder.read()


def test_what_a_reader_should_know_is_told(finished):
    assert "2 random masks give no p below 0.33: 19 are needed for .05" in finished.notes
    assert "mask found was found at 300 steps, and trains for 2 here" in finished.notes
    assert not any("was found on" in note for note in finished.notes), "on other data, as it should be"
    saved = Mask.from_pretrained(finished.folder.carried_mask("found"))
    assert saved.key == next(row["bits"] for row in finished.document["cells"] if row["name"] == "found")


def test_tables_words_and_picture_are_written(finished):
    text = finished.folder.markdown.read_text()
    for part in (
        "### Scores",
        "| 2 random of found |",
        "### found: trains",
        "found on brain",
        "### In words",
        "n = 2 seeds",
    ):
        assert part in text
    for sentence in transfer_sentences(finished.document):
        assert f"- {sentence}\n" in text
    assert "safe" not in text
    assert "private" not in text
    with Image.open(finished.folder.chart) as picture:
        assert min(picture.size) > 500
    with finished.folder.table.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert {line["what"] for line in lines} == {
        *("value", "minus full", "minus freeze", f"minus {ROWS[4]}", "minus own", "minus random"),
        "minus full at equal fidelity",
    }
    (found,) = [line for line in lines if (line["what"], line["score"]) == ("minus random", "fd@pixels")]
    assert float(found["p"]) == finished.document["masks"][0]["random"]["fd@pixels"]["p"]


def summary(mean, half):
    return {"mean": mean, "low": mean - half, "high": mean + half, "n": 8}


def told(fd_p, gap_p, case, difference, untuned=-50.0):
    """The sentences on a mask of these results."""
    ranks = {
        name: {"rank": round(20 * p), "twins": 19, "p": p, "by_seed": {}, "difference": summary(0.0, 1.0)}
        for name, p in (("fd@pixels", fd_p), ("copy_gap@pixels", gap_p))
    }
    equal = {"case": case, "fidelity": "fd@pixels", "shares": {"full": 1.0}, "full": summary(0.0, 1.0)}
    mask = {
        "name": "found",
        "rows": {"full": "full"},
        "minus": {
            "full": {"fd@pixels": summary(20.0, 4.0), "copy_gap@pixels": summary(-0.02, 0.01)},
            "untuned": {"fd@pixels": summary(untuned, 10.0)},
        },
        "random": ranks,
        "ahead_in_all": 0,
        "equal_fidelity": {"copy_gap@pixels": equal | {"difference": difference}},
    }
    objectives = list(ranks)
    scores = [{"name": name, "better": "lower"} for name in objectives]
    return transfer_sentences({"objectives": objectives, "scores": scores, "steps": 300, "masks": [mask]})


def test_words_say_what_is_beaten_and_what_is_not():
    random, equal, full = told(0.05, 0.4, "equal", summary(-0.02, 0.01))
    assert random.startswith(
        "found against 19 random masks of its size: fd rank 1 of 20, p = .05; copy_gap rank 8 of 20"
    )
    assert "It beats them in fd." in random
    assert "where full fine-tuning is as good in fd" in equal
    assert equal.endswith("copy_gap -0.0200 ± 0.0100 against it, better.")
    assert "fd +20.0 ± 4.00, worse; copy_gap -0.0200 ± 0.0100, better." in full
    assert "It does not beat them." in told(0.1, 0.4, "equal", summary(-0.02, 0.01))[0]


def test_less_copying_with_less_fidelity_is_called_that():
    _, short, _ = told(0.5, 0.05, "short", summary(-0.02, 0.01))
    assert "which is better in fd" in short
    assert short.endswith("That may mean only that the mask is trained less.")
    *_, unlearned = told(0.5, 0.05, "short", summary(-0.02, 0.01), untuned=-5.0)
    assert "not shown to be better than the untuned model" in unlearned


@pytest.mark.parametrize(
    ("difference", "better", "expected"),
    [
        (summary(-1, 0.5), "lower", "better"),
        (summary(-1, 0.5), "higher", "worse"),
        (summary(1, 0.5), "lower", "worse"),
        (summary(1, 2), "lower", "no difference shown"),
        ({"mean": 1.0, "low": None, "high": None, "n": 1}, "lower", "one seed shows no difference"),
    ],
)
def test_a_verdict_needs_an_interval_on_one_side_of_zero(difference, better, expected):
    assert verdict(difference, better) == expected


def test_what_is_wrong_with_masks_is_said_before_data_and_model_are_loaded(files, tmp_path, monkeypatch):
    monkeypatch.setattr("memcontrol.transferring.transfer.opened", lambda *_: pytest.fail("loaded"))
    for masks in ([], ["nowhere.json"], [str(files[0])] * 2 + [str(tmp_path / "none.json")]):
        with pytest.raises(MaskError, match="no mask"):
            transfer(small(masks=masks), tmp_path / "run", workers=1)


# The command


def run(*args, **environment):
    return CliRunner().invoke(app, ["transfer", *map(str, args)], env=environment or None)


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(SMALL | {"full_points": [1.0]}))
    return path


def grey(folder, *, caption="photo {}"):
    """Photographs in one channel, with a caption each, or without metadata where `caption` is None."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(120):
        Image.fromarray(rng.integers(0, 256, (16, 16), dtype=np.uint8)).save(folder / f"{i:03d}.png")
    if caption is not None:
        rows = "".join(f"{i:03d}.png,{caption.format(i)}\n" for i in range(120))
        (folder / "metadata.csv").write_text(f"file_name,text\n{rows}")
    return folder


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "no mask to transfer: name a mask's JSON file or a search's folder with --mask"),
        (["--mask", "nowhere.json"], "no mask file nowhere.json"),
        (["--mask", "FOUND", "--target-run", "nowhere"], "no mask file nowhere"),
        (["--mask", "FOUND", "--seeds", "five"], "--seeds five: 'five' is no seed"),
        (["--mask", "FOUND", "--rate", "norm=1"], "expected full=RATE alone"),
        (["--mask", "FOUND", "--map", "order"], "--map order: should be 'name' or 'position'"),
        (
            ["--mask", "FOUND", "--model", "tiny-sd"],
            "found: mask stage-kinds-1000-0010-0000-10 cannot be carried by name to UNet2DConditionModel tiny-sd",
        ),
        (["--mask", "FOUND", "--data", "UNCAPTIONED"], "no metadata.csv or metadata.jsonl in"),
        (["--mask", "FOUND", "--data", "BLANK"], 'every caption in column "text" of'),
        (["--mask", "FOUND", "--config", "nowhere.yaml"], "no configuration file nowhere.yaml"),
    ],
)
def test_bad_options_are_one_line_and_write_nothing(options, message, config, files, tmp_path):
    names = {"FOUND": files[0]}
    for name, caption in (("UNCAPTIONED", None), ("BLANK", "")):
        if name in options:
            names[name] = grey(tmp_path / "grey", caption=caption)
    given = [] if "--config" in options else ["--config", config]
    result = run(*given, "--out", tmp_path / "run", *(names.get(option, option) for option in options))
    assert (result.exit_code, result.stdout) == (1, ""), result.output
    assert message in result.stderr
    assert result.stderr.startswith("memcontrol: ")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_grey_images_and_another_model_end_to_end(config, files, ddpm_folders, tmp_path, monkeypatch):
    monkeypatch.setattr("memcontrol.random_masks.CLOSE", -1.0)  # no share is near enough
    out = tmp_path / "run[a]"
    given = ["--config", config, "--mask", files[0], "--data", grey(tmp_path / "grey"), "--model", ddpm_folders[1]]
    given += ["--map", "position", "--random", "1", "--seeds", "3", "--workers", "1", "--out", out]
    result = run(*given, NO_COLOR="1", COLUMNS="100")
    assert result.exit_code == 0, result.output
    said = " ".join(result.stdout.split())
    assert "found carried by position: -down.0.resnets; -down.1.attention; " in said
    assert "-ends; on there and carried nowhere: down.0.attention" in said
    assert "the learning rates of found were found on another model" in said
    assert "random masks of found train " in said
    assert "found, seed 3 1/5" in said
    assert "one seed shows no difference" in said
    assert f"Written to {out}\n" in result.stdout
    assert (out / "transfer.png").is_file()
    again = run(*given, "--json")
    assert again.exit_code == 0, again.output
    events = [json.loads(line) for line in again.stdout.splitlines()]
    assert [event["event"] for event in events if event["event"] == "finished"] == []
    assert (events[-1]["event"], events[-1]["schema"]) == ("result", "memcontrol/transfer@1")
    assert events[-1]["masks"][0]["how"] == "position"


def test_the_document_and_the_settings_are_what_their_schemas_say(finished):
    assert schema_problems("transfer", finished.folder.document) == []
    assert schema_problems("transfer-config", finished.folder.config) == []
