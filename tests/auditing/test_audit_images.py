"""An audit of a folder: planted copies are flagged, honest images are not, and everything is accounted for."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from schema_problems import schema_problems

from memcontrol.auditing.document import AuditDocument
from memcontrol.auditing.examining import audit
from memcontrol.auditing.plan import MAIN
from memcontrol.errors import DataError, RunError
from memcontrol.measures import COPYING, FIDELITY, MEASURES
from memcontrol.plain_files import read_yaml
from memcontrol.report.audit_page import audit_page

GAP = "copy_gap@pixels"


@pytest.fixture(scope="module")
def audits(folders, tmp_path_factory):
    """Audits of each folder, made once."""
    made = {}

    def of(name, settings):
        if name not in made:
            out = tmp_path_factory.mktemp("audits") / name
            made[name] = audit(settings(name), out), out
        return made[name]

    return of


def without_time(document):
    return document.model_dump(by_alias=True, exclude={"seconds"})


def flagged(document):
    return {name for name, measured in document.scores.items() if measured.flagged}


def test_planted_copies_are_flagged_and_the_controls_work(audits, settings):
    document, _ = audits("planted", settings)
    working = {name for name, control in document.controls.items() if control.works}
    # The tail of twelve images' copies lies near its null band.
    sure = {f"{measure}{ending}@pixels" for measure in MAIN if measure != "copy_tail" for ending in ("", "_mirrored")}
    assert sure <= working
    assert sure <= flagged(document)


def test_honest_images_are_not_flagged(audits, settings):
    document, _ = audits("honest", settings)
    assert flagged(document) == set()


def test_each_copying_measure_has_both_ends_and_fidelity_none(audits, settings):
    document, _ = audits("honest", settings)
    copying = {name for name in document.scores if MEASURES[name.partition("@")[0]].family == "copying"}
    assert {f"{measure}@pixels" for measure in COPYING} <= copying
    assert set(document.controls) == copying
    assert all(control.ceiling is not None for control in document.controls.values())
    fidelity = [name for name in document.scores if MEASURES[name.partition("@")[0]].family in FIDELITY]
    assert fidelity
    assert {document.scores[name].flagged for name in fidelity} == {None}


@pytest.mark.parametrize("name", ["planted", "honest"])
def test_every_measure_is_there_or_said_to_be_missing(name, audits, settings):
    document, _ = audits(name, settings)
    named = {*document.scores, *(missing.name for missing in document.not_measured)}
    assert set(MEASURES) <= {full.partition("@")[0] for full in named}
    reasons = {missing.name: missing.reason for missing in document.not_measured}
    assert not set(reasons) & set(document.scores)
    assert reasons["extraction@calibrated"] == "it asks a model, and images alone were given"
    assert "--weights clip=PATH" in reasons["every measure @clip"]


def test_the_nearest_are_saved_beside_the_images_they_copy(audits, settings, training):
    document, out = audits("planted", settings)
    assert len(document.nearest) == 12
    gaps = [triple.heldout.distance - triple.training.distance for triple in document.nearest]
    assert min(gaps) > 0
    for triple in document.nearest:
        with Image.open(out / triple.training.file) as picture:
            np.testing.assert_array_equal(np.asarray(picture), training[int(triple.training.key[:3])])


def test_histograms_sum_to_one_and_lie_where_images_do(audits, settings):
    document, _ = audits("planted", settings)
    (histogram,) = document.histograms
    for shares in (histogram.to_training, histogram.to_heldout, histogram.honest):
        assert sum(shares) == pytest.approx(1)
    middle = {name: ranks["50"] for name, ranks in histogram.percentiles.items()}
    assert middle["to_training"] < middle["honest"]
    assert middle["to_training"] < middle["to_heldout"]


def test_the_document_on_disk_is_the_one_returned_and_makes_a_page(audits, settings):
    document, out = audits("planted", settings)
    content = json.loads((out / "audit.json").read_text())
    assert content["schema"] == "memcontrol/audit@1"
    assert AuditDocument.model_validate(content) == document
    assert "copy_gap" in audit_page(document, out)


def test_the_same_seed_gives_the_same_document_elsewhere(audits, settings, tmp_path):
    document, _ = audits("honest", settings)
    again = audit(settings("honest"), tmp_path / "again")
    assert without_time(again) == without_time(document)


def test_the_gap_rises_with_the_share_of_copies(folders, settings, tmp_path, honest, planted):
    gaps = []
    for count in (0, 16, 48):
        folder = tmp_path / f"mix-{count}"
        folder.mkdir()
        for i, image in enumerate(np.concatenate([planted[:count], honest[count:]])):
            Image.fromarray(image).save(folder / f"{i:03}.png")
        gaps.append(audit(settings(folder), tmp_path / f"out-{count}").scores[GAP].score["value"])
    assert gaps == sorted(gaps)
    assert gaps[2] > gaps[0] + 0.02


def test_duplicates_and_exact_copies_are_told(folders, settings, tmp_path, training):
    train, images = tmp_path / "train", tmp_path / "images"
    shutil.copytree(folders / "train", train)
    shutil.copytree(folders / "honest", images)
    shutil.copy(train / "003.png", train / "twin.png")
    Image.fromarray(training[5]).save(images / "exact.png")
    told = []
    config = settings(images, train={"source": str(train), "captions": "none"})
    document = audit(config, tmp_path / "out", on_note=told.append)
    assert document.duplicates.training == [["003.png", "twin.png"]] or document.duplicates.training == [
        ["twin.png", "003.png"]
    ]
    assert document.duplicates.heldout == []
    assert any("1 group of identical training images" in note for note in told)
    assert any("1 image is a training image pixel for pixel: exact.png = 005.png" in note for note in told)


def test_images_of_one_colour_break_nothing(settings, tmp_path):
    folder = tmp_path / "grey"
    folder.mkdir()
    for i in range(12):
        Image.new("RGB", (32, 32), (90, 90, 90)).save(folder / f"{i}.png")
    document = audit(settings(folder), tmp_path / "out")
    assert flagged(document) == set()
    assert document.scores[GAP].score["value"] == pytest.approx(0, abs=1e-6)


def test_too_few_images_leave_fidelity_out_with_the_reason(folders, settings, tmp_path):
    folder = tmp_path / "few"
    folder.mkdir()
    for i in range(4):
        shutil.copy(folders / "honest" / f"00{i}.png", folder)
    document = audit(settings(folder), tmp_path / "out")
    reasons = {missing.name: missing.reason for missing in document.not_measured}
    assert reasons["fd@pixels"] == "fd@pixels on 8 components needs 9 generated images or more, got 4"
    assert GAP in document.scores


def test_captions_are_ranked_where_the_folder_has_them(folders, settings, tmp_path, planted, honest):
    folder = tmp_path / "captioned"
    shutil.copytree(folders / "honest", folder)
    for i in range(10):
        Image.fromarray(planted[i]).save(folder / f"{i:03}.png")
    rows = "".join(f"{i:03}.png,{'copied' if i < 10 else 'honest'}\n" for i in range(48))
    (folder / "metadata.csv").write_text(f"file_name,text\n{rows}")
    train = {"source": str(folders / "train")}
    for name in ("train", "holdout"):
        assert not (folders / name / "metadata.csv").exists()
    document = audit(settings(folder, train=train | {"captions": "none"}), tmp_path / "none")
    assert document.captions == []
    labelled = {name: tmp_path / name for name in ("train", "holdout")}
    for name, path in labelled.items():
        shutil.copytree(folders / name, path)
        names = sorted(file.name for file in path.iterdir())
        (path / "metadata.csv").write_text("file_name,text\n" + "".join(f"{file},copied\n" for file in names))
    config = settings(folder, train={"source": str(labelled["train"])}, holdout=str(labelled["holdout"]))
    document = audit(config, tmp_path / "out")
    assert [(fact.caption, fact.generated, fact.training) for fact in document.captions] == [
        ("copied", 10, 12),
        ("honest", 38, 0),
    ]
    assert document.captions[0].copy_gap > document.captions[1].copy_gap


def test_a_second_run_reads_what_is_there_and_makes_what_is_missing(audits, settings, tmp_path):
    first, folder = audits("planted", settings)
    out, told = tmp_path / "out", []
    shutil.copytree(folder, out)
    assert audit(settings("planted"), out, on_note=told.append) == first
    assert any("finished already" in note for note in told)
    (out / first.nearest[0].generated.file).unlink()
    assert without_time(audit(settings("planted"), out)) == without_time(first)
    assert (out / first.nearest[0].generated.file).is_file()


def test_a_folder_of_another_audit_is_refused(audits, settings):
    first, out = audits("planted", settings)
    with pytest.raises(RunError, match="seed was 0, now 1"):
        audit(settings("planted", seed=1), out)
    assert AuditDocument.model_validate_json((out / "audit.json").read_bytes()) == first


def test_a_folder_of_something_else_is_refused(settings, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="is not empty and holds no audit"):
        audit(settings("honest"), tmp_path)
    with pytest.raises(RunError, match="is a file"):
        audit(settings("no-such-images"), tmp_path / "notes.txt")


def test_an_interrupted_audit_leaves_no_document(settings, tmp_path):
    def interrupt(phase, done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        audit(settings("honest"), tmp_path / "out", on_step=interrupt)
    assert not (tmp_path / "out" / "audit.json").exists()
    (tmp_path / "out" / "config.yaml").unlink()  # as where it was killed before that
    document = audit(settings("honest"), tmp_path / "out")
    assert document.scores
    assert read_yaml(tmp_path / "out" / "config.yaml") == settings("honest").model_dump(mode="json")


def test_images_are_brought_to_one_size(folders, settings, tmp_path):
    document = audit(settings("honest", resolution=16), tmp_path / "out")
    assert document.subject["resolution"] == 16
    with Image.open(tmp_path / "out" / document.nearest[0].generated.file) as picture:
        assert picture.size == (16, 16)


def test_a_corrupt_image_is_named_and_may_be_skipped(folders, settings, tmp_path):
    folder = tmp_path / "images"
    shutil.copytree(folders / "honest", folder)
    (folder / "007.png").write_text("not an image")
    with pytest.raises(DataError, match=r"007\.png does not decode"):
        audit(settings(folder), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    train = {"source": str(folders / "train"), "captions": "none", "bad_images": "skip"}
    document = audit(settings(folder, train=train), tmp_path / "out")
    assert document.subject["images"] == 47
    assert any("skipped 1 image" in note for note in document.notes)


def test_the_document_is_what_its_schema_says(audits, settings):
    _, out = audits("honest", settings)
    assert schema_problems("audit", out / "audit.json") == []
