"""A search's progress: redrawn on a terminal, one plain line an event elsewhere, JSON for scripts."""

import io
import json
import re
from typing import Any

import pytest
from finished_run import COLUMNS, FD, GAP, front_content, trial_row
from rich.console import Console

from memcontrol.config import RunConfig
from memcontrol.report.live import JsonLines, LiveView
from memcontrol.run import RunFolder
from memcontrol.study.events import Event, Finished, Note, Progress
from memcontrol.study.proposals import chosen_sampler

CONFIG = RunConfig()


def completed(trial: int, seconds: float = 24.1, worker: int = 0) -> Finished:
    return Finished(worker, f"trial {trial}", trial, seconds, scores={FD: 12.1, GAP: 0.031})


def plain(folder: RunFolder, *events: Event) -> list[str]:
    stream = io.StringIO()
    with LiveView(CONFIG, folder, Console(file=stream, width=60)) as view:
        for event in events:
            view(event)
    return stream.getvalue().splitlines()


def terminal(width: int = 100, height: int = 25, **more: Any) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=width, height=height, record=True, **more)


def shown(view: LiveView) -> str:
    """What the terminal shows now, by drawing the display once."""
    view.console.print(view.drawn())
    return view.console.export_text()


def drawn(folder: RunFolder, *events: Event, config: RunConfig = CONFIG, **console: Any) -> str:
    """What the terminal shows after these events."""
    view = LiveView(config, folder, terminal(**console))
    for event in events:
        view(event)
    return shown(view)


