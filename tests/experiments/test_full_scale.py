"""The configurations for a GPU: what is missing here is listed, and small stand-ins of data and model could start."""

import csv
import gzip
import importlib.util
import json
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from memcontrol.cli import app
from memcontrol.data.table import read_rows
from memcontrol.mask import Mask
from memcontrol.pipeline.outline import load_outline

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
MIMIC, IMAGENETTE = EXPERIMENTS / "mimic_sd15", EXPERIMENTS / "imagenette_transfer"
MEDICAL = importlib.util.find_spec("torchxrayvision") is not None
REPORTS = (
    " FINAL REPORT\n EXAMINATION:  CHEST (PA AND LAT)\n\n INDICATION:  Cough.\n\n FINDINGS: \n \n Lungs are clear.\n"
    " No effusion.\n \n IMPRESSION: \n \n No acute process\n in patient {}.\n",
    " FINAL REPORT\n FINDINGS:  Mild edema in {}.\n",
    " FINAL REPORT\n FINDINGS AND IMPRESSION:  Effusion in {}.\n",
)
EXPECTED = ("No acute process in patient {}.", "Mild edema in {}.", "Effusion in {}.")


def loaded(path):
    """A script of an experiment as a module."""
    spec = importlib.util.spec_from_file_location(f"experiment_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def gzipped(path, columns, lines):
    with gzip.open(path, "wt", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(lines)


def picture(path, number):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (40, 32), dtype=np.uint8)
    Image.fromarray(pixels).save(path, format="JPEG")


def physionet(folder, subjects=60):
    """PhysioNet's files in small: two frontal images and a lateral one of each subject; reports unpacked and zipped."""
    images, reports = folder / "mimic-cxr-jpg", folder / "mimic-cxr-reports"
    split, metadata = [], []
    for i in range(subjects):
        subject, study = f"100000{i:02}", f"504142{i:02}"
        place = f"files/p10/p{subject}/s{study}"
        for view in ("PA", "AP", "LATERAL"):
            name = f"{i:08x}-{view.lower()}"
            picture(images / place / f"{name}.jpg", 3 * i + len(view))
            split.append([name, study, subject, ("train", "validate", "test")[i % 3]])
            metadata.append([name, subject, study, "CHEST (PA AND LAT)", view, 3056, 2544])
        (reports / place).parent.mkdir(parents=True, exist_ok=True)
        (reports / f"{place}.txt").write_text(REPORTS[i % 3].format(subject))
    gzipped(images / "mimic-cxr-2.0.0-split.csv.gz", ["dicom_id", "study_id", "subject_id", "split"], split)
    columns = [
        "dicom_id",
        "subject_id",
        "study_id",
        "PerformedProcedureStepDescription",
        "ViewPosition",
        "Rows",
        "Columns",
    ]
    gzipped(images / "mimic-cxr-2.0.0-metadata.csv.gz", columns, metadata)
    with zipfile.ZipFile(folder / "mimic-cxr-reports.zip", "w") as archive:
        for path in sorted(reports.rglob("*.txt")):
            archive.write(path, path.relative_to(reports))
    return images, reports


@pytest.fixture(scope="module")
def mimic(tmp_path_factory):
    folder = tmp_path_factory.mktemp("physionet")
    return (*physionet(folder), folder / "mimic-cxr-reports.zip")


@pytest.fixture(scope="module")
def prepare():
    return loaded(MIMIC / "prepare.py")


def run(*args):
    return CliRunner().invoke(app, [str(arg) for arg in args], env={"COLUMNS": "400"})


def listed(result):
    """The problems that a dry run printed."""
    return [line.strip().removeprefix("- ") for line in result.stdout.splitlines() if line.startswith("- ")]


def absent(encoder, package):
    """What is said of an encoder of the medical extra."""
    weights = f"weights of encoder {encoder}: there is no weights/"
    return weights if MEDICAL else f"package {package} is not installed"


def assert_only(lines, *expected):
    assert len(lines) == len(expected), lines
    for part in expected:
        assert any(part in line for line in lines), (part, lines)


@pytest.mark.parametrize("zipped", [False, True])
def test_physionet_files_become_a_table_of_frontal_images(zipped, mimic, prepare, capsys):
    images, reports, archive = mimic
    prepare.main(["--images", str(images), "--reports", str(archive if zipped else reports)])
    rows = read_rows(images / "frontal.csv").rows
    assert len(rows) == 120
    for row in rows:
        subject = row["subject_id"]
        assert row["text"] == EXPECTED[int(subject[-2:]) % 3].format(subject)
        assert row["path"].startswith(f"files/p10/p{subject}/s504142{subject[-2:]}/")
        assert row["path"].endswith(("-pa.jpg", "-ap.jpg"))
    splits = {}
    for row in rows:
        splits.setdefault(row["subject_id"], set()).add(row["split"])
    assert all(len(names) == 1 for names in splits.values()), "a subject in two splits"
    assert set.union(*splits.values()) == {"train", "validate", "test"}
    told = capsys.readouterr().out
    assert "left out 60: not frontal (PA or AP)" in told
    assert "120 images of 60 subjects" in told


def test_the_official_split_is_kept_where_it_is_asked_for(mimic, prepare):
    images, reports, _ = mimic
    prepare.main(["--images", str(images), "--reports", str(reports), "--split", "official"])
    for row in read_rows(images / "frontal.csv").rows:
        assert row["split"] == ("train", "validate", "test")[int(row["subject_id"][-2:]) % 3]


def test_what_is_missing_is_counted_and_said(tmp_path, prepare, capsys):
    images, reports = physionet(tmp_path, subjects=4)
    texts = sorted(reports.rglob("*.txt"))
    texts[0].unlink()
    texts[1].write_text(" FINAL REPORT\n INDICATION:  Cough.\n")
    texts[3].write_bytes(b" FINAL REPORT\n IMPRESSION:  Not \xff UTF-8.\n")
    next(images.rglob("00000002-pa.jpg")).unlink()
    prepare.main(["--images", str(images), "--reports", str(reports)])
    told = capsys.readouterr().out
    for line in ("2: no report", "2: neither impression nor findings", "1: no image file", "4: not frontal (PA or AP)"):
        assert f"left out {line}" in told
    assert {row["text"] for row in read_rows(images / "frontal.csv").rows} >= {"Not \ufffd UTF-8."}
    (images / "mimic-cxr-2.0.0-metadata.csv.gz").unlink()
    with pytest.raises(SystemExit, match="download it from PhysioNet"):
        prepare.main(["--images", str(images), "--reports", str(reports)])


def test_a_table_that_cannot_be_written_leaves_the_old_one(tmp_path, prepare, monkeypatch):
    images, reports = physionet(tmp_path, subjects=2)
    prepare.main(["--images", str(images), "--reports", str(reports)])
    before = (images / "frontal.csv").read_bytes()

    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(csv.DictWriter, "writerows", full)
    with pytest.raises(OSError, match="No space left"):
        prepare.main(["--images", str(images), "--reports", str(reports)])
    assert (images / "frontal.csv").read_bytes() == before


def test_a_model_is_saved_for_another_size(tmp_path, capsys):
    from memcontrol.pipeline import model_folder

    resize = loaded(MIMIC / "resize_model.py")
    resize.main([model_folder("tiny"), str(tmp_path / "tiny-32"), "--pixels", "32"])
    outline = load_outline(str(tmp_path / "tiny-32"))
    assert (outline.resolution, outline.latent_shape) == (32, (8, 4, 4))
    assert "images of 32 pixels" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="expected a multiple of 8"):
        resize.main([model_folder("tiny"), str(tmp_path / "other"), "--pixels", "30"])


