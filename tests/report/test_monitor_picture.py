"""The picture of a monitored training has every score over the steps, with intervals, null bands and where it ended."""

import pytest

from memcontrol.errors import RunError
from memcontrol.monitoring import TABLE, Look, columns
from memcontrol.report.monitor_picture import monitor_picture
from memcontrol.report.plots import FRONT, NULL
from memcontrol.run import RunFolder
from memcontrol.score import Score

FD, GAP, AMD = "fd@pixels", "copy_gap@pixels", "amd@pixels"


def look(step, fd, gap, reason=None):
    scores = {
        FD: Score(fd, fd - 5.0, fd + 5.0, 64, "lower"),
        GAP: Score(gap, gap - 0.01, gap + 0.01, 64, "lower", p=0.2, null=(-0.02, 0.001, 0.03), raw=gap),
        AMD: Score(0.5, 0.4, 0.6, 64, "higher", p=0.2, null=(0.45, 0.5, 0.55), raw=0.5),
    }
    return Look(step, scores, clear=reason is None, stop=reason is not None, reason=reason)


LOOKS = (look(0, 400.0, 0.001), look(100, 90.0, 0.02), look(200, 80.0, 0.06, "copy_gap@pixels is 0.06"))


@pytest.fixture
def draw(tmp_path, figures):
    """Draws looks with these scores, and returns the figure that was written."""

    def drawn(looks, names=(FD, GAP, AMD)):
        rows = [{key: value for key, value in one.row().items() if key in columns(names)} for one in looks]
        RunFolder(tmp_path).write_table(tmp_path / TABLE, columns(names), rows)
        assert monitor_picture(tmp_path)
        assert (tmp_path / "monitor.png").read_bytes().startswith(b"\x89PNG")
        return figures[-1]

    return drawn


def line_of(axes, label):
    return next(line for line in axes.lines if line.get_label() == label)


def bands_of(axes):
    return {band.get_label(): band.get_datalim(axes.transData).extents.tolist() for band in axes.collections}


def test_every_score_is_drawn_over_the_steps_with_its_interval(draw):
    fd, gap, amd = draw(LOOKS).axes
    assert line_of(fd, "measured").get_xydata().tolist() == [[0, 400], [100, 90], [200, 80]]
    assert line_of(gap, "measured").get_xydata()[:, 1].tolist() == [0.001, 0.02, 0.06]
    assert line_of(gap, "measured").get_color() == FRONT
    assert bands_of(gap)["95 % interval"] == pytest.approx([0, -0.009, 200, 0.07])
    assert [axes.get_ylabel().replace("\n", " ") for axes in (fd, amd)] == [
        "fd@pixels (lower is better)",
        "amd@pixels (higher is better)",
    ]
    assert amd.get_xlabel() == "optimizer steps"


def test_copying_scores_have_their_null_band(draw):
    fd, gap, amd = draw(LOOKS).axes
    label = "null band (95 %): as if nothing were copied"
    assert bands_of(gap)[label] == pytest.approx([0, -0.02, 200, 0.03])
    assert bands_of(amd)[label] == pytest.approx([0, 0.45, 200, 0.55])
    assert label not in bands_of(fd)
    (middle,) = [line for line in gap.lines if line.get_color() == NULL]
    assert middle.get_ydata().tolist() == [0.001] * 3


def test_where_and_why_a_training_was_stopped_is_shown(draw):
    stopped, going = draw(LOOKS), draw(LOOKS[:2])
    assert list(line_of(stopped.axes[1], "stopped").get_xdata()) == [200.0, 200.0]
    assert stopped.axes[0].get_title(loc="left") == "stopped: copy_gap@pixels is 0.06"
    assert going.axes[0].get_title(loc="left") == ""
    assert not [line for line in going.axes[0].lines if line.get_label() == "stopped"]
    labels = [text.get_text() for text in going.legends[0].get_texts()]
    assert sorted(labels) == ["95 % interval", "measured", "null band (95 %): as if nothing were copied"]


@pytest.mark.parametrize(("last", "scale"), [(80.0, "linear"), (20.0, "log")])
def test_a_score_that_falls_by_much_is_drawn_in_logarithms(draw, last, scale):
    (axes,) = draw([look(0, 200.0, 0.0), look(1, last, 0.0)], (FD,)).axes
    assert axes.get_yscale() == scale


def test_without_looks_there_is_no_picture(tmp_path):
    assert not monitor_picture(tmp_path)
    RunFolder(tmp_path).write_table(tmp_path / TABLE, columns((FD,)), [])
    assert not monitor_picture(tmp_path)
    assert not (tmp_path / "monitor.png").exists()


@pytest.mark.parametrize("text", ["a,b\n1,2\n", "", "step,fd@pixels,fd@pixels low\n1,2,3\n"])
def test_another_table_is_refused(tmp_path, text):
    (tmp_path / TABLE).write_text(text)
    with pytest.raises(RunError, match=r"monitor\.csv is not a table of looks: expected step, scores and stopped"):
        monitor_picture(tmp_path)
