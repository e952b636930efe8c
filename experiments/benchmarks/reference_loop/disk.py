"""What the reference loop finds on disk: images as files, a table of captions, and the pipeline's folder."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from memcontrol.data.images import Pixels
from memcontrol.pipeline.loading import model_folder
from memcontrol.score import RealImages
from memcontrol.study.trial import Laboratory

SETS = ("training", "fidelity", "copying")


def read_images(files: Sequence[Path]) -> Pixels:
    """`(N, H, W, 3)`, each file decoded now."""
    return np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])


@dataclass(frozen=True)
class Disk:
    """A folder that holds one data set, and the model beside it."""

    folder: Path
    model: str

    @classmethod
    def written(cls, folder: Path, laboratory: Laboratory) -> "Disk":
        """The files of a run: training images as they came, and what scores compare with as the autoencoder gives it.

        Written once, so that the reference loop is not charged for passing real images through the autoencoder.
        """
        disk, training = cls(folder, laboratory.config.model), laboratory.dataset.training
        disk._write("originals", training.pixels())
        for name in SETS:
            disk._write(name, getattr(laboratory.scorer.real, name))
        with disk._table.open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["file_name", "text"])
            writer.writerows(zip(disk.files("originals"), training.captions, strict=True))
        return disk

    @property
    def _table(self) -> Path:
        return self.folder / "captions.csv"

    def files(self, name: str) -> list[Path]:
        """The image files of one set, in order."""
        return sorted((self.folder / name).glob("*.png"))

    def table(self) -> tuple[list[Path], list[str]]:
        """Training files and their captions."""
        with self._table.open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        return [Path(row["file_name"]) for row in rows], [row["text"] for row in rows]

    def real_images(self) -> RealImages:
        """Every real image that scores compare with."""
        sets = [read_images(self.files(name)) for name in SETS]
        return RealImages(*sets, *sets)

    def pipeline(self) -> Any:
        """The pipeline, loaded anew."""
        loaded = StableDiffusionPipeline.from_pretrained(
            model_folder(self.model), dtype=torch.float32, safety_checker=None, requires_safety_checker=False
        )
        loaded.set_progress_bar_config(disable=True)
        for module in (loaded.unet, loaded.vae, loaded.text_encoder):
            module.eval().requires_grad_(False)
        return loaded

    def _write(self, name: str, pixels: Pixels) -> None:
        place = self.folder / name
        place.mkdir(parents=True, exist_ok=True)
        for number, image in enumerate(pixels):
            Image.fromarray(image).save(place / f"{number:05d}.png")
