"""MIMIC-CXR-style tables."""

import builtins
import csv
import zipfile

import pytest

from memcontrol.config import DataConfig
from memcontrol.data import load_dataset
from memcontrol.data.table import read_rows
from memcontrol.errors import DataError, MissingPackageError


def load(path, **settings):
    return load_dataset(DataConfig(source=str(path), **({"train_size": 6} | settings)), resolution=8, seed=0)


def message(path, **settings):
    with pytest.raises(DataError) as caught:
        load(path, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def reports(photos, tmp_path):
    """A table beside the photos, two images for each of 20 patients."""

    def make(header=("path", "text", "subject_id"), name="reports.csv"):
        photos()
        lines = [(f"photos/{i:03}.png", f"report {i},\nsecond line", 10_000_000 + i // 2) for i in range(40)]
        with (tmp_path / name).open("w", newline="", encoding="utf-8-sig") as file:
            csv.writer(file).writerows([header, *lines])
        return tmp_path / name

    return make


@pytest.mark.parametrize("column", ["path", "file_name", "image"])
def test_paths_captions_and_subjects_are_read(reports, column):
    dataset = load(reports((column, "text", "subject_id")))
    assert dataset.name == "reports"
    assert dataset.notes[0] == "reports: 40 images, 40 distinct captions, 20 subjects"
    for key, caption, subject in zip(
        dataset.training.keys, dataset.training.captions, dataset.training.subjects, strict=True
    ):
        number = int(key.removeprefix("photos/")[:3])
        assert caption == f"report {number},\nsecond line"
        assert subject == str(10_000_000 + number // 2)
    assert dataset.training.pixels().shape == (6, 8, 8, 3)


def test_other_column_names(reports):
    path = reports(("file", "findings", "patient"))
    dataset = load(path, path_column="file", caption_column="findings", subject_column="patient")
    assert dataset.notes[0].endswith("20 subjects")
    assert message(path) == (
        f'no path column "path" or "file_name" or "image" in {path} (columns: file, findings, patient): '
        "name one with --path-column"
    )
    assert message(path, path_column="file") == (
        f'no caption column "text" in {path} (columns: file, findings, patient): name one with --caption-column, or '
        "use --captions none"
    )


def test_xlsx(photos, tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    photos()
    book = openpyxl.Workbook()
    book.active.append(["path", "text", "subject_id"])
    for i in range(40):
        book.active.append([f"photos/{i:03}.png", f"report {i}", float(10_000_000 + i // 2)])
    book.save(tmp_path / "reports.xlsx")
    rows = read_rows(tmp_path / "reports.xlsx").rows
    assert rows[3] == {"path": "photos/003.png", "text": "report 3", "subject_id": "10000001"}
    assert load(tmp_path / "reports.xlsx").notes[0] == "reports: 40 images, 40 distinct captions, 20 subjects"


def test_a_broken_workbook_is_refused(tmp_path):
    pytest.importorskip("openpyxl")
    (tmp_path / "reports.xlsx").write_bytes(b"PK not really")
    assert message(tmp_path / "reports.xlsx").startswith(f"{tmp_path / 'reports.xlsx'} is not an XLSX workbook (")


def test_a_workbook_without_openpyxl_says_how_to_install_it(tmp_path, monkeypatch):
    (tmp_path / "reports.xlsx").write_bytes(b"")
    real = builtins.__import__

    def without(name, *rest, **named):
        if name == "openpyxl":
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingPackageError, match=r"needs openpyxl: run pip install .*\[tables\]"):
        load(tmp_path / "reports.xlsx")


def test_dicom_is_refused(tmp_path):
    (tmp_path / "scan.dcm").write_bytes(b"DICM")
    (tmp_path / "reports.csv").write_text("path,text\nscan.dcm,a\n")
    assert message(tmp_path / "reports.csv") == (
        f'row 1 of {tmp_path}/reports.csv names "scan.dcm": DICOM is not read, convert the images to PNG or JPEG first'
    )


def test_short_rows_and_blank_lines(tmp_path):
    (tmp_path / "t.csv").write_text("path,text\na.png\n\n b.png , hello \n")
    assert read_rows(tmp_path / "t.csv").rows == [{"path": "a.png", "text": ""}, {"path": "b.png", "text": "hello"}]


def test_a_caption_that_an_unquoted_comma_would_cut_is_refused(tmp_path):
    (tmp_path / "t.csv").write_text("path,text\na.png,clear,\nb.png,Lungs clear, no effusion\n")
    assert message(tmp_path / "t.csv") == (
        f"row 2 of {tmp_path}/t.csv has more cells than the header has columns (path, text): put text that holds a "
        "comma in quotes"
    )


def test_two_columns_of_one_name_are_refused(tmp_path):
    (tmp_path / "t.csv").write_text("path,text,text\na.png,x,y\n")
    assert message(tmp_path / "t.csv") == f'{tmp_path}/t.csv has two columns "text": rename one'


def test_captions_taken_for_paths_are_refused_however_long(tmp_path):
    (tmp_path / "t.csv").write_text(f"path,text\na.png,{'long ' * 100}\n")
    assert "but there is no such file in" in message(tmp_path / "t.csv", path_column="text", captions="none")


def test_a_table_that_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "t.csv").mkdir()
    with pytest.raises(DataError, match=r"cannot read .*t\.csv \(Is a directory\): name a table"):
        read_rows(tmp_path / "t.csv")


def test_a_table_that_is_not_text_is_refused(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"path,text\n\xff\xfe\x00,a\n")
    assert message(tmp_path / "t.csv").startswith(f"{tmp_path}/t.csv is not a table of UTF-8 text (")


def test_an_empty_table_is_refused(tmp_path):
    (tmp_path / "t.csv").write_text("")
    assert message(tmp_path / "t.csv") == f"{tmp_path}/t.csv has no rows: list at least one image under its header"


@pytest.mark.parametrize("separator", [";", "\t"])
def test_columns_may_be_separated_as_spreadsheets_of_some_countries_do(tmp_path, separator):
    path = tmp_path / "t.csv"
    path.write_text(f'path{separator}text\na.png{separator}"one{separator} two, three"\n', encoding="utf-8-sig")
    rows = read_rows(path)
    assert rows.columns == ("path", "text")
    assert rows.rows == [{"path": "a.png", "text": f"one{separator} two, three"}]


@pytest.mark.parametrize("part", ["xl/workbook.xml", "xl/worksheets/sheet1.xml"])
def test_a_workbook_with_a_broken_part_is_refused(tmp_path, part):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.append(["path", "text"])
    book.save(tmp_path / "whole.xlsx")
    with zipfile.ZipFile(tmp_path / "whole.xlsx") as whole, zipfile.ZipFile(tmp_path / "t.xlsx", "w") as broken:
        for name in whole.namelist():
            broken.writestr(name, whole.read(name)[: -20 if name == part else None])
    assert message(tmp_path / "t.xlsx").startswith(f"{tmp_path}/t.xlsx is not an XLSX workbook (")


def test_a_workbook_without_a_sheet_of_cells_is_refused(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.remove(book.active)
    book.create_chartsheet("chart")
    book.save(tmp_path / "t.xlsx")
    assert message(tmp_path / "t.xlsx").startswith(f"{tmp_path}/t.xlsx is not an XLSX workbook (")
