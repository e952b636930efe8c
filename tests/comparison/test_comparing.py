"""Whole comparisons on the shipped model: paired, resumed without training twice, and failures kept and shown."""

import csv
import errno
import json
import os

import numpy as np
import optuna
import pytest
import scipy.stats
from optuna.trial import TrialState
from PIL import Image
from schema_problems import schema_problems
from small_comparison import SMALL, saved_mask, small, uncaptioned

from memcontrol.cache import Cache
from memcontrol.comparison.comparing import compare
from memcontrol.comparison.ledger import STUDY, CellLedger
from memcontrol.comparison.results import ComparisonFolder
from memcontrol.errors import MemControlError, RunError
from memcontrol.report.comparison import read_results, write_comparison
from memcontrol.report.comparison_table import comparison_markdown, difference_text
from memcontrol.run import RunFolder
from memcontrol.study.events import Finished, Note
from memcontrol.study.references import everything
from memcontrol.study.trial import Laboratory

ROWS = ["full", "full + rwa", "norm", "norm + rwa"]
SCORES = ["fd@pixels", "copy_gap@pixels", "amd@pixels"]


def trials(folder):
    study = optuna.load_study(study_name=STUDY, storage=f"sqlite:///{folder.study}")
    return study.get_trials(deepcopy=False)


def by_hand(lines, cell, name):
    return {line["seed"]: float(line[name]) for line in lines if line["cell"] == cell and line["state"] == "complete"}


def test_every_row_is_trained_once_with_every_seed_in_order_of_seeds(finished):
    assert [(line["cell"], line["seed"]) for line in finished.lines] == [(r, s) for s in "12" for r in ROWS]
    assert {line["state"] for line in finished.lines} == {"complete"}
    assert [trial.user_attrs["cell"] for trial in trials(finished.folder)] == ROWS * 2
    assert {trial.state for trial in trials(finished.folder)} == {TrialState.COMPLETE}
    assert all((finished.folder.path / "samples" / f"trial-{n:03d}.png").is_file() for n in range(8))
    assert {float(line["learning_rate"]) for line in finished.lines} == {3e-3, 3e-2}


def test_a_rows_scores_are_those_of_a_training_by_itself(finished, cache_folder):
    """On the training set that the other rows of its seed have, which is another for another seed."""
    laboratory = Laboratory(small().run(2), cache=Cache(cache_folder), device="cpu")
    alone = laboratory.evaluate((everything(laboratory.frozen.unet),), 3e-3, 4, lambda *_: None)
    (line,) = [line for line in finished.lines if (line["cell"], line["seed"]) == ("full", "2")]
    assert {name: float(line[name]) for name in SCORES} == {name: alone.scores[name].value for name in SCORES}
    assert finished.document["data"] == {"name": "brain", "n": 8, "drawn_anew": True}


def test_the_tables_numbers_are_those_of_the_lines(finished):
    for row in finished.document["cells"]:
        for name in SCORES:
            own, full = by_hand(finished.lines, row["name"], name), by_hand(finished.lines, "full", name)
            values = np.array(list(own.values()))
            low, high = scipy.stats.t.interval(0.95, 1, loc=values.mean(), scale=scipy.stats.sem(values))
            assert row["scores"][name] == pytest.approx({"mean": values.mean(), "low": low, "high": high, "n": 2})
            if row["name"] == "full":
                assert row["against_full"] == {}
                continue
            differences = np.array([own[seed] - full[seed] for seed in own])
            test = scipy.stats.ttest_rel(list(own.values()), list(full.values())).confidence_interval(0.95)
            expected = {"mean": differences.mean(), "low": test.low, "high": test.high, "n": 2}
            assert row["against_full"][name] == pytest.approx(expected)


