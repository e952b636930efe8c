"""A search's page holds everything it shows, tells every number with its interval, and keeps names as text."""

import re
from pathlib import Path

import pytest
from html_page import Page
from searched import GROUPS, SCRIPT, searched

from memcontrol.errors import MemControlError, RunError
from memcontrol.report.run_page import run_page
from memcontrol.report.run_reading import read_run
from memcontrol.run import RunFolder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return searched(tmp_path_factory.mktemp("search") / "run")


@pytest.fixture(scope="module")
def page(folder: RunFolder) -> Page:
    return Page(run_page(folder))


def test_nothing_is_fetched_from_elsewhere(page: Page) -> None:
    assert page.addresses
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    policies = [meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert len(policies) == 1
    assert "default-src 'none'" in policies[0]
    assert "unsafe" not in policies[0]


def test_names_and_errors_stay_text(page: Page, folder: RunFolder) -> None:
    assert len(page.all("script")) == 1
    assert SCRIPT in page.text
    assert SCRIPT not in run_page(folder)
    assert not [attributes for _, attributes in page.elements for name in attributes if name.startswith("on")]


def test_links_lead_to_something_on_the_page(page: Page) -> None:
    ids = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    targets = {link["href"].removeprefix("#") for link in page.all("a")}
    assert targets
    assert targets <= ids
    assert len(ids) == sum("id" in attributes for _, attributes in page.elements)


def test_the_words_that_promise_too_much_are_nowhere(folder: RunFolder) -> None:
    assert not re.search(r"\b(private|safe)\b", run_page(folder), flags=re.I)


def test_each_member_of_the_front_is_told_with_interval_and_n(page: Page) -> None:
    for words in ("10.5 to 11.5", "13.5 to 14.5", "29.5 to 30.5", "n = 256"):
        assert words in page.text
    assert "12.5" in page.text
    assert "n = 2 seeds" in page.text
    assert "dominated by full" in page.text


def test_a_checkpoint_on_the_front_stands_beside_the_end_of_its_trial(page: Page) -> None:
    keys = {link["data-trial"] for link in page.all("a") if "data-trial" in link}
    assert {"6", "6-at-150", "3", "1", "7", "4"} == keys
    assert "Trial 6 at 150" in page.text


def test_lit_cells_are_the_groups_that_are_on(page: Page, folder: RunFolder) -> None:
    lit = [[cell["data-group"] for cell in cells if "on" in cell["class"].split()] for cells in page.drawings]
    assert len(lit) == len(page.drawings) > 0
    first = next(trial for trial in read_run(folder).trials if trial.number == 3)
    on = {group["name"] for group in first.groups if group["on"]}
    assert set(lit[0]) == on
    assert {cell["data-group"] for cell in page.drawings[0]} == set(GROUPS)


def test_images_can_be_left_out(folder: RunFolder) -> None:
    page = Page(run_page(folder, images=False))
    assert page.all("img") == []
    assert "This page holds training images" not in page.text


def test_a_page_with_images_says_that_it_holds_training_images(page: Page) -> None:
    assert len(page.all("img")) == 5 + 1  # a card for each picture, and trial 3 side by side
    assert "This page holds training images" in page.text


def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    folder = searched(tmp_path / "run")
    folder.samples(3).write_bytes(b"no picture")
    with pytest.raises(MemControlError, match=r"trial-003.png is no picture .*--no-images"):
        run_page(folder)


def test_what_was_not_measured_is_listed(page: Page) -> None:
    assert "membership attacks" in page.text
    assert "confirmation of 3 of the 4 masks" in page.text


def test_commands_name_the_folder_as_it_was_given(page: Page, folder: RunFolder) -> None:
    assert f"memcontrol search --config {folder.config} --out {folder.path}-again" in page.text
    assert f"memcontrol confirm {folder.path}-again --seeds 101,102" in page.text


def test_missing_masks_and_pictures_leave_a_page(finished: RunFolder) -> None:
    text = Page(run_page(finished)).text
    assert "its groups cannot be drawn" in text
    assert "The front is unconfirmed" in text


def test_a_folder_without_a_front_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no front.json"):
        run_page(RunFolder(tmp_path))


def test_the_last_hypervolume_is_that_of_the_front(folder: RunFolder) -> None:
    volumes = [volume for _, volume in read_run(folder).hypervolumes()]
    # Rectangles below (140, 0.15): (11, 0.02), (14, 0.01), (20, 0.005) and (30, 0.001).
    assert volumes[-1] == pytest.approx(129 * 0.13 + 126 * 0.01 + 120 * 0.005 + 110 * 0.004)
    assert volumes == sorted(volumes)
