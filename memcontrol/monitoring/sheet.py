"""A look's picture: the same images at every look, and below them the ones that lie closest to training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from memcontrol.data.images import Pixels
from memcontrol.metrics.neighbourhood import gaps_to_heldout
from memcontrol.metrics.neighbours import nearest
from memcontrol.monitoring.look import Look
from memcontrol.score import Score, Scorer
from memcontrol.score.features import encoded

COLUMNS = 8
SMALLEST, LARGEST = 112, 176
"""Pixels of an image's side in the picture: smaller ones are enlarged by whole factors, larger ones reduced."""
MARGIN, GAP, BELOW, LABELS = 18, 3, 14, 92
TITLE, TEXT, NUMBER = 19, 15, 13
INK, GREY, WARNING = "#000000", "#5a5a5a", "#D55E00"


@dataclass(frozen=True)
class Row:
    """Images side by side.

    Attributes:
        label: what they are.
        images: `(n, H, W, 3)`, n at most `COLUMNS`.
        numbers: `(n,)`, one under each; none where empty.
    """

    label: str
    images: Pixels
    numbers: NDArray[np.floating] = field(default_factory=lambda: np.empty(0))


@dataclass(frozen=True)
class Line:
    """A line of text."""

    text: str
    size: int = TEXT
    color: str = GREY

    @property
    def height(self) -> int:
        """Pixels to the next line."""
        return round(1.5 * self.size)


class Sheet:
    """The pictures of one training.

    Args:
        scorer: has the real images.
        encoder: under which images are near each other.
        grid: how many images the upper part shows.
    """

    def __init__(self, scorer: Scorer, encoder: str, grid: int) -> None:
        self.scorer, self.encoder, self.grid = scorer, encoder, grid

    def picture(self, images: Pixels, look: Look) -> Image.Image:
        """The picture of a look whose images are `(N, H, W, 3)`."""
        features = encoded(self.scorer.encoders[self.encoder], images)
        training, heldout = (self.scorer.features(part, self.encoder) for part in ("training", "copying"))
        to_training, ours = nearest(features, training, 1)
        to_heldout, theirs = nearest(features, heldout, 1)
        closest = _closest(gaps_to_heldout(features, training, heldout), ours[:, 0])
        real, shown = self.scorer.real, min(self.grid, len(images))
        parts: list[Line | list[Row]] = [
            *_heading(look),
            Line(f"The same {shown} prompts and noise at every look, each above its nearest training image."),
        ]
        for start in range(0, shown, COLUMNS):
            part = np.arange(start, min(start + COLUMNS, shown))
            parts.append([Row("generated", images[part]), Row("training", real.training[ours[part, 0]])])
        parts += [
            Line(
                f"Of all {len(images)}, those that lie closest to training images compared with as many held-out ones, "
                "one for each training image."
            ),
            Line(
                f"Below them the nearest of {len(training)} training and of {len(heldout)} held-out images, with the "
                f"distance to it ({self.encoder})."
            ),
            [
                Row("generated", images[closest]),
                Row("training", real.training[ours[closest, 0]], to_training[closest, 0]),
                Row("held-out", real.copying[theirs[closest, 0]], to_heldout[closest, 0]),
            ],
        ]
        return _drawn(parts, side_of(images.shape[1]))


def _closest(gaps: NDArray[np.floating], training: NDArray[np.integer]) -> NDArray[np.intp]:
    """Positions of the largest gaps, the first of each training image, at most `COLUMNS`."""
    order = np.argsort(-gaps, kind="stable")
    _, first = np.unique(training[order], return_index=True)
    chosen: NDArray[np.intp] = order[np.sort(first)][:COLUMNS]
    return chosen


def side_of(resolution: int) -> int:
    """Pixels of an image's side in the picture."""
    factor = -(-SMALLEST // resolution)
    return min(resolution * factor, LARGEST)


def _heading(look: Look) -> list[Line]:
    scores = [_written(name, score) for name, score in look.scores.items()]
    heading = [Line(f"Step {look.step:,}", TITLE, INK), *(Line(text, TEXT, INK) for text in scores)]
    if look.reason is not None:
        heading.append(Line(f"Stopped: {look.reason}", TEXT, WARNING))
    return [*heading, Line("", BELOW // 2)]


def _written(name: str, score: Score) -> str:
    text = f"{name} {score.value:.3g} (95 %: {score.low:.3g} to {score.high:.3g})"
    return text if score.null is None else f"{text}; null band {score.null[0]:.3g} to {score.null[2]:.3g}"


def _drawn(parts: Sequence[Line | list[Row]], side: int) -> Image.Image:
    """Text and bands of images below each other on white."""
    step = side + GAP
    wide = max([LABELS + COLUMNS * step - GAP, *(_width(part) for part in parts if isinstance(part, Line))])
    canvas = Image.new("RGB", (wide + 2 * MARGIN, sum(_height(part, step) for part in parts) + 2 * MARGIN), "white")
    draw, top = ImageDraw.Draw(canvas), MARGIN
    for part in parts:
        if isinstance(part, Line):
            draw.text((MARGIN, top), part.text, fill=part.color, font=ImageFont.load_default(part.size))
        else:
            _draw_band(canvas, draw, part, top, side)
        top += _height(part, step)
    return canvas


def _draw_band(canvas: Image.Image, draw: ImageDraw.ImageDraw, band: Sequence[Row], top: int, side: int) -> None:
    font, small = ImageFont.load_default(TEXT), ImageFont.load_default(NUMBER)
    for row in band:
        draw.text((MARGIN, top + side // 2), row.label, fill=INK, font=font, anchor="lm")
        for column, image in enumerate(row.images):
            left = MARGIN + LABELS + column * (side + GAP)
            canvas.paste(_sized(image, side), (left, top))
            if len(row.numbers):
                at = (left + side // 2, top + side + GAP)
                draw.text(at, f"{row.numbers[column]:#.3g}", fill=GREY, font=small, anchor="mt")
        top += _row_height(row, side + GAP)


def _sized(image: Pixels, side: int) -> Image.Image:
    """An image at its size in the picture: pixels stay visible where it is enlarged."""
    resampling = Image.Resampling.LANCZOS if image.shape[0] > side else Image.Resampling.NEAREST
    return Image.fromarray(np.asarray(image)).resize((side, side), resampling)


def _row_height(row: Row, step: int) -> int:
    return step + (round(1.5 * NUMBER) if len(row.numbers) else 0)


def _height(part: Line | list[Row], step: int) -> int:
    return part.height if isinstance(part, Line) else sum(_row_height(row, step) for row in part) + BELOW


def _width(line: Line) -> int:
    return round(ImageFont.load_default(line.size).getlength(line.text))
