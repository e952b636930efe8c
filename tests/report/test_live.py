"""A search's progress: redrawn on a terminal, one plain line an event elsewhere, JSON for scripts."""

import io
import json

import pytest
from finished_run import COLUMNS, FD, GAP, trial_row
from rich.console import Console

from memcontrol.config import RunConfig
from memcontrol.report.live import JsonLines, LiveView
from memcontrol.run import RunFolder
from memcontrol.study.events import Event, Finished, Note, Progress

CONFIG = RunConfig()


def completed(trial: int, seconds: float = 24.1, worker: int = 0) -> Finished:
    return Finished(worker, f"trial {trial}", trial, seconds, scores={FD: 12.1, GAP: 0.031})


def plain(folder: RunFolder, *events: Event) -> list[str]:
    stream = io.StringIO()
    with LiveView(CONFIG, folder, Console(file=stream, width=60)) as view:
        for event in events:
            view(event)
    return stream.getvalue().splitlines()


def drawn(folder: RunFolder, *events: Event, width: int = 100, **console: object) -> str:
    """What the terminal shows after these events, by drawing the display once."""
    view = LiveView(CONFIG, folder, Console(file=io.StringIO(), force_terminal=True, width=width))
    for event in events:
        view(event)
    view.tally.refresh()
    page = Console(file=io.StringIO(), width=width, record=True)
    page.print(view._drawn())
    return page.export_text()


def test_plain_lines(tmp_path):
    folder = RunFolder(tmp_path)
    lines = plain(folder, Note("a long note [not markup] " * 5), Progress(0, "trial 0", "tune", 5, 300), completed(0))
    assert lines == ["a long note [not markup] " * 5, f"trial 0  1/50  24.1 s  {FD} 12.1  {GAP} 0.0310"]


def test_plain_failures_and_references(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_json(folder.references / "full-0.001.json", {})
    failed = Finished(0, "trial 4", 4, 3.2, "DivergedError: loss is nan\nmore")
    assert plain(folder, Finished(0, "full-0.001", None, 61.04), failed, completed(5)) == [
        "full-0.001  reference 1/4  61.0 s",
        "trial 4  failed  3.2 s  DivergedError: loss is nan",
        f"trial 5  1/50  24.1 s  {FD} 12.1  {GAP} 0.0310",
    ]


def test_time_left_is_the_median_by_rounds_of_workers(tmp_path):
    events = [completed(0, 20.0, worker=0), completed(1, 30.0, worker=1), completed(2, 5000.0, worker=0)]
    lines = plain(RunFolder(tmp_path), *events)
    assert "left" not in lines[0]
    assert lines[1].endswith("about 10 min left")  # 48 trials, 2 workers, 25 s each
    assert lines[2].endswith("about 12 min left")  # 47 trials in 24 rounds, 30 s each


def test_counts_go_on_where_an_earlier_part_stopped(finished):
    assert plain(finished, completed(8))[0].startswith("trial 8  5/50")
    assert plain(finished, completed(7))[0].startswith("trial 7  4/50"), "a trial that is in both counts once"


def test_no_control_codes_elsewhere_than_on_a_terminal(finished):
    text = "\n".join(plain(finished, Note("note"), completed(8), completed(9)))
    assert "\x1b" not in text
    assert "\r" not in text


def test_display(finished):
    text = drawn(finished, Progress(0, "trial 8", "tune", 120, 300), Progress(1, "full-0.001", "sample", 64, 256))
    lines = [line.split() for line in text.splitlines()]
    assert text.startswith("brain on tiny, space stage-kinds, sampler gp, seed 0")
    assert any(line[:2] == ["trials", "4/50"] and line[-4:] == ["1", "failed,", "…", "left"] for line in lines)
    assert any(line[:4] == ["worker", "0", "trial", "8"] and line[-2:] == ["tune", "120/300"] for line in lines)
    assert any(line[:3] == ["worker", "1", "full-0.001"] and line[-2:] == ["sample", "64/256"] for line in lines)
    front = [line for line in lines if len(line) == 5 and line[0].isdigit()]
    assert front == [
        ["3", "□■■□■", "0.00178", "11.0", "0.0200"],
        ["1", "□■■□■", "0.00178", "14.0", "0.0100"],
        ["7", "□□□□■", "0.00178", "30.0", "0.00100"],
    ]


def test_display_follows_the_trials_written_since(finished):
    finished.write_trials(COLUMNS, [trial_row(9, 2.0, 0.0)])
    assert "5/50" in drawn(finished, completed(3), completed(1), completed(7), completed(4)).splitlines()[1]


def test_display_before_anything_is_there(tmp_path):
    text = drawn(RunFolder(tmp_path / "none yet"))
    assert "0/50" in text
    assert "front" not in text


def test_a_folder_of_other_objectives_is_left_to_the_search_to_refuse(finished):
    finished.write_trials(["number", "state", "mask", "kid@latents"], [{"number": 0, "state": "complete", "mask": "1"}])
    assert "1/50" in drawn(finished)


@pytest.mark.parametrize("width", [30, 45, 80])
def test_narrow_terminals(finished, width):
    text = drawn(finished, Progress(0, "trial 8", "tune", 120, 300), width=width)
    assert max(map(len, text.splitlines())) <= width
    assert "4/50" in text


def test_terminal_session_redraws_and_keeps_notes(finished):
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=100, height=40, color_system=None)
    with LiveView(CONFIG, finished, console) as view:
        view(Note("budget 50 [of 100]"))
        view(completed(8))
        view(Finished(0, "trial 9", 9, 1.0, "MaskError: no"))
    text = stream.getvalue()
    assert "budget 50 [of 100]" in text
    assert "trial 9  failed  1.0 s  MaskError: no" in text
    assert "front so far" in text
    assert "5/50" in text.rpartition("trials")[2], "the last drawing stays"
    assert "left" not in text.rpartition("trials")[2]


def test_a_dumb_terminal_gets_lines(finished, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    stream = io.StringIO()
    with LiveView(CONFIG, finished, Console(file=stream, force_terminal=True, width=100)) as view:
        view(completed(8))
    assert stream.getvalue().startswith("trial 8  5/50")
    assert "\x1b[" not in stream.getvalue()


def test_json_lines():
    stream = io.StringIO()
    listener = JsonLines(stream)
    events = [Note("a\nb"), Progress(1, "trial 2", "tune", 5, 300), completed(2)]
    for event in events:
        listener(event)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line.pop("event") for line in lines] == ["note", "progress", "finished"]
    assert [kind(**line) for kind, line in zip((Note, Progress, Finished), lines, strict=True)] == events
