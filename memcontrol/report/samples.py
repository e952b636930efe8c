"""One sheet of what the front's members generate, each beside the training images nearest to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from memcontrol.report.wording import member_name, number_text, rate_text
from memcontrol.run import RunFolder

MARGIN, LINE, TEXT = 12, 22, 15
CAPTION = "Top rows: generated images nearest to training. Bottom rows: those training images."


def sheet_path(folder: RunFolder) -> Path:
    """Where the sheet lies."""
    return folder.path / "samples" / "front.png"


def member_label(member: dict[str, Any], objectives: list[dict[str, str]]) -> str:
    """A front member in one line: its trial, learning rate and objectives."""
    values = [f"{o['name']} {number_text(member['scores'][o['name']]['value'])}" for o in objectives]
    return "   ".join([f"trial {member_name(member)}", f"rate {rate_text(member['learning_rate'])}", *values])


def samples_sheet(folder: RunFolder, front: dict[str, Any]) -> Image.Image:
    """The pictures of the front's members, labelled, one below another in the front's order.

    A member whose picture is gone keeps its label, and a line says so.

    Args:
        front: the content of `front.json`.
    """
    parts: list[str | Image.Image] = [CAPTION]
    for member in front["front"]:
        parts.append(member_label(member, front["objectives"]))
        path = folder.samples(member["trial"], member["steps"] if "of" in member else None)
        if path.is_file():
            with Image.open(path) as picture:
                parts.append(picture.convert("RGB"))
        else:
            parts.append(f"no picture {path.relative_to(folder.path)}")
    return _stacked(parts)


def _stacked(parts: list[str | Image.Image]) -> Image.Image:
    font = ImageFont.load_default(TEXT)
    widths = [round(font.getlength(part)) if isinstance(part, str) else part.width for part in parts]
    heights = [LINE if isinstance(part, str) else part.height + MARGIN for part in parts]
    sheet = Image.new("RGB", (max(widths) + 2 * MARGIN, sum(heights) + 2 * MARGIN), "white")
    draw, top = ImageDraw.Draw(sheet), MARGIN
    for part, height in zip(parts, heights, strict=True):
        if isinstance(part, str):
            draw.text((MARGIN, top), part, fill="black", font=font)
        else:
            sheet.paste(part, (MARGIN, top))
        top += height
    return sheet
