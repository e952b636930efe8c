"""Every kind of file becomes an upright square of 8-bit RGB."""

import numpy as np
import pytest
from PIL import Image

from memcontrol.data.decoding import decode_image, pixel_digest, reader, square_pixels
from memcontrol.errors import DataError

RAMP = np.array([[0, 257, 32768, 65535]] * 4, dtype=np.uint16)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_is_scaled_to_eight(tmp_path, suffix):
    path = tmp_path / f"deep.{suffix}"
    Image.fromarray(RAMP).save(path)
    pixels = np.asarray(decode_image(path, name="deep"))
    assert pixels.shape == (4, 4, 3)
    assert pixels[0, :, 0].tolist() == [0, 1, 128, 255]


def test_sixteen_bit_pgm_is_scaled_to_eight(tmp_path):
    path = tmp_path / "deep.pgm"
    path.write_bytes(b"P5 4 4 65535\n" + RAMP.astype(">u2").tobytes())
    assert np.asarray(decode_image(path, name="deep"))[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize(
    ("values", "reason"),
    [(np.full((2, 2), 70_000, np.int32), "32-bit"), (np.zeros((2, 2), np.float32), "floating-point")],
)
def test_numbers_without_a_known_range_are_refused(tmp_path, values, reason):
    path = tmp_path / "deep.tif"
    Image.fromarray(values).save(path)
    with pytest.raises(DataError, match=f"deep.tif does not decode .*{reason}"):
        decode_image(path, name="deep.tif")


def test_rotation_in_exif_is_undone(tmp_path):
    image = Image.new("RGB", (8, 4))
    image.paste((255, 255, 255), (0, 0, 2, 4))  # white on the left
    exif = Image.Exif()
    exif[274] = 6  # shown turned clockwise by a quarter
    image.save(tmp_path / "turned.png", exif=exif)
    pixels = np.asarray(decode_image(tmp_path / "turned.png", name="turned"))
    assert pixels.shape == (8, 4, 3)
    assert pixels[0].min() == 255
    assert pixels[-1].max() == 0


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_modes_become_rgb(tmp_path, mode):
    path = tmp_path / "image.tif"
    Image.new("RGB", (4, 4), (255, 255, 255)).convert(mode).save(path)
    image = decode_image(path, name="image")
    assert image.mode == "RGB"
    assert np.asarray(image).min() == 255


def test_a_palette_with_transparency_becomes_rgb(tmp_path):
    Image.new("P", (4, 4)).save(tmp_path / "image.png", transparency=b"\x00\x7f")
    assert decode_image(tmp_path / "image.png", name="image").mode == "RGB"


def test_broken_files_are_named_with_the_way_out(tmp_path):
    whole = tmp_path / "whole.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(whole)
    content = whole.read_bytes()
    for broken in (b"", b"text", content[:2000], content[:-4000] + bytes(4000)):
        with pytest.raises(DataError) as caught:
            decode_image(broken, name="a/b.png")
        message = str(caught.value)
        assert message.startswith("a/b.png does not decode (")
        assert message.endswith("): repair or remove it, or use --bad-images skip")
        assert "\n" not in message
    assert decode_image(content, name="whole").size == (64, 64)


def test_an_image_of_too_many_pixels_is_named_with_the_way_out(tmp_path, monkeypatch):
    Image.new("L", (40, 40)).save(tmp_path / "scan.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 700)
    with pytest.raises(DataError) as caught:
        decode_image(tmp_path / "scan.png", name="scan.png")
    assert str(caught.value) == (
        "scan.png has more than the 1,400 pixels that are read: scale it down, or use --bad-images skip"
    )
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 800)
    assert decode_image(tmp_path / "scan.png", name="scan.png").size == (40, 40)


@pytest.mark.parametrize("size", [(30, 10), (10, 30)])
def test_the_centre_square_is_kept(size):
    pixels = np.zeros((size[1], size[0], 3), dtype=np.uint8)
    if size[0] > size[1]:
        pixels[:, 10:20] = 200
    else:
        pixels[10:20] = 200
    square = square_pixels(Image.fromarray(pixels), 5)
    assert square.shape == (5, 5, 3)
    assert square.dtype == np.uint8
    assert square.min() == square.max() == 200


def test_reading_opens_only_what_is_asked_for():
    opened = []

    def open_image(position):
        opened.append(position)
        return Image.new("RGB", (3, 3), (position, 0, 0))

    read = reader(open_image, 2)
    assert opened == []
    assert read(np.array([7, 3, 7]))[:, 0, 0, 0].tolist() == [7, 3, 7]
    assert opened == [7, 3, 7]
    assert read(np.array([], dtype=np.intp)).shape == (0, 2, 2, 3)


def test_digests_tell_pixels_and_shapes_apart():
    flat = np.zeros((2, 6, 3), dtype=np.uint8)
    assert pixel_digest(flat) == pixel_digest(Image.fromarray(flat))
    assert pixel_digest(flat) != pixel_digest(flat.reshape(6, 2, 3))
    assert pixel_digest(flat) != pixel_digest(flat + 1)
