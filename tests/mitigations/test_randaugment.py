"""The fourteen operations do what they are named after, and stronger at larger magnitudes."""

import numpy as np
import pytest
from PIL import Image

from memcontrol.errors import MemControlError
from memcontrol.mitigations.randaugment import MOST, OPERATIONS, randaugmented


@pytest.fixture
def photo():
    rows, columns = np.mgrid[0:32, 0:32]
    channels = [40 + 5 * rows, 30 + 5 * columns, 60 + 2 * rows + 3 * columns]
    return np.stack(channels, axis=-1).astype(np.uint8)


def applied(name, photo, level):
    return np.asarray(OPERATIONS[name].applied(Image.fromarray(photo), level)).astype(int)


def test_there_are_the_fourteen_published_operations():
    published = "identity autocontrast equalize rotate solarize color posterize contrast brightness sharpness"
    assert set(OPERATIONS) == {*published.split(), "shear-x", "shear-y", "translate-x", "translate-y"}


@pytest.mark.parametrize("name", sorted(set(OPERATIONS) - {"autocontrast", "equalize"}))
def test_at_no_magnitude_nothing_changes(name, photo):
    photo[0, 0] = 255
    assert np.array_equal(applied(name, photo, 0.0), photo)


@pytest.mark.parametrize("name", sorted(set(OPERATIONS) - {"identity", "autocontrast", "equalize"}))
def test_a_larger_magnitude_changes_more(name, photo):
    photo[::4, ::4] = 250
    little, much = (np.abs(applied(name, photo, level) - photo).mean() for level in (0.25, 1.0))
    assert 0 <= little < much


def test_operations_agree_with_their_arithmetic(photo):
    plain = photo.astype(int)
    assert np.abs(applied("brightness", photo, -0.5) - plain * 0.55).max() <= 1
    assert np.array_equal(applied("solarize", photo, 0.5), np.where(plain < 128, plain, 255 - plain))
    assert np.array_equal(applied("posterize", photo, 1.0), plain // 16 * 16)
    shift = 150 / 331 * 32
    moved = applied("translate-x", photo, 1.0)
    assert np.array_equal(moved[:, : 31 - int(shift)], plain[:, int(shift + 0.5) :][:, : 31 - int(shift)])
    assert (moved[:, -int(shift) :] == 0).all(), "what comes in is black"
    assert np.array_equal(applied("translate-y", np.swapaxes(photo, 0, 1).copy(), 1.0), np.swapaxes(moved, 0, 1))
    sheared = applied("shear-x", photo, 1.0)
    assert np.array_equal(sheared[0], plain[0])
    assert np.array_equal(sheared[20, :20], plain[20, 6:26])
    dull = applied("color", photo, -1.0)
    assert np.ptp(dull, axis=2).mean() < 0.2 * np.ptp(plain, axis=2).mean()
    assert applied("contrast", photo, -1.0).std() < 0.2 * plain.std()
    assert np.abs(applied("rotate", photo, 1.0)[16, 16] - plain[16, 16]).max() <= 5
    assert applied("autocontrast", photo, 1.0).max() == 255
    assert applied("equalize", photo, 1.0)[..., 0].max() == 255


def test_a_signed_operation_goes_both_ways_and_the_generator_decides(photo):
    photo[::4, ::4] = 250
    many = np.repeat(photo[None], 400, axis=0)
    changed = randaugmented(many, operations=1, magnitude=MOST, rng=np.random.default_rng(3))
    assert changed.shape == many.shape
    assert changed.dtype == np.uint8
    brightness = [applied("brightness", photo, sign) for sign in (-1.0, 1.0)]
    assert all(any(np.array_equal(image, one) for image in changed) for one in brightness)
    distinct = len({image.tobytes() for image in changed})
    assert distinct == 5 + 2 * 9, "five have no sign"


def test_the_same_seed_gives_the_same_images(photo):
    many = np.repeat(photo[None], 5, axis=0)
    first, again, other = (
        randaugmented(many, operations=2, magnitude=5, rng=np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_no_operations_change_nothing(photo):
    assert np.array_equal(randaugmented(photo[None], operations=0, magnitude=9, rng=np.random.default_rng(0))[0], photo)


@pytest.mark.parametrize("magnitude", [-1, 31])
def test_a_magnitude_out_of_range_is_refused(photo, magnitude):
    with pytest.raises(MemControlError, match="whole number from 0 to 30"):
        randaugmented(photo[None], operations=1, magnitude=magnitude, rng=np.random.default_rng(0))