@pytest.mark.parametrize("space", ["paper-svdiff", "paper-difffit", "paper-attention"])
def test_the_search_on_mimic_lists_what_is_missing_here(space, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("search", "--config", MIMIC / "config.yaml", "--space", space, "--dry-run", "--tflops", "1")
    assert result.exit_code == 1, result.output
    assert_only(
        listed(result),
        "models/sd15-224 is no folder here and has not been downloaded",
        'no data source "mimic-cxr-jpg/frontal.csv", and no such file or folder',
        "weights of encoder biovil-t: there is no weights/"
        if MEDICAL
        else "package health_multimodal is not installed",
        "weights of encoder xrv-densenet121: there is no weights/"
        if MEDICAL
        else "package torchxrayvision is not installed",
    )
    assert list(tmp_path.iterdir()) == []


def small(config, folder, **changes):
    """The configuration with sections changed, in a file."""
    content = yaml.safe_load((config / "config.yaml").read_text())
    for section, values in changes.items():
        content[section] = content[section] | values if isinstance(values, dict) else values
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


SCORES = {"reported": ["kid@pixels"], "components": 4, "encoder_weights": {}}
SIZES = {"train_size": 8, "fidelity": 20, "copying": 20, "confirmation": 4}


def test_the_search_on_mimic_could_start_with_stand_ins(mimic, prepare, tmp_path, monkeypatch):
    images, reports, _ = mimic
    prepare.main(["--images", str(images), "--reports", str(reports), "--split", "official"])
    monkeypatch.chdir(images.parent)
    scoring = SCORES | {"objectives": ["fd@pixels", "noise_magnitude@unet"]}
    config = small(MIMIC, tmp_path, model="tiny", data=SIZES, scoring=scoring, sampling={"images": 8})
    result = run("search", "--config", config, "--dry-run", "--tflops", "1", "--json", "--workers", "1")
    assert result.exit_code == 0, result.output
    plan = json.loads(result.stdout)
    assert plan["settings"]["space"] == "paper-svdiff"
    assert plan["data"]["sets"] == {"training": 8, "fidelity": 20, "copying": 20, "confirmation": 4}
    assert plan["data"]["seconds to read an image"] > 0
    assert not (images.parent / "runs").exists()


def imagenette(folder):
    """Fastai's folder in small, with the experiment's names of its classes."""
    shutil.copytree(IMAGENETTE, folder, ignore=lambda *_: ["config.yaml", "README.md"])
    classes = [row["folder"] for row in read_rows(folder / "class_names.csv").rows]
    for number, (split, name, i) in enumerate(
        (split, name, i) for split in ("train", "val") for name in classes for i in range(6)
    ):
        picture(folder / split / name / f"{name}_{i}.JPEG", number)
    return folder


def test_the_transfer_to_imagenette_lists_what_is_missing_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("transfer", "--config", IMAGENETTE / "config.yaml", "--dry-run", "--tflops", "1")
    assert result.exit_code == 1, result.output
    assert_only(
        listed(result),
        "models/sd15-224 is no folder here and has not been downloaded",
        'no data source "imagenette2-320", and no such file or folder',
        "no mask file",
        absent("inception", "torch_fidelity"),
        "weights of encoder clip: openai/clip-vit-base-patch32 has not been downloaded",
        "weights of encoder dinov2: facebook/dinov2-base has not been downloaded",
    )


def test_the_transfer_to_imagenette_could_start_with_stand_ins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    imagenette(tmp_path / "imagenette2-320")
    mask = EXPERIMENTS / "capacity_control_tables" / "masks" / "knee.json"
    scoring = SCORES | {"objectives": ["fd@pixels", "noise_magnitude@unet"]}
    changes = {"model": "tiny", "masks": [str(mask)], "data": SIZES, "scoring": scoring, "sampling": {"images": 8}}
    result = run("transfer", "--config", small(IMAGENETTE, tmp_path, **changes), "--dry-run", "--tflops", "1", "--json")
    assert result.exit_code == 0, result.output
    plan = json.loads(result.stdout)
    assert plan["data"]["training captions"] <= 8
    trainings = {one["what"]: one["trainings"] for one in plan["work"]}
    assert trainings["random masks of their size"] == 3 * 19
    assert trainings["masks"] == 3
    assert not (tmp_path / "runs").exists()


def test_the_names_are_those_of_the_ten_classes():
    rows = {row["folder"]: row["name"] for row in read_rows(IMAGENETTE / "class_names.csv").rows}
    assert len(rows) == 10
    assert rows["n01440764"] == "tench"
    assert rows["n03888257"] == "parachute"


def test_a_fine_tuning_and_a_comparison_can_be_planned(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mask = EXPERIMENTS / "capacity_control_tables" / "masks" / "knee.json"
    options = ["--dry-run", "--tflops", "1", "--json"]
    result = run("finetune", "--mask", mask, "--steps", "200", "--out", "tuned", "--monitor-every", "100", *options)
    assert result.exit_code == 0, result.output
    plan = json.loads(result.stdout)
    training = {one["what"]: one for one in plan["work"]}["fine-tuning"]
    assert (training["trainings"], training["steps"], training["images"]) == (1, 200, 3 * 64)
    output = next(need for need in plan["needs"] if need["where"] == "output")
    assert output["parts"]["two checkpoints"] == 2 * 4 * 4 * Mask.from_pretrained(mask).trainable.numel
    result = run("finetune", "--mask", mask, "--data", "nowhere", "--out", "tuned", *options)
    assert result.exit_code == 1
    assert 'no data source "nowhere"' in json.loads(result.stdout)["problems"][0]
    result = run("compare", "--methods", "freeze,full", "--seeds", "0,1", *options)
    assert result.exit_code == 0, result.output
    rows = {one["what"]: one["trainings"] for one in json.loads(result.stdout)["work"]}
    assert rows["full"] == 2
    assert list(tmp_path.iterdir()) == []
