"""Plots of characters show what they are given, and no more than fits."""

import numpy as np
import pytest

from memcontrol.report.text_plots import Layer, scatter, sparkline


@pytest.mark.parametrize(
    ("values", "width", "text"),
    [
        ([], 5, ""),
        ([1.0], 0, ""),
        ([1.0], 5, "▁"),
        ([2.0, 2.0, 2.0], 5, "▁▁▁"),
        ([0.0, 7.0], 5, "▁█"),
        (list(map(float, range(8))), 8, "▁▂▃▄▅▆▇█"),
        (list(map(float, range(80))), 4, "▁▃▆█"),
        ([0.0, 0.0, 0.0, 0.0, 9.0], 2, "▁█"),
    ],
)
def test_sparklines_rise_from_the_least_to_the_greatest(values, width, text):
    assert sparkline(values, width) == text


def test_a_plain_terminal_gets_ascii_blocks():
    assert sparkline(list(map(float, range(7))), 7, ascii_only=True) == "_.-=+*#"


def points(*xy: tuple[float, float]) -> np.ndarray:
    return np.array(xy, dtype=np.float64).reshape(-1, 2)


def drawn(*layers: Layer, width: int = 20, height: int = 9, **options: bool) -> list[str]:
    return scatter(layers, ("across", "up"), width=width, height=height, **options).plain.splitlines()


def test_points_stand_where_they_are_between_the_axes():
    lines = drawn(Layer("all", points((1, 10), (7, 10), (1, 40), (4, 25)), "o"))
    assert [line.rstrip() for line in lines] == [
        "up",
        "40.0 │o",
        "     │",
        "     │      o",
        "     │",
        "10.0 │o            o",
        "     └──────────────",
        "      1.00      7.00",
        "      o all",
    ]


def test_a_later_layer_covers_an_earlier_one():
    lines = drawn(Layer("below", points((1, 1), (2, 2)), "."), Layer("above", points((2, 2)), "o"))
    assert "".join(lines[1:6]).count("o") == 1
    assert "".join(lines[1:6]).count(".") == 1 + "".join(line[:5] for line in lines[1:6]).count(".")


def test_a_wide_range_is_in_logarithms():
    line = drawn(Layer("all", points((1, 1), (10, 1), (100, 2)), "o"), width=27)[5]
    first, second = (i for i, one in enumerate(line) if one == "o")
    assert second - first == 10


def test_one_point_and_empty_layers_are_drawn():
    lines = drawn(Layer("none", points(), "."), Layer("one", points((3, 0)), "o"))
    assert sum("o" in line for line in lines[1:6]) == 1


def test_a_plain_terminal_gets_ascii_axes():
    assert "\n".join(drawn(Layer("all", points((1, 1)), "o"), ascii_only=True)).isascii()


@pytest.mark.parametrize("width", [12, 30, 64])
def test_lines_fit(width):
    lines = drawn(Layer("all", points((0.001, -5), (123456, 0.25)), "o"), width=width)
    assert max(len(line) for line in lines[:7]) <= width
