"""Brain MRI: oblique slices through the MNI152 T1 volume that the `nilearn` wheel carries.

One averaged head, so slices are exchangeable and unlimited, and say nothing about any patient.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from memcontrol.data.images import ImageSet, images_from_array
from memcontrol.data.packages import package_file

FILE = ("nilearn", "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz")
"""The package that carries the volume, and where in it."""
FIELD_OF_VIEW_MM = 170.0
MAX_TILT_DEGREES = 25.0
VISIBLE_TILT_DEGREES = 8.0
"""Below this a caption calls a slice straight."""

STREAMS = {"pretraining": 0, "training": 1, "fidelity": 2, "copying": 3, "confirmation": 4}
"""Each use of the source draws from its own random stream, so no slice is drawn for two uses."""

# For each plane: the axis along its normal, the extent of offsets from the centre in mm, the names of low, middle and
# high offsets, and the names of negative and positive tilts about the two in-plane axes.
_PLANES = {
    "sagittal": (
        0,
        46.0,
        ("left", "middle", "right"),
        (("turned left", "turned right"), ("tilted left", "tilted right")),
    ),
    "coronal": (
        1,
        60.0,
        ("back", "middle", "front"),
        (("turned left", "turned right"), ("tilted back", "tilted forward")),
    ),
    "axial": (
        2,
        48.0,
        ("lower", "middle", "upper"),
        (("tilted left", "tilted right"), ("tilted back", "tilted forward")),
    ),
}


@cache
def _volume() -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """The volume in 0 to 1, lightly smoothed against aliasing, and the centre of the head in voxels (1 mm each)."""
    import nibabel
    from scipy.ndimage import gaussian_filter

    path = package_file(*FILE, extra="demo")
    raw = np.asarray(nibabel.load(path).dataobj, dtype=np.float32)  # type: ignore[attr-defined]
    scaled = np.clip((raw - 50.0) / 190.0, 0.0, 1.0)
    inside = np.argwhere(raw > 50)
    return gaussian_filter(scaled, sigma=0.9), (inside.min(axis=0) + inside.max(axis=0)) / 2.0


def _rotation(axis: int, degrees: float) -> NDArray[np.float64]:
    radians = np.deg2rad(degrees)
    matrix = np.eye(3)
    i, j = [k for k in range(3) if k != axis]
    matrix[i, i] = matrix[j, j] = np.cos(radians)
    matrix[i, j], matrix[j, i] = -np.sin(radians), np.sin(radians)
    return matrix


def draw_slice(seed: int, stream: str, index: int, size: int) -> tuple[NDArray[np.uint8], str]:
    """One slice `(size, size)` and its caption, a pure function of the arguments."""
    from scipy.ndimage import map_coordinates

    rng = np.random.default_rng([seed, STREAMS[stream], index])
    plane = ("axial", "coronal", "sagittal")[rng.integers(3)]
    normal, extent, levels, tilts = _PLANES[plane]
    first, second = [k for k in range(3) if k != normal]
    direction, tilt = rng.uniform(0, 2 * np.pi), MAX_TILT_DEGREES * np.sqrt(rng.uniform())
    angles = (tilt * np.cos(direction), tilt * np.sin(direction))
    offset = rng.uniform(-1, 1)
    pitch = FIELD_OF_VIEW_MM * rng.uniform(0.95, 1.05) / size
    shift = rng.uniform(-4, 4, size=2)

    volume, centre = _volume()
    along = (np.arange(size) - (size - 1) / 2) * pitch
    rows, columns = np.meshgrid(-along + shift[0], along + shift[1], indexing="ij")
    points = np.zeros((3, size * size))
    points[first], points[second], points[normal] = columns.ravel(), rows.ravel(), offset * extent
    rotation = _rotation(first, angles[0]) @ _rotation(second, angles[1])
    values = map_coordinates(volume, rotation @ points + centre[:, None], order=1)
    image = np.rint(values.reshape(size, size) * 255).astype(np.uint8)

    level = levels[int(np.digitize(offset, (-1 / 3, 1 / 3)))]
    strongest = int(np.argmax(np.abs(angles)))
    slant = (
        tilts[1 - strongest][int(angles[strongest] > 0)]
        if abs(angles[strongest]) > VISIBLE_TILT_DEGREES
        else "straight"
    )
    return image, f"{plane} brain MRI, {level} level, {slant}"


def draw_slices(count: int, *, seed: int, stream: str, resolution: int) -> ImageSet:
    """The first `count` slices of one stream of one seed."""
    drawn = [draw_slice(seed, stream, index, resolution) for index in range(count)]
    pixels = np.stack([image for image, _ in drawn])
    return images_from_array(
        np.repeat(pixels[..., None], 3, axis=-1),
        [caption for _, caption in drawn],
        keys=[f"brain-{seed}-{stream}-{index}" for index in range(count)],
    )
