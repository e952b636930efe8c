"""A folder's page is that of the command which wrote it, from the command line too."""

import json
from pathlib import Path
from typing import Any

import pytest
from audited import audit_document
from html_page import Page
from searched import SCRIPT, searched
from typer.testing import CliRunner

from memcontrol.cli import app
from memcontrol.errors import RunError
from memcontrol.report.pages import page_of
from memcontrol.report.table_page import role_of, row_plot

FD, GAP = "fd@efficientnet-lite0", "copy_gap@pixels"


def summary(mean: float, half: float) -> dict[str, Any]:
    return {"mean": mean, "low": mean - half, "high": mean + half, "n": 4}


def row(name: str, fd: float, gap: float, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "method": name.split(" + ")[0],
        "is_mask": False,
        "mitigation": "none",
        "learning_rate": 0.01,
        "percent": 12.5,
        "seeds": [5, 6],
        "failed": [],
        "found_on": [],
        "scores": {FD: summary(fd, 4.0), GAP: summary(gap, 0.002)},
        "against_full": {} if name == "full" else {FD: summary(fd - 124.0, 3.0), GAP: summary(gap - 0.04, 0.001)},
    } | more


ROWS = (row("freeze", 440.0, 0.02), row("full", 124.0, 0.04), row(SCRIPT, 160.0, 0.022, is_mask=True))


def document(schema: str, *rows: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "schema": f"memcontrol/{schema}@1",
        "data": {"name": "brain", "n": 32, "drawn_anew": True},
        "model": "tiny",
        "steps": 300,
        "images": 256,
        "seeds": [5, 6],
        "scores": [{"name": FD, "better": "lower"}, {"name": GAP, "better": "lower"}],
        "columns": [FD, GAP],
        "reference": "full",
        "cells": list(rows),
    } | more


def transfer() -> dict[str, Any]:
    rows = [
        row("freeze", 440.0, 0.02, role="freeze", of=None, steps=0),
        row("full", 124.0, 0.04, role="full", of=None, steps=300),
        row("knee", 160.0, 0.022, role="mask", of=None, steps=300, is_mask=True),
        row("knee-1", 170.0, 0.025, role="random", of="knee", steps=300),
    ]
    rank = {"rank": 1, "twins": 1, "p": 0.5, "difference": summary(-0.003, 0.001)}
    mask = {
        "name": "knee",
        "found": {"data": {"name": SCRIPT}},
        "rows": {"full": "full"},
        "minus": {"full": {FD: summary(36.0, 5.0), GAP: summary(-0.018, 0.002)}, "untuned": {}},
        "random": {FD: rank, GAP: rank},
        "ahead_in_all": 0,
        "equal_fidelity": {GAP: None},
    }
    return document("transfer", *rows, objectives=[FD, GAP], masks=[mask])


def written(folder: Path, name: str, content: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("kind", ["comparison", "transfer"])
def test_a_table_page_has_every_row_and_keeps_names_as_text(kind: str, tmp_path: Path) -> None:
    content = document("comparison", *ROWS) if kind == "comparison" else transfer()
    name, source = page_of(written(tmp_path / "table", f"{kind}.json", content))
    page = Page(source)
    assert name == "report.html"
    assert "160" in page.text
    assert "± 4" in page.text
    assert len(page.all("script")) == 1
    assert SCRIPT in page.text
    assert SCRIPT not in source
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert "membership attacks" in page.text
    assert f"memcontrol {'compare' if kind == 'comparison' else 'transfer'} --config" in page.text


def test_a_row_far_outside_stands_at_the_edge_and_says_so() -> None:
    content = document("comparison", *ROWS)
    plot, keys = row_plot(content)
    assert plot is not None
    marks = {mark.kind: mark for mark in plot.marks}
    assert marks["untuned"].text == "freeze (outside)"
    assert marks["untuned"].x == plot.x.end
    assert plot.x.start < marks["full full-1"].x < marks["front"].x < plot.x.end
    assert [key.text for key in keys] == ["untuned model", "full fine-tuning", "mask"]
    assert [role_of(one, content) for one in ROWS] == ["freeze", "full", "mask"]


def test_an_audit_keeps_its_own_page(tmp_path: Path) -> None:
    audited = audit_document(tmp_path)
    (tmp_path / "audit.json").write_text(audited.model_dump_json(by_alias=True))
    name, source = page_of(tmp_path)
    assert name == "audit.html"
    assert len(Page(source).all("img")) == 3 * len(audited.nearest) > 0
    without = Page(page_of(tmp_path, images=False)[1])
    assert without.all("img") == []
    assert "Images were left out of this page." in without.text


def test_an_audit_of_another_form_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"audit.json is no audit of this version \(.*\): audit again"):
        page_of(written(tmp_path, "audit.json", {"schema": "other"}))


def test_the_command_writes_the_page_and_says_what_it_holds(tmp_path: Path) -> None:
    folder = searched(tmp_path / "run")
    result = CliRunner().invoke(app, ["report", str(folder.path)])
    assert result.exit_code == 0, result.output
    assert "report.html" in result.stdout
    assert "It holds images" in result.stdout
    assert "data:image/webp" in (folder.path / "report.html").read_text()
    other = tmp_path / "other.html"
    result = CliRunner().invoke(app, ["report", str(folder.path), "--no-images", "--out", str(other)])
    assert result.exit_code == 0, result.output
    assert "It holds images" not in result.stdout
    assert "data:image" not in other.read_text()


def test_a_folder_of_no_command_is_refused_in_one_line(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "name the folder of a search, comparison, transfer or audit" in result.stderr
