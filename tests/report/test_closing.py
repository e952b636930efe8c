"""The closing words say what a mask costs and buys at equal fidelity, and say when that cannot be said."""

import io
import json
from typing import Any

import numpy as np
import pytest
from finished_run import AMD, FD, GAP, front_content, member
from rich.console import Console
from schema_problems import content_problems

from memcontrol.report.closing import NO_TRAJECTORY, closing_json, closing_sentences, closing_table, member_sentence
from memcontrol.report.trajectory import at_equal_fidelity, compare
from memcontrol.report.wording import duration_text, lit_count, mask_blocks, number_text, short_names
from memcontrol.run import RunFolder

POINTS = [(20.0, 0.06), (12.0, 0.09), (16.0, 0.05), (10.0, 0.15)]


def sentence(fd: float, gap: float, objectives: tuple[tuple[str, str], ...] | None = None, **more: Any) -> str:
    front = front_content([member(3, fd, gap, **more)])
    if objectives is not None:
        front["objectives"] = [{"name": name, "better": better} for name, better in objectives]
    return member_sentence(front, front["front"][0])


@pytest.mark.parametrize(
    ("fidelity", "expected"),
    [(10.0, 0.15), (11.0, 0.12), (12.0, 0.09), (13.0, 0.08), (16.0, 0.05), (9.99, None), (16.01, None), (18.0, None)],
)
def test_interpolates_between_pareto_points_only(fidelity: float, expected: float | None) -> None:
    found = at_equal_fidelity(POINTS, fidelity)
    assert found == (None if expected is None else pytest.approx(expected))


def test_no_trajectory_and_a_single_point() -> None:
    assert at_equal_fidelity(np.empty((0, 2)), 3.0) is None
    assert at_equal_fidelity([(3.0, 0.4)], 3.0) == 0.4


def test_less_copied_at_equal_fidelity() -> None:
    assert sentence(11.0, 0.02) == (
        "Trial 3 trains 31,232 numbers in 3 of 5 groups at learning rate 0.00178. "
        "Its fd is within noise of full fine-tuning's best fd, 10.0. "
        "At fd 11.0 full fine-tuning's copy_gap is 0.120 (interpolated); this mask's is 0.0200: 0.100 less, better."
    )


def test_a_scored_point_is_not_called_interpolated_and_a_worse_mask_is_called_worse() -> None:
    text = sentence(12.0, 0.2)
    assert "It costs 2.00 of fd against full fine-tuning's best fd, 10.0." in text
    assert text.endswith("At fd 12.0 full fine-tuning's copy_gap is 0.0900; this mask's is 0.200: 0.110 more, worse.")


@pytest.mark.parametrize(("gap", "verdict"), [(0.059, "better"), (0.075, "within noise"), (0.12, "worse")])
def test_overlapping_intervals_are_noise(gap: float, verdict: str) -> None:
    front = front_content([member(3, 13.0, gap)])
    assert [c.verdict for c in compare(front, front["front"][0])] == ["worse", verdict]


def test_further_than_full_fine_tuning_ever_got() -> None:
    text = sentence(8.0, 0.03)
    assert "It gains" not in text
    assert text.endswith(
        "Full fine-tuning never got this far: its best fd is 10.0, where its copy_gap is 0.150; "
        "this mask's is 0.0300: 0.120 less, better."
    )


def test_less_faithful_than_all_pareto_points() -> None:
    start = "Full fine-tuning's best copy_gap is 0.0500, at a better fd of 16.0; this mask's is "
    assert sentence(30.0, 0.001).endswith(start + "0.00100: 0.0490 less, better, not at equal fd.")
    assert sentence(30.0, 0.09).endswith(start + "0.0900: 0.0400 more, worse, so full fine-tuning is ahead in both.")


def test_higher_is_better() -> None:
    text = sentence(11.0, 0.02, ((FD, "lower"), (AMD, "higher")))
    assert text.endswith(
        "At fd 11.0 full fine-tuning's amd is 0.380 (interpolated); this mask's is 0.480: 0.100 more, better."
    )


def test_any_order_of_objectives() -> None:
    text = sentence(11.0, 0.07, ((GAP, "lower"), (FD, "lower")))
    assert "At copy_gap 0.0700 full fine-tuning's fd is 14.0 (interpolated); this mask's is 11.0: 3.00 less" in text


def test_one_and_three_objectives() -> None:
    assert sentence(14.0, 0.02, ((FD, "lower"),)).endswith(
        "It costs 4.00 of fd against full fine-tuning's best fd, 10.0."
    )
    three = sentence(11.0, 0.02, ((FD, "lower"), (GAP, "lower"), (AMD, "higher")))
    assert "full fine-tuning's copy_gap is 0.120" in three
    assert "full fine-tuning's amd is 0.380" in three


def test_trains_nothing() -> None:
    assert sentence(14.0, 0.02, bits="00000").startswith("Trial 3 trains nothing. ")