def test_an_interrupted_comparison_goes_on_and_trains_nothing_twice(finished, cache_folder, tmp_path):
    """Stopped after three trainings, and finished by two processes."""
    heard = []

    def stop(event):
        heard.extend([event] if isinstance(event, Finished) else [])
        if len(heard) == 3:
            raise KeyboardInterrupt

    folder = ComparisonFolder(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        compare(small(), folder.path, workers=1, listener=stop)
    before = trials(folder)
    assert [line["state"] for line in read_results(folder)] == ["complete"] * 3 + ["waiting"] * 5
    assert [row["seeds"] for row in folder.read()["cells"]] == [[1], [1], [1], []]
    notes = []
    rest = compare(small(), folder.path, workers=2, listener=notes.append)
    assert any("3 of 8 trainings are done already" in note.text for note in notes if isinstance(note, Note))
    assert sum(isinstance(event, Finished) for event in notes) == 5
    after = trials(folder)
    assert [(t.number, t.user_attrs, t.datetime_complete) for t in after[:3]] == [
        (t.number, t.user_attrs, t.datetime_complete) for t in before[:3]
    ]
    done = [(t.user_attrs["cell"], t.user_attrs["seed"]) for t in after if t.state == TrialState.COMPLETE]
    assert len(done) == len(set(done)) == 8
    assert rest.document == finished.document, "as if it had not been interrupted"


def test_rows_and_seeds_may_be_added_and_other_settings_may_not(finished, cache_folder, tmp_path):
    folder, one = ComparisonFolder(tmp_path / "run"), {"methods": ["full"]}
    compare(small(grids=[one], seeds=[1]), folder.path, workers=1)
    compare(small(grids=[one, {"methods": ["norm"]}], seeds=[1]), folder.path, workers=1)
    assert len(trials(folder)) == 2
    with pytest.raises(RunError, match=r"holds another row norm: its rate, groups or strengths were others"):
        compare(small(grids=[{"methods": ["norm"]}], rates={"norm": 0.5}, seeds=[1]), folder.path, workers=1)
    with pytest.raises(RunError, match=r"made with other settings: tuning.steps was 4, now 5"):
        compare(small(tuning={"steps": 5, "batch": 4}), folder.path, workers=1)


def test_a_failed_training_is_recorded_and_shown_and_tried_again(cache_folder, tmp_path):
    folder = ComparisonFolder(tmp_path / "run")
    config = small(grids=[{"methods": ["norm"]}, {"methods": ["full"]}], rates={"norm": 1e30}, seeds=[1])
    heard = []
    document = compare(config, folder.path, workers=1, listener=heard.append).document
    (error,) = [event.error for event in heard if isinstance(event, Finished) and event.error]
    assert error.startswith("DivergedError: ")
    assert [(line["cell"], line["state"], line["error"]) for line in read_results(folder)] == [
        ("norm", "fail", error),
        ("full", "complete", ""),
    ]
    (norm, full) = document["cells"]
    assert norm["failed"] == [{"seed": 1, "error": error}]
    assert (norm["scores"], norm["against_full"], full["failed"]) == ({}, {}, [])
    assert f"- failed: norm, seed 1: {error.splitlines()[0]}" in comparison_markdown(document)
    write_comparison(folder)
    compare(config, folder.path, workers=1)
    attempts = [(t.user_attrs["cell"], t.state.name) for t in trials(folder)]
    assert attempts == [("norm", "FAIL"), ("full", "COMPLETE"), ("norm", "FAIL")]


def test_a_full_disk_ends_a_comparison_with_one_line_and_fails_nothing(cache_folder, tmp_path, monkeypatch):
    folder = ComparisonFolder(tmp_path / "run")
    config = small(grids=[{"methods": ["norm"]}, {"methods": ["full"]}], seeds=[1])

    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(RunFolder, "write_picture", full)
    with pytest.raises(RunError, match=r"cannot write to .* \(No space left on device\): what was finished is kept"):
        compare(config, folder.path, workers=1)
    assert [line["state"] for line in read_results(folder)] == ["interrupted", "waiting"]


def test_a_mask_is_a_row_and_the_seed_that_it_was_found_on_is_told(finished, tiny, cache_folder, tmp_path):
    study = optuna.load_study(study_name=STUDY, storage=f"sqlite:///{finished.folder.study}")
    drawn = study.user_attrs["data 1"]
    assert drawn != study.user_attrs["data 2"]
    path = saved_mask(tiny, tmp_path / "found.json", bits="100", provenance={"data": {"sha256": drawn}, "steps": 300})
    notes = []
    config = small(grids=[{"methods": ["full"], "masks": [str(path)]}], seeds=[1])
    document = compare(config, tmp_path / "run", workers=1, listener=notes.append).document
    row = document["cells"][1]
    assert (row["name"], row["is_mask"], row["found_on"], row["learning_rate"]) == ("found", True, [1], 1e-3)
    assert row["numel"] == sum(p.numel() for n, p in tiny.unet.named_parameters() if ".attentions." in n)
    told = [note.text for note in notes if isinstance(note, Note)]
    assert "mask found was found at 300 steps, and trains for 4 here" in told
    assert "mask found was found on the images of seed 1" in comparison_markdown(document)
    assert row["scores"]["fd@pixels"]["low"] is None, "one seed has no interval"


def test_bad_rows_are_refused_before_anything_is_written(cache_folder, tmp_path):
    refused = [
        (small(data=uncaptioned(tmp_path / "images")), "full \\+ rwa: .* needs captions"),
        (small(columns=["fd@latents"]), "column fd@latents is not measured here"),
        (small(scoring=SMALL["scoring"] | {"objectives": ["fd@pixel"]}), "unknown encoder"),
    ]
    for config, message in refused:
        with pytest.raises(MemControlError, match=message):
            compare(config, tmp_path / "run", workers=1)
    assert not (tmp_path / "run").exists()


# What is written for people


def test_the_picture_and_the_tables_are_written(finished):
    files = {path.name for path in finished.folder.path.iterdir()}
    assert {"config.yaml", "results.csv", "comparison.json", "table.csv", "table.md", "comparison.png"} <= files
    with Image.open(finished.folder.chart) as picture:
        assert min(picture.size) > 500
    assert json.loads(finished.folder.document.read_text())["schema"] == "memcontrol/comparison@1"
    with finished.folder.table.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["cell"], line["score"]) for line in lines] == [(row, name) for row in ROWS for name in SCORES]
    for line in lines:
        row = next(row for row in finished.document["cells"] if row["name"] == line["cell"])
        assert float(line["mean"]) == row["scores"][line["score"]]["mean"]
        assert (line["minus_full"] == "") == (line["cell"] == "full")


