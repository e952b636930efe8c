"""The picture shows the front, the trajectories and the untuned model, and squashes none of them."""

import json

import numpy as np
import pytest
from finished_run import AMD, FD, GAP, front_content, member, point, trial_row

from memcontrol.report import read_trials, write_report
from memcontrol.report.plots import FRONT, front_picture


@pytest.fixture
def draw(tmp_path, figures):
    """Draws, and returns the figure that was written."""

    def drawn(front, trials):
        front_picture(front, [{key: str(value) for key, value in row.items()} for row in trials], tmp_path / "p.png")
        return figures[-1]

    return drawn


MEMBERS = [member(3, 11.0, 0.02), member(1, 14.0, 0.01), member(7, 30.0, 0.001)]
ROWS = [trial_row(3, 11.0, 0.02), trial_row(1, 14.0, 0.01), trial_row(7, 30.0, 0.001), trial_row(5, 0, 0, state="fail")]


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_everything_is_drawn(draw):
    (axes,) = draw(front_content(MEMBERS), ROWS).axes
    assert sorted(texts(axes)) == sorted(["3", "1", "7", "150", "300", "150", "300", "untuned model outside: 140, 0"])
    by_label = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert by_label["full fine-tuning: steps, at rate 0.0003"] == [[20.0, 0.06], [12.0, 0.09]]
    assert by_label["full fine-tuning: steps, at rate 0.001"] == [[16.0, 0.05], [10.0, 0.15]]
    front = next(line for line in axes.lines if line.get_color() == FRONT)
    assert front.get_xydata().tolist() == [[11.0, 0.02], [14.0, 0.01], [30.0, 0.001]]
    assert front.get_linestyle() == "-"
    assert axes.get_xlabel() == f"{FD} (lower is better)"
    assert axes.get_ylabel() == f"{GAP} (lower is better)"
    (band,) = [patch for patch in axes.patches if patch.get_label().startswith("null band")]
    assert (band.get_y(), band.get_height()) == pytest.approx((-0.01, 0.02))


def test_intervals_are_the_error_bars(draw):
    (axes,) = draw(front_content(MEMBERS[:1]), ROWS).axes
    (bars,) = [container for container in axes.containers if container.get_label().startswith("front")]
    horizontal, vertical = (collection.get_segments()[0] for collection in bars.lines[2])
    assert horizontal[:, 0] == pytest.approx([10.5, 11.5])
    assert vertical[:, 1] == pytest.approx([0.01, 0.03])


def test_the_untuned_model_in_sight_is_a_point(draw):
    front = front_content(MEMBERS)
    front["references"]["freeze"] = [point(25.0, 0.03, 0, None)]
    (axes,) = draw(front, ROWS).axes
    (star,) = [line for line in axes.lines if line.get_label() == "untuned model"]
    assert star.get_xydata().tolist() == [[25.0, 0.03]]
    assert not any("untuned" in text for text in texts(axes))


@pytest.mark.parametrize(("worst", "scale"), [(20.0, "linear"), (200.0, "log")])
def test_a_wide_range_is_drawn_in_logarithms(draw, worst, scale):
    front = front_content(MEMBERS)
    front["references"]["full-0.003"] = [point(worst, 0.1, 75, 3e-3)]
    (axes,) = draw(front, ROWS).axes
    assert axes.get_xscale() == scale
    assert axes.get_xlim()[1] > worst


def test_a_stray_trial_does_not_squash_the_rest(draw):
    rows = ROWS[:3] * 20 + [trial_row(60, 5000.0, 3.0)]
    (axes,) = draw(front_content(MEMBERS), rows).axes
    assert axes.get_xlim()[1] < 100
    assert axes.get_ylim()[1] < 0.5
    assert axes.get_title(loc="right") == "1 trial outside the picture"


def test_labels_do_not_cover_each_other(draw):
    crowd = [member(i, 11.0 + 0.05 * i, 0.02 - 0.0005 * i) for i in range(8)]
    figure = draw(front_content(crowd), ROWS)
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert not [(i, j) for i in range(len(boxes)) for j in range(i) if boxes[i].overlaps(boxes[j])]


def test_three_objectives_get_two_panels_and_one_its_own(draw):
    front = front_content(MEMBERS)
    front["objectives"].append({"name": AMD, "better": "higher"})
    panels = draw(front, ROWS).axes
    assert [axes.get_ylabel() for axes in panels] == [f"{GAP} (lower is better)", f"{AMD} (higher is better)"]
    assert all(line.get_linestyle() == "None" for axes in panels for line in axes.lines if line.get_color() == FRONT)
    front["objectives"], front["front"] = front["objectives"][:1], MEMBERS[:1]
    (axes,) = draw(front, ROWS).axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("trial", f"{FD} (lower is better)")
    full = next(line for line in axes.lines if line.get_label() == "full fine-tuning's best")
    assert set(full.get_ydata()) == {10.0}


@pytest.mark.parametrize("missing", ["references", "front", "trials"])
def test_draws_what_there_is(draw, missing):
    front = front_content(MEMBERS)
    if missing != "trials":
        front[missing] = type(front[missing])()
    figure = draw(front, [] if missing == "trials" else ROWS)
    assert figure.axes[0].lines


def test_write_report_writes_both_pictures(finished, picture_of):
    write_report(finished)
    picture = picture_of(finished.picture)
    assert picture.shape[1] == 1040
    blue = np.array([int(FRONT[i : i + 2], 16) for i in (1, 3, 5)])
    assert (np.abs(picture - blue).sum(axis=2) < 12).sum() > 200
    assert (finished.path / "samples" / "front.png").is_file()


def test_write_report_of_a_run_without_results(finished):
    content = json.loads(finished.front.read_text()) | {"front": [], "references": {}}
    finished.write_json(finished.front, content)
    write_report(finished)
    assert not finished.picture.exists()
    assert not (finished.path / "samples" / "front.png").exists()


def test_read_trials(finished):
    rows = read_trials(finished)
    assert [row["number"] for row in rows] == ["3", "1", "7", "4", "5"]
    assert rows[2]["mask"] == "00001"
    finished.trials.unlink()
    assert read_trials(finished) == []