def test_without_a_trajectory_it_says_so() -> None:
    front = front_content([member(3, 11.0, 0.02)])
    front["references"] = {}
    assert closing_sentences(front)[-1] == NO_TRAJECTORY
    assert compare(front, front["front"][0]) == []


def test_no_front_no_sentence() -> None:
    assert closing_sentences(front_content([])) == []


def shown(front: dict[str, Any], folder: RunFolder | None = None, width: int = 100, **options: bool) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(closing_table(front, folder, **options))
    return console.export_text()


def test_table_rows(finished: RunFolder) -> None:
    text = shown(finished.read_front(), finished)
    lines = [line.split() for line in text.splitlines()]
    first = lines.index(["3", "□■■□■", "31,232", "11.0", "0.0200", "p", "0.4"])
    assert lines[first + 1] == ["0.00178", "15.4", "%", "10.5", "to", "11.5", "0.0100", "to", "0.0300"]
    assert ["untuned", "0", "140", "0", "p", "0.4"] in lines
    full = [line[1:3] + line[4:5] for line in lines if line[:1] == ["full"]]
    assert full == [["300", "steps", "10.0"], ["300", "steps", "12.0"], ["150", "steps", "16.0"]]


def test_table_of_a_search_interrupted_early() -> None:
    front = front_content([])
    front["references"] = {}
    assert "trial" in shown(front)
    assert closing_json(front)["references"] == []


def test_table_fits_80_columns_and_plain_terminals(finished: RunFolder) -> None:
    text = shown(finished.read_front(), finished, width=80, ascii_only=True)
    assert ".##.#" in text
    assert "0.0100 to 0.0300" in text
    assert "…" not in text


def test_json_is_plain_and_has_the_same_facts(finished: RunFolder) -> None:
    content = closing_json(finished.read_front(), finished)
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    first = content["front"][0]
    assert first["percent"] == 15.42
    assert content["front"][1]["percent"] is None
    assert set(first["scores"]) == {FD, GAP}
    against = first["against_full"][1]
    assert (against["case"], against["objective"], against["interpolated"]) == ("equal", GAP, True)
    assert against["difference"] == pytest.approx(-0.1)
    assert [reference["steps"] for reference in content["references"]] == [0, 300, 300, 150]
    assert first["summary"] in closing_sentences(finished.read_front(), finished)


def bad_closing(content: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    *above, last = [int(part) if part.isdecimal() else part for part in key.split(".")]
    target: Any = content
    for part in above:
        target = target[part]
    target[last] = value
    return content


def test_json_is_described_key_by_key(finished: RunFolder) -> None:
    content = closing_json(finished.read_front(), finished)
    assert content_problems("closing", content, closed=True) == []
    assert content_problems("closing", {"event": "result"} | content) == []


def test_json_without_front_references_or_folder_is_described() -> None:
    front = front_content([]) | {"references": {}, "hypervolume": None, "reference_point": None}
    assert content_problems("closing", closing_json(front), closed=True) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("schema", "memcontrol/closing@2"),
        ("objectives", []),
        ("budget", 0),
        ("trials", {"complete": "4"}),
        ("front.0.trial", None),
        ("front.0.bits", 1101),
        ("front.0.percent", "15"),
        ("front.0.scores", {FD: {"value": 1.0}}),
        ("front.0.against_full.0.case", "ahead"),
        ("front.0.against_full.1.verdict", "good"),
        ("references.0.steps", -1),
        ("confirmed_summary", "all is well"),
    ],
)
def test_the_schema_refuses_bad_json(finished: RunFolder, key: str, value: Any) -> None:
    content = closing_json(finished.read_front(), finished)
    assert content_problems("closing", bad_closing(content, key, value))


def test_never_promises(finished: RunFolder) -> None:
    text = shown(finished.read_front(), finished) + " ".join(closing_sentences(finished.read_front(), finished))
    assert not {"private", "safe"} & set(text.lower().split())


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (12.0, "12.0"), (0.00178, "0.00178"), (99.96, "100"), (1234.5, "1,234"), (-0.5, "-0.500")],
)
def test_number_text(value: float, text: str) -> None:
    assert number_text(value) == text


def test_wording() -> None:
    assert mask_blocks("101") == "■□■"
    assert mask_blocks("10" * 20) == "20 of 40"


def test_a_group_at_any_level_above_zero_trains() -> None:
    assert mask_blocks("120") == "■2□"
    assert mask_blocks("120" * 10) == "20 of 30"
    assert lit_count("0210") == 2
    assert [duration_text(s) for s in (3, 84, 100, 3600, 6000)] == ["10 s", "80 s", "2 min", "60 min", "1 h 40 min"]
    assert short_names(["fd@a", "amd@a", "amd@b", "m:f"]) == {
        "fd@a": "fd",
        "amd@a": "amd@a",
        "amd@b": "amd@b",
        "m:f": "m:f",
    }
