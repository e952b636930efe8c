"""The docs' pictures are small, are all shown somewhere, and say in words what they show."""

import re
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
PICTURES = sorted((ROOT / "docs" / "images").glob("*.png"))
SHOWN = re.compile(r"!\[([^\]]*)\]\((?:docs/)?images/([\w-]+\.png)\)")
OTHERS = {"report-masks-dark.png", "report-print.png"}
"""Looked at when the page changes, and shown nowhere."""


def alternatives() -> list[tuple[str, str]]:
    """Alternative text and file of every picture that a page or the README shows."""
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    return [found for page in pages for found in SHOWN.findall(page.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.stem)
def test_pictures_are_small_and_as_wide_as_a_page(path):
    assert path.stat().st_size < 150_000
    with Image.open(path) as picture:
        assert 390 <= picture.width <= 1470
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 8, "nothing is drawn"


def test_every_picture_is_shown_and_every_one_that_is_shown_is_there():
    shown = {name for _, name in alternatives()}
    assert shown == {path.name for path in PICTURES} - OTHERS


def test_pictures_say_in_words_what_they_show():
    short = [(text, name) for text, name in alternatives() if len(text.split()) < 8]
    assert short == []
