"""The pictures of the docs, from a finished search and an audit, taken in a headless browser.

    python docs/images/make.py --run RUN --audit AUDIT

One of the two may be left out, and its pictures stay as they are. Those beside this file are of

    memcontrol search --data digits --budget 50 --workers 2 --confirm 0 --out RUN
    memcontrol finetune --mask RUN/masks/trial-041.json --data digits --train-size 32 --steps 600 --out tuned
    memcontrol audit --model tuned --train digits --train-size 32 --samples 128 --prompts 4 --out AUDIT

Needs Debian's `chromium` and `fonts-dejavu`, and the `playwright` package. Writes PNGs of less than 150 kB.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from playwright.sync_api import Browser, Locator, Page, sync_playwright

HERE = Path(__file__).parent
DESK, PHONE, PAPER = {"width": 1120, "height": 2000}, {"width": 390, "height": 844}, {"width": 760, "height": 1075}
SHARPNESS = 1.3125
"""Pixels of a picture for each of the page's: they are shown narrower than they are."""
MOST_BYTES = 150_000
TERMINAL, AFTER = (118, 23), 31
"""Columns and lines of the terminal, and after how many trials it is shown."""
ROWS, TRIPLES = 7, 4
"""Scores of memorization, and generated images beside their nearest ones, that are shown of an audit."""


def keep(png: bytes, name: str) -> None:
    """Write a picture with as many colours as `MOST_BYTES` allow."""
    with Image.open(io.BytesIO(png)) as picture:
        whole = picture.convert("RGB")
    for colours in (256, 128, 64, 32):
        content = io.BytesIO()
        whole.quantize(colours, dither=Image.Dither.NONE).save(content, format="PNG", optimize=True)
        if len(content.getvalue()) < MOST_BYTES:
            break
    else:
        raise SystemExit(f"{name}: {len(content.getvalue())} bytes with {colours} colours: show less of the page")
    (HERE / f"{name}.png").write_bytes(content.getvalue())


def show(page: Page, heading: str) -> None:
    """Bring a heading to the top of the window, with some room above it."""
    page.evaluate("document.documentElement.style.scrollPaddingTop = '24px'")
    page.evaluate("id => document.getElementById(id).scrollIntoView({behavior: 'instant'})", heading)


def shoot_down_to(page: Page, heading: str, last: Locator, name: str) -> None:
    """From a heading down to the end of the lowest of these elements, as wide as the heading's section."""
    show(page, heading)
    section = page.locator(f"section[aria-labelledby={heading}]").bounding_box()
    ends = [one.bounding_box() for one in last.all()]
    if section is None or not ends:
        raise SystemExit(f"{name}: the page has no such part")
    bottom = max(box["y"] + box["height"] for box in ends if box is not None)
    clip = {
        "x": section["x"] - 8,
        "y": section["y"],
        "width": section["width"] + 16,
        "height": bottom - section["y"] + 8,
    }
    keep(page.screenshot(clip=clip), name)


def shoot_front(page: Page, name: str) -> None:
    """The front with a mask shown where one points at it."""
    page.locator("#front-1").first.wait_for(state="attached")
    show(page, "front")
    points = page.locator("svg a:not([tabindex])")
    points.nth(points.count() // 3).hover()
    shoot_down_to(page, "front", page.locator("section[aria-labelledby=front] .legend"), name)
    page.mouse.move(2, 2)


def shoot_report(browser: Browser, address: str) -> None:
    """A search's page: light, dark, on a phone and in print."""
    for scheme in ("light", "dark"):
        page = browser.new_page(
            viewport=DESK, color_scheme=scheme, device_scale_factor=SHARPNESS, reduced_motion="reduce"
        )
        page.goto(address)
        shoot_front(page, f"report-front-{scheme}")
        if scheme == "light":
            shoot_down_to(page, "groups", page.locator("section[aria-labelledby=groups] table"), "report-groups")
        rows = page.locator("section.slot tbody tr:nth-child(3)")
        shoot_down_to(page, "side-by-side", rows, f"report-masks-{scheme}")
    phone = browser.new_page(
        viewport=PHONE, has_touch=True, is_mobile=True, reduced_motion="reduce", device_scale_factor=SHARPNESS
    )
    phone.goto(address)
    phone.evaluate("document.querySelector('h2#front').scrollIntoView()")
    keep(phone.screenshot(), "report-phone")
    paper = browser.new_page(viewport=PAPER)
    paper.emulate_media(media="print")
    paper.goto(address)
    keep(paper.screenshot(), "report-print")


def shoot_audit(browser: Browser, audit: Path) -> None:
    """An audit's page: scores between their controls, and the nearest images under its first encoder."""
    page = browser.new_page(viewport=DESK, device_scale_factor=SHARPNESS, reduced_motion="reduce")
    page.goto((audit / "audit.html").resolve().as_uri())
    rows = page.locator("table.wide tbody tr")
    shoot_down_to(page, "scores", rows.nth(min(ROWS, rows.count()) - 1), "audit-scores")
    triples = page.locator("section[aria-labelledby=nearest] .triples").first.locator(".triple")
    shoot_down_to(page, "nearest", triples.nth(min(TRIPLES, triples.count()) - 1), "audit-nearest")


def shoot_run(browser: Browser, folder: Path) -> None:
    """A search: its terminal while it ran, its front, and its page."""
    from live_view import live_view_svg

    from memcontrol.report import read_trials
    from memcontrol.report.plots import front_picture
    from memcontrol.report.run_page import run_page
    from memcontrol.run import RunFolder

    run = RunFolder(folder)
    page = browser.new_page(viewport={"width": 1470, "height": 900})
    page.set_content(live_view_svg(run, AFTER, width=TERMINAL[0], height=TERMINAL[1]))
    keep(page.locator("svg").first.screenshot(), "live-view")
    with TemporaryDirectory() as scratch:
        front, address = Path(scratch) / "front.png", Path(scratch) / "report.html"
        front_picture(run.read_front(), read_trials(run), front)
        keep(front.read_bytes(), "front")
        address.write_text(run_page(run), encoding="utf-8")
        shoot_report(browser, address.as_uri())


def main() -> None:
    """Take the pictures that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="folder of a search")
    parser.add_argument("--audit", type=Path, help="folder of an audit")
    given = parser.parse_args()
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        if given.audit is not None:
            shoot_audit(browser, given.audit)
        if given.run is not None:
            shoot_run(browser, given.run)
        browser.close()


if __name__ == "__main__":
    main()