def test_the_markdown_says_n_seeds_and_encoder(finished):
    text = finished.folder.markdown.read_text()
    assert text.count("| full + rwa | 2 |") == 2
    assert "| full | 2 | 0.003 | 100 |" in text
    for part in ("n = 2 seeds (1, 2)", "8 training images, drawn anew for each seed", "fd on pixels", "12 images"):
        assert text.count(part) == 2
    difference = finished.document["cells"][2]["against_full"]["fd@pixels"]
    assert difference_text(difference) in text


def test_hopeless_comparisons_end_with_the_reason(tmp_path, monkeypatch):
    monkeypatch.setattr("memcontrol.comparison.ledger.HOPELESS", 2)
    folder = ComparisonFolder(tmp_path / "run")
    folder.prepare()
    book = CellLedger(folder, cells={"a": "1", "b": "2"}, seeds=(1, 2), objectives=("fd@pixels",), identity={"x": "y"})
    assert book.enqueue() == 0
    for _ in range(2):
        book.fail(book.claim(), "the reason", {})
    with pytest.raises(RunError, match="2 trainings failed, the last because: the reason"):
        book.claim()
    assert book.enqueue() == 0
    assert book.claim() is not None, "the next launch tries again"


def test_a_narrower_command_leaves_queued_rows_alone(tmp_path):
    folder = ComparisonFolder(tmp_path / "run")
    folder.prepare()
    known = {"objectives": ("fd@pixels",), "identity": {"x": "y"}}
    CellLedger(folder, cells={"a": "1", "b": "2"}, seeds=(1, 2), **known).enqueue()
    book = CellLedger(folder, cells={"b": "2"}, seeds=(2,), **known)
    book.enqueue()
    work = book.claim()
    assert (work.cell, work.seed) == ("b", 2)
    assert book.claim() is None
    killed = CellLedger(folder, cells={"b": "2"}, seeds=(2,), **known)
    killed.enqueue()
    again = killed.claim()
    assert (again.cell, again.seed, again.number != work.number) == ("b", 2, True)


def test_the_document_and_the_settings_are_what_their_schemas_say(finished):
    assert schema_problems("comparison", finished.folder.document) == []
    assert schema_problems("compare-config", finished.folder.config) == []
