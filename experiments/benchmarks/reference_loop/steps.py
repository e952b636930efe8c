"""What the reference loop does at each step: random numbers, images and captions encoded, images through files."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from disk import read_images
from PIL import Image

from memcontrol.data.images import Pixels


@dataclass(frozen=True)
class Loaded:
    """What a trial begins with."""

    pipeline: Any
    files: list[Path]
    captions: list[str]


class Draws:
    """Random numbers of one training: shuffled epochs, timesteps, noise, dropped captions."""

    def __init__(self, images: int, batch: int, seed: int) -> None:
        self.images, self.batch = images, batch
        self.rng, self.generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
        self.queue = np.empty(0, dtype=np.intp)

    def positions(self) -> Any:
        """Images of the next step."""
        while len(self.queue) < self.batch:
            self.queue = np.concatenate([self.queue, self.rng.permutation(self.images)])
        chosen, self.queue = self.queue[: self.batch], self.queue[self.batch :]
        return chosen


@torch.no_grad()
def encoded_images(pipeline: Any, files: Sequence[Path]) -> Any:
    pixels = torch.from_numpy(read_images(files)).permute(0, 3, 1, 2).contiguous().float() / 127.5 - 1
    return pipeline.vae.encode(pixels).latent_dist


@torch.no_grad()
def encoded_captions(pipeline: Any, captions: list[str]) -> torch.Tensor:
    tokens = pipeline.tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt")
    encoded: torch.Tensor = pipeline.text_encoder(tokens.input_ids).last_hidden_state
    return encoded


def through_files(images: Sequence[Image.Image]) -> Pixels:
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{number:05d}.jpg" for number in range(len(images))]
        for image, file in zip(images, files, strict=True):
            image.save(file)
        return read_images(files)
