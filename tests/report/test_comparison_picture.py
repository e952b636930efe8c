"""The picture of a comparison has every row by name, the untuned model and full fine-tuning marked, and intervals."""

import io

import pytest
from rich.console import Console

from memcontrol.report.comparison_picture import comparison_picture, drawn_scores
from memcontrol.report.comparison_table import comparison_markdown, comparison_tables, counts_text, notes_of

FD, GAP, AMD = "fd@efficientnet-lite0", "copy_gap@pixels", "amd@efficientnet-lite0"
SEEDS = [5, 6, 7, 8]


def summary(mean, half):
    return {"mean": mean, "low": mean - half, "high": mean + half, "n": 4}


def row(name, fd, gap, *, mitigation="none", is_mask=False, half=(4.0, 0.002), minus=None, **more):
    scores = {FD: summary(fd, half[0]), GAP: summary(gap, half[1]), AMD: summary(0.5, 0.1)} if fd else {}
    return {
        "name": name,
        "method": name.split(" + ")[0],
        "is_mask": is_mask,
        "mitigation": mitigation,
        "learning_rate": None if name == "freeze" else 0.01,
        "numel": 10,
        "percent": 12.5,
        "seeds": SEEDS if fd else [],
        "failed": [],
        "found_on": [],
        "scores": scores,
        "against_full": {} if minus is None else {FD: summary(*minus), GAP: summary(-0.001, 0.0005)},
    } | more


def document(*rows, columns=(FD, GAP, AMD)):
    better = {FD: "lower", GAP: "lower", AMD: "higher"}
    return {
        "data": {"name": "brain", "n": 32, "drawn_anew": True},
        "model": "tiny",
        "steps": 300,
        "images": 256,
        "seeds": SEEDS,
        "scores": [{"name": name, "better": better[name]} for name in better],
        "columns": list(columns),
        "reference": "full",
        "cells": list(rows),
    }


ROWS = (
    row("freeze", 440.0, 0.02),
    row("full", 124.0, 0.038),
    row("full + rwa", 150.0, 0.03, mitigation="rwa", minus=(26.0, 30.0)),
    row("svdiff", 270.0, 0.008, minus=(146.0, 8.0)),
    row("knee", 160.0, 0.022, is_mask=True, minus=(36.0, 9.0)),
)


def test_what_was_measured_on_what_is_said_and_a_users_own_score_is_on_no_encoder():
    text = counts_text(document(*ROWS, columns=(FD, "my.module:score")))
    assert text.endswith("; fd on efficientnet-lite0, my.module:score")


@pytest.fixture
def draw(tmp_path, figures):
    """Draws, and returns the figure that was written."""

    def drawn(content):
        assert comparison_picture(content, tmp_path / "p.png")
        assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
        return figures[-1]

    return drawn


def test_every_row_is_a_point_with_its_name_and_its_intervals(draw):
    figure = draw(document(*ROWS))
    (axes,) = figure.axes
    assert sorted(text.get_text() for text in axes.texts) == sorted(r["name"] for r in ROWS)
    points = [container.lines[0].get_xydata()[0].tolist() for container in axes.containers]
    assert points == [[r["scores"][FD]["mean"], r["scores"][GAP]["mean"]] for r in ROWS]
    across, up = (bars.get_segments()[0] for bars in axes.containers[1].lines[2])
    assert across[:, 0] == pytest.approx([120.0, 128.0])
    assert up[:, 1] == pytest.approx([0.036, 0.040])
    assert (axes.get_xlabel(), axes.get_ylabel()) == (f"{FD} (lower is better)", f"{GAP} (lower is better)")
    assert "n = 4 seeds (5 to 8)" in axes.get_title(loc="left")
    assert "fd on efficientnet-lite0" in axes.get_title(loc="left").replace("\n", " ")


def test_the_untuned_model_full_fine_tuning_masks_and_mitigations_are_marked(draw):
    figure = draw(document(*ROWS))
    markers = [container.lines[0].get_marker() for container in figure.axes[0].containers]
    assert markers == ["*", "D", "o", "o", "^"]
    filled = [container.lines[0].get_markerfacecolor() != "white" for container in figure.axes[0].containers]
    assert filled == [True, True, False, True, True]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["untuned model", "plain full fine-tuning", "mask", "hollow: with mitigations"]
    weights = {text.get_text(): text.get_fontweight() for text in figure.axes[0].texts}
    assert [name for name, weight in weights.items() if weight == "bold"] == ["freeze", "full"]


def test_labels_do_not_cover_each_other_where_there_is_room(draw):
    figure = draw(document(*ROWS))
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_rows_without_scores_are_left_out_and_one_score_gives_no_picture(draw, tmp_path):
    figure = draw(document(*ROWS, row("norm", None, None)))
    assert "norm" not in [text.get_text() for text in figure.axes[0].texts]
    assert not comparison_picture(document(*ROWS, columns=[FD]), tmp_path / "none.png")
    assert not comparison_picture(document(row("norm", None, None)), tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
    assert drawn_scores(document(columns=[AMD, GAP, FD])) == (FD, AMD)


def test_differences_whose_interval_excludes_zero_have_an_asterisk():
    text = comparison_markdown(document(*ROWS))
    assert "| full + rwa | 4 | +26.0 ± 30.0 | -0.00100 ± 0.000500 * | – |" in text
    assert "| svdiff | 4 | +146 ± 8.00 * | -0.00100 ± 0.000500 * | – |" in text
    assert "| freeze | 4 | – | 12.5 | 440 ± 4.00 | 0.0200 ± 0.00200 | 0.500 ± 0.100 |" in text
    assert "fd ↓ | copy_gap ↓ | amd ↑" in text


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_terminal_shows_names_and_numbers_whole(width):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(comparison_tables(document(*ROWS), width=width))
    text = console.export_text()
    for shown in ("full + rwa", "svdiff", "± 0.00200", "+146", "± 8.00 *"):
        assert shown in text
    assert "n = 4 seeds (5 to 8)" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text


def test_an_ascii_terminal_gets_ascii():
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(comparison_tables(document(*ROWS[1:]), ascii_only=True))
    table = [line for line in console.export_text().splitlines() if "|" in line]
    assert all(line.isascii() for line in table)


def test_notes_say_what_failed_what_is_left_and_where_a_mask_was_found():
    rows = (
        row("norm", None, None, failed=[{"seed": 5, "error": "DivergedError: loss is nan\nmore"}]),
        row("knee", 160.0, 0.02, is_mask=True, found_on=[5]),
    )
    assert notes_of(document(*rows)) == [
        "failed: norm, seed 5: DivergedError: loss is nan",
        "not finished: norm, 3 of 4 seeds",
        "mask knee was found on the images of seed 5: its scores there are better than on others",
    ]
