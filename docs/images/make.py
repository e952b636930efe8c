"""Screenshots of a search's page in a headless browser: light, dark, phone and print.

    python docs/images/make.py runs/brain-tiny-stage-kinds

Needs Debian's `chromium` and the `playwright` package; writes PNGs of at most 256 colours beside this file.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from memcontrol.report.run_page import run_page
from memcontrol.run import RunFolder

HERE = Path(__file__).parent
DESK, PHONE = {"width": 1120, "height": 900}, {"width": 390, "height": 844}


def keep(png: bytes, name: str, colours: int = 256) -> None:
    """Write a screenshot with few colours."""
    with Image.open(io.BytesIO(png)) as picture:
        few = picture.convert("RGB").quantize(colours, dither=Image.Dither.NONE)
        few.save(HERE / f"{name}.png", optimize=True)


def shoot_front(page: Page, name: str) -> None:
    """The front with a mask shown where one points at it."""
    page.locator("#front-1").first.wait_for(state="attached")
    section = page.locator("section[aria-labelledby=front]")
    section.scroll_into_view_if_needed()
    points = page.locator("svg a:not([tabindex])")
    points.nth(points.count() // 3).hover()
    keep(page.screenshot(), name)
    page.mouse.move(2, 2)


def shoot_part(page: Page, heading: str, name: str, colours: int = 256) -> None:
    """One section, whole."""
    keep(page.locator(f"section[aria-labelledby={heading}]").screenshot(), name, colours)


def main() -> None:
    """Write the page to a folder of its own, and take its pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a search")
    run = parser.parse_args().run
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    with TemporaryDirectory() as scratch, sync_playwright() as playwright:
        address = Path(scratch) / "report.html"
        address.write_text(run_page(RunFolder(run)), encoding="utf-8")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for scheme in ("light", "dark"):
            page = browser.new_page(viewport=DESK, color_scheme=scheme)
            page.goto(address.as_uri())
            shoot_front(page, f"report-front-{scheme}")
            if scheme == "light":
                shoot_part(page, "groups", "report-groups")
            shoot_part(page, "side-by-side", f"report-masks-{scheme}", colours=64)
        phone = browser.new_page(viewport=PHONE, has_touch=True, is_mobile=True, reduced_motion="reduce")
        phone.goto(address.as_uri())
        phone.evaluate("document.querySelector('h2#front').scrollIntoView()")
        keep(phone.screenshot(), "report-phone")
        paper = browser.new_page(viewport={"width": 760, "height": 1075})
        paper.emulate_media(media="print")
        paper.goto(address.as_uri())
        keep(paper.screenshot(), "report-print")
        browser.close()


if __name__ == "__main__":
    main()
