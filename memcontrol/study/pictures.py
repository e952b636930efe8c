"""A trial's picture: its generated images that lie closest to training, each above its nearest training image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from memcontrol.data.images import Pixels
from memcontrol.measures import MEASURES
from memcontrol.score import Scorer, from_model, parse_name

if TYPE_CHECKING:
    from memcontrol.study.trial import Laboratory

COLUMNS = 12


def image_grid(rows: list[Pixels], *, gap: int = 2) -> Image.Image:
    """Rows of equally sized images `(n, H, W, 3)` as one picture on white."""
    height, width = rows[0].shape[1:3]
    columns = max(map(len, rows))
    canvas = np.full((len(rows) * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, dtype=np.uint8)
    for r, row in enumerate(rows):
        for c, image in enumerate(row):
            canvas[r * (height + gap) : r * (height + gap) + height, c * (width + gap) : c * (width + gap) + width] = (
                image
            )
    return Image.fromarray(canvas)


def copying_encoder(names: Sequence[str], scorer: Scorer) -> str:
    """The encoder that the copying score among `names` uses; the first score's where there is no such score."""
    named = [parse_name(name) for name in names if ":" not in name and not from_model(name)]
    copying = [encoder for measure, encoder in named if MEASURES[measure].family == "copying"]
    return (copying or [encoder for _, encoder in named] or sorted(scorer.encoders))[0]


def beside_training(images: Pixels, laboratory: Laboratory) -> Image.Image:
    """Top row: the generated images nearest to training. Bottom row: those training images, as the model sees them."""
    encoder = copying_encoder(laboratory.config.scoring.objectives, laboratory.scorer)
    positions, distances = laboratory.scorer.nearest_training(images, encoder)
    closest = np.argsort(distances, kind="stable")[:COLUMNS]
    return image_grid([images[closest], laboratory.scorer.real.training[positions[closest]]])
