"""Image files to pixels: any file that Pillow reads becomes an upright, square, 8-bit RGB image."""

from __future__ import annotations

import hashlib
import io
import struct
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from memcontrol.data.images import Indices, Pixels
from memcontrol.errors import DataError, first_line

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".tif", ".tiff", ".webp")
"""What counts as an image in a folder without metadata."""

_SIXTEEN_BIT_STEP = 257  # 65535 / 255
_UNDECODABLE = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error)


def decode_image(source: Path | bytes, *, name: str) -> Image.Image:
    """An image file, or its bytes, as upright 8-bit RGB at its own size.

    Sixteen-bit greyscale is divided by 257, so 65535 becomes 255 whatever the image's brightest pixel: images keep
    their brightness relative to one another, and 12-bit values that were never scaled up stay dark.

    Raises:
        DataError: the file does not decode; the message has `name` and how to skip it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd EXIF and palettes that it then reads all the same
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
                return _to_rgb(ImageOps.exif_transpose(image))
    except Image.DecompressionBombError as error:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise DataError(
            f"{name} has more than the {most:,} pixels that are read: scale it down, or use --bad-images skip"
        ) from error
    except _UNDECODABLE as error:
        why = "not an image" if "cannot identify" in str(error) else first_line(error) if str(error) else "broken file"
        raise DataError(f"{name} does not decode ({why}): repair or remove it, or use --bad-images skip") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("pixels are floating-point numbers, expected 8 or 16 bit")
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("pixels are 32-bit numbers, expected 8 or 16 bit")
        image = Image.fromarray(np.rint(values / _SIXTEEN_BIT_STEP).astype(np.uint8))
    return image.convert("RGB")


def square_pixels(image: Image.Image, resolution: int) -> NDArray[np.uint8]:
    """The centre square of an RGB image, resized to `(resolution, resolution, 3)`."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    return np.asarray(square.resize((resolution, resolution), Image.Resampling.LANCZOS))


def reader(open_image: Callable[[int], Image.Image], resolution: int) -> Callable[[Indices], Pixels]:
    """An `ImageSet.read` that opens each image when it is asked for and keeps none."""

    def read(positions: Indices) -> Pixels:
        pixels = np.empty((len(positions), resolution, resolution, 3), dtype=np.uint8)
        for row, position in enumerate(positions):
            pixels[row] = square_pixels(open_image(int(position)), resolution)
        return pixels

    return read


def pixel_digest(image: Image.Image | NDArray[np.uint8]) -> str:
    """A hash of pixels and shape: equal for exact copies alone, whatever their file names and formats."""
    pixels = np.ascontiguousarray(image)
    return hashlib.blake2b(f"{pixels.shape}".encode() + pixels.tobytes(), digest_size=16).hexdigest()
