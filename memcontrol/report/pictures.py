"""Trials' pictures made small enough to stand in a page."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from memcontrol.errors import MemControlError
from memcontrol.report.page import data_address

GAP = 2
"""Pixels between the images of a trial's picture, as `study.pictures.image_grid` leaves them."""
ACROSS = 6
"""Images in a row of the page's picture; a wider one is broken into rows."""
LARGEST = 96
"""Pixels a side to which larger images are reduced."""
QUALITY = 82


def trial_address(path: Path) -> str:
    """A trial's picture as a `data:` address of a WebP, in rows of six pairs.

    Raises:
        MemControlError: the file is no picture.
    """
    try:
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
    except OSError as error:
        raise MemControlError(
            f"{path} is no picture ({error}): restore it, or leave pictures out with --no-images"
        ) from error
    return data_address(_broken(_reduced(picture)), "WEBP", quality=QUALITY, method=4)


def _side(picture: Image.Image) -> int:
    """The side of its square images: the picture has two rows."""
    return (picture.height - GAP) // 2


def _reduced(picture: Image.Image) -> Image.Image:
    scale = LARGEST / max(1, _side(picture))
    if scale >= 1:
        return picture
    return picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))


def _broken(picture: Image.Image) -> Image.Image:
    """Pairs beyond the sixth moved below the others; a picture of images that are not square stays as it is."""
    step = (picture.height + GAP) / 2
    count = (picture.width + GAP) / step
    if abs(count - round(count)) > 0.1 or round(count) <= ACROSS:
        return picture
    rows, gap = -(-round(count) // ACROSS), 4 * GAP
    width = round(ACROSS * step) - GAP
    sheet = Image.new("RGB", (width, rows * picture.height + (rows - 1) * gap), "white")
    for row in range(rows):
        left = round(row * ACROSS * step)
        part = picture.crop((left, 0, min(picture.width, left + width), picture.height))
        sheet.paste(part, (0, row * (picture.height + gap)))
    return sheet
