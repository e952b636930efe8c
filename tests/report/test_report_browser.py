"""A search's page in a real browser: with a mouse, by keyboard, on a phone, in print, in the dark, and without script.

Skipped where Debian's `chromium` or the `playwright` package is missing; with MEMCONTROL_REQUIRE_BROWSER=1 that fails.
"""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from searched import MEMBERS, searched

from memcontrol.report.pages import page_of
from memcontrol.report.run_reading import read_run
from memcontrol.run import RunFolder

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FRONT = "#front-1 ~ a[data-trial]:not([tabindex])"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing = "the playwright package"
    else:
        missing = "" if CHROMIUM else "Debian's chromium"
    if missing:
        if os.environ.get("MEMCONTROL_REQUIRE_BROWSER"):
            pytest.fail(f"{missing} is missing, and MEMCONTROL_REQUIRE_BROWSER asks for it")
        pytest.skip(f"{missing} is missing")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = searched(tmp_path_factory.mktemp("browser") / "run")
    name, page = page_of(folder.path)
    (folder.path / name).write_text(page, encoding="utf-8")
    return folder


@dataclass
class Visit:
    """A page that is open, and what it complained about or asked for."""

    page: Any
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def pinned(self) -> list[str]:
        return self.page.eval_on_selector_all("#pair > .slot", "slots => slots.map((slot) => slot.dataset.trial)")


@pytest.fixture
def visit(browser: Any, folder: RunFolder) -> Iterator[Any]:
    contexts = []

    def open_page(**settings: Any) -> Visit:
        contexts.append(browser.new_context(**({"viewport": {"width": 1100, "height": 900}} | settings)))
        found = Visit(contexts[-1].new_page())
        found.page.on("console", lambda message: found.complaints.append(message.text))
        found.page.on("pageerror", lambda error: found.complaints.append(str(error)))
        found.page.on("request", lambda request: found.requests.append(request.url))
        found.page.goto((folder.path / "report.html").as_uri())
        return found

    yield open_page
    for context in contexts:
        context.close()


def test_it_loads_without_complaint_or_request(visit: Any, folder: RunFolder) -> None:
    found = visit()
    found.page.locator(FRONT).first.hover()
    found.page.locator(FRONT).first.click()
    found.page.emulate_media(media="print")
    found.page.wait_for_load_state("networkidle")
    assert found.complaints == []
    asked = [url for url in found.requests if not url.startswith("data:")]
    assert asked == [(folder.path / "report.html").as_uri()]


def test_pointing_at_a_trial_shows_its_mask_and_some_images(visit: Any) -> None:
    page = visit().page
    tip = page.locator("#tip")
    assert tip.is_hidden()
    page.locator("#front-1 ~ a[data-trial='3']").hover()
    assert tip.is_visible()
    assert "Trial 3" in tip.inner_text()
    assert "□■■□■" in tip.inner_text()
    assert "11.0 (10.5 to 11.5)" in tip.inner_text()
    assert page.evaluate("document.querySelector('#tip img').naturalWidth") > 0
    page.mouse.move(2, 2)
    assert tip.is_hidden()


def test_clicks_put_two_masks_side_by_side(visit: Any) -> None:
    found = visit()
    page = found.page
    assert found.pinned() == ["3", "6-at-150"]
    page.locator("#front-1 ~ a[data-trial='1']").click()
    assert found.pinned() == ["6-at-150", "1"]
    page.locator("section[aria-labelledby=trials] a[data-trial='4']").click()
    assert found.pinned() == ["1", "4"]
    left, right = (page.locator("#pair > .slot").nth(i).bounding_box() for i in range(2))
    assert left["y"] == right["y"]
    assert left["x"] + left["width"] <= right["x"]
    page.locator("#pair > .slot button").first.click()
    assert found.pinned() == ["4"]
    assert page.locator("#front-1 ~ a.pinned").count() == 1


def test_everything_works_by_keyboard(visit: Any) -> None:
    found = visit()
    page = found.page
    for _ in range(40):
        page.keyboard.press("Tab")
        trial = page.evaluate("document.activeElement.closest('svg a')?.dataset.trial ?? null")
        if trial == "1":
            break
    assert trial == "1"
    assert page.locator("#tip").is_visible()
    page.keyboard.press("Enter")
    assert found.pinned() == ["6-at-150", "1"]
    assert page.locator("#told").inner_text() == "Side by side: Trial 6 at 150 and Trial 1"
    page.keyboard.press("Escape")
    assert found.pinned() == ["6-at-150"]
    page.keyboard.press("Shift+Tab")
    assert page.locator("#tip").is_visible()
    page.keyboard.press("Escape")
    assert page.locator("#tip").is_hidden()
    assert found.pinned() == ["6-at-150"]


@pytest.mark.parametrize("trial", [str(one[0]) for one in MEMBERS])
def test_the_drawn_unet_is_the_mask(visit: Any, folder: RunFolder, trial: str) -> None:
    found = visit()
    if trial not in found.pinned():
        found.page.locator(f"#front-1 ~ a[data-trial='{trial}']").click()
    lit = found.page.eval_on_selector_all(
        f"#pair > .slot[data-trial='{trial}'] .cell",
        """cells => cells.filter((cell) => getComputedStyle(cell.querySelector("rect")).fill ===
            getComputedStyle(document.querySelector(".cell.on rect")).fill).map((cell) => cell.dataset.group)""",
    )
    reading = next(one for one in read_run(folder).trials if str(one.number) == trial)
    assert set(lit) == {group["name"] for group in reading.groups if group["on"]}
    assert 0 < len(set(lit)) < len(reading.groups)


def test_a_script_in_a_name_stays_text(visit: Any) -> None:
    page = visit().page
    assert page.evaluate("window.stolen === undefined")
    assert "<script>window.stolen = 1</script>" in page.locator("body").inner_text()
    assert page.locator("img[src=x]").count() == 0


def test_tables_sort_by_their_heads(visit: Any) -> None:
    page = visit().page
    head = page.locator("section[aria-labelledby=trials] th button", has_text="fd")
    first = page.locator("section[aria-labelledby=trials] tbody tr").first
    head.click()
    assert first.locator("th").inner_text() == "4"
    head.press("Enter")
    assert first.locator("th").inner_text() == "3"


def test_a_phone_has_no_sideways_scroll(visit: Any) -> None:
    found = visit(viewport={"width": 360, "height": 740}, is_mobile=True, has_touch=True)
    page = found.page
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.locator("#front-1 ~ a[data-trial='1']").tap()
    assert found.pinned() == ["6-at-150", "1"]
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_the_main_things_stand_without_script(visit: Any) -> None:
    page = visit(java_script_enabled=False).page
    assert page.locator(FRONT).count() == 4
    assert page.locator("#pair .unet").count() == 2
    assert page.locator(".hint").first.is_hidden()
    assert not page.locator("#mask-1").is_visible()
    page.locator("section[aria-labelledby=front] td a, section[aria-labelledby=front] th a").nth(1).click()
    assert page.locator("#mask-1 .unet").is_visible()


def test_dark_print_and_still_readers_are_heeded(visit: Any) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    page = visit(color_scheme="dark", reduced_motion="reduce").page
    assert page.evaluate(ground) == "rgb(20, 23, 26)"
    assert page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "auto"
    page.emulate_media(media="print")
    assert page.evaluate(ground) == "rgb(255, 255, 255)"
    assert page.locator("nav").is_hidden()
    assert page.locator(".slot button").first.is_hidden()
    assert page.locator("#pair .unet").first.is_visible()