class Clock:
    """Shows the seconds that it is set to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def referred(folder: RunFolder) -> RunFolder:
    """The folder with its references, as workers write them."""
    for name, points in front_content([])["references"].items():
        folder.write_json(folder.references / f"{name}.json", {"name": name, "points": points, "error": None})
    return folder


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


def test_lines_say_how_long_the_rest_takes_from_the_second_trial_on(tmp_path):
    lines = plain(RunFolder(tmp_path), completed(0, 20.0, worker=0), completed(1, 30.0, worker=1))
    assert "left" not in lines[0]
    assert lines[1].endswith("  about 13 to 23 min left")  # 20 to 35 s: 48 trials, 4 references, 15 to confirm


def test_counts_go_on_where_an_earlier_part_stopped(finished):
    assert plain(finished, completed(8))[0].startswith("trial 8  5/50")
    assert plain(finished, completed(7))[0].startswith("trial 7  4/50"), "a trial that is in both counts once"


def test_no_control_codes_elsewhere_than_on_a_terminal(finished):
    text = "\n".join(plain(finished, Note("note"), completed(8), completed(9)))
    assert "\x1b" not in text
    assert "\r" not in text


def test_display(finished):
    events = Progress(0, "trial 8", "tune", 120, 300), Progress(1, "full-0.001", "sample", 64, 256)
    text = drawn(finished, *events, width=80)
    lines = [line.split() for line in text.splitlines()]
    sampler = chosen_sampler("auto", budget=50, groups=5, objectives=2)
    assert text.startswith(f"brain on tiny, space stage-kinds, sampler {sampler}, seed 0")
    assert any(line[:2] == ["trials", "4/50"] and line[-2:] == ["1", "failed"] for line in lines)
    assert "10 s so far, estimating the time left…" in text
    assert any(line[:4] == ["worker", "0", "trial", "8"] and line[-2:] == ["tune", "120/300"] for line in lines)
    assert any(line[:3] == ["worker", "1", "full-0.001"] and line[-2:] == ["sample", "64/256"] for line in lines)
    assert "front so far, 3 of 4 trials" in text
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
    text = drawn(referred(finished), Progress(0, "trial 8", "tune", 120, 300), width=width)
    assert max(map(len, text.splitlines())) <= width
    assert len(text.splitlines()) < 25
    assert "4/50" in text


def test_masks_are_counted_where_their_blocks_do_not_fit(finished):
    assert "□■■□■" in drawn(finished, width=45)
    assert "3 of 5" in drawn(finished, width=40)
    assert "20 of 40" in drawn(widened(finished), width=120)


def widened(folder: RunFolder) -> RunFolder:
    folder.write_trials(COLUMNS, [trial_row(1, 20.0, 0.1, "10" * 20)])
    return folder


def test_hypervolume_grows_over_the_trials(finished):
    text = drawn(referred(finished), width=60)
    (line,) = (line.split() for line in text.splitlines() if line.startswith("hypervolume"))
    # Below (140, 0.15): trial 1 (14, 0.01), 3 (11, 0.02), 7 (30, 0.001); trial 4 is dominated.
    volume = 126 * 0.14 + 3 * 0.13 + 110 * 0.009
    assert line == ["hypervolume", f"{volume:.1f}", "▁▃▃█", "grew", "at", "trial", "7"]


def test_there_is_no_hypervolume_before_a_reference(finished):
    assert "hypervolume" not in drawn(finished)


@pytest.mark.parametrize("broken", ["", "[]", '{"name": "full-0.001"}'])
def test_a_broken_reference_is_left_to_the_search_to_refuse(finished, broken):
    finished.references.mkdir(exist_ok=True)
    (finished.references / "full-0.001.json").write_text(broken)
    assert "4/50" in drawn(finished)


@pytest.mark.parametrize(
    ("size", "there"), [((100, 40), True), ((60, 18), False), ((45, 40), False), ((130, 24), True), ((60, 40), True)]
)
def test_the_front_is_drawn_where_there_is_room(finished, size, there):
    text = drawn(referred(finished), Progress(0, "trial 8", "tune", 1, 2), width=size[0], height=size[1])
    assert ("● front" in text) == there
    assert (f"{GAP} (lower is better)" in text) == there
    assert len(text.splitlines()) < size[1]
    assert max(map(len, text.splitlines())) <= size[0]


def test_the_display_follows_the_terminal_when_it_is_resized(finished):
    view = LiveView(CONFIG, referred(finished), terminal(width=130, height=40))
    assert "● front" in shown(view)
    view.console.size = (50, 20)
    small = shown(view)
    assert "● front" not in small
    assert max(map(len, small.splitlines())) <= 50


def test_one_objective_has_no_picture(finished):
    config = RunConfig.model_validate({"scoring": {"objectives": [FD]}})
    text = drawn(referred(finished), config=config, width=130, height=40)
    assert ["3", "□■■□■", "0.00178", "11.0"] in [line.split() for line in text.splitlines()]
    assert "● front" not in text


def test_no_colour_shows_the_same_without_colours(finished):
    wanted = {"width": 130, "height": 40}
    coloured, plainly = (
        LiveView(CONFIG, referred(finished), terminal(color_system="truecolor", no_color=none, **wanted))
        for none in (False, True)
    )
    masks, same = (shown(view).partition("front so far")[2] for view in (coloured, plainly))
    assert masks == same
    assert "● front" in masks
    assert "\x1b[32m" in coloured.console.file.getvalue()
    assert not {"\x1b[32m", "\x1b[35m", "\x1b[36m"} & set(codes(plainly.console.file.getvalue()))


def codes(text: str) -> list[str]:
    return re.findall(r"\x1b\[[\d;]+m", text)


def test_a_terminal_without_other_characters_gets_ascii(finished):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    view = LiveView(CONFIG, referred(finished), Console(file=stream, force_terminal=True, width=130, height=40))
    view.console.print(view.drawn())
    stream.flush()
    text = stream.buffer.getvalue().decode("ascii")
    assert ".##.#" in re.sub(r"\x1b\[[\d;]*m", "", text)
    assert "estimating the time left..." in text
    assert " front" in text


def test_the_time_left_counts_down_and_says_what_it_includes(finished):
    clock = Clock()
    view = LiveView(CONFIG, referred(finished), terminal(), clock=clock)
    for trial in (8, 9):
        view(completed(trial, 60.0))
    view(Progress(0, "trial 10", "tune", 1, 2))
    # 44 trials, a reference as long as four, and 15 to confirm, at 51 to 84 s
    assert "10 s so far, about 54 to 88 min left with confirmation" in shown(view)
    clock.now = 40.0
    assert "40 s so far, about 53 to 88 min left with confirmation" in shown(view)


def test_hosts_that_share_a_study_do_not_count_a_confirmation(finished):
    view = LiveView(CONFIG, referred(finished), terminal(), confirms=False)
    for trial in (8, 9):
        view(completed(trial, 60.0))
    assert "about 41 to 67 min left\n" in shown(view).replace(" \n", "\n")


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
