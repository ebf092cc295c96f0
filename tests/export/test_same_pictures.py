"""Training and `export.predict` read a picture file as the same image."""

import numpy as np
import pytest
from PIL import Image

from export import pictures
from keras_iterconv.datasets import UnreadablePictureError, read_picture
from keras_iterconv.datasets.picture_files import picture_suffixes, read_header

RNG = np.random.default_rng(5)
COLOURS = RNG.integers(0, 256, (24, 36, 3), np.uint8)
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I", "I;16")


def make(mode):
    if mode == "I;16":
        return Image.fromarray(RNG.integers(0, 2**16, (24, 36)).astype(np.uint16))
    if mode == "I":
        return Image.fromarray(RNG.integers(0, 2**16, (24, 36)).astype(np.int32))
    picture = Image.fromarray(COLOURS)
    if mode in ("LA", "RGBA"):
        picture.putalpha(Image.fromarray(RNG.integers(0, 256, (24, 36), np.uint8)))
    return picture.convert(mode)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(24, 36), (12, 18), (10, 17), (40, 30), (9, 9)])
@pytest.mark.parametrize("mode", MODES)
def test_modes_and_sizes(tmp_path, mode, size, channels):
    path = tmp_path / ("a.tiff" if mode in ("CMYK", "YCbCr", "I") else "a.png")
    make(mode).save(path)
    image = read_picture(path, (*size, channels))
    expected = pictures.read_picture(path, (*size, channels), 255).pixels
    assert (image.dtype, image.shape) == (np.uint8, (*size, channels))
    # Of 16 bits there the fractions are kept.
    tolerance = 0.5 if mode.startswith("I") else 0
    np.testing.assert_allclose(image, expected, atol=tolerance + 1e-4)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.png"
    Image.fromarray(COLOURS).save(path, exif=exif)
    upright = COLOURS if orientation < 5 else COLOURS.swapaxes(0, 1)
    header = read_header(path.read_bytes(), "a")
    assert header[:2] == upright.shape[:2]
    image = read_picture(path, upright.shape)
    assert np.array_equal(image, pictures.read_picture(path, upright.shape, 255).pixels)
    turned = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright,
        6: upright[:, ::-1],
        7: upright[::-1, ::-1],
        8: upright[::-1],
    }
    assert np.array_equal(image, turned[orientation])


def test_the_same_files_are_pictures():
    assert picture_suffixes() == pictures._readable_suffixes()
    assert {".png", ".jpg", ".jpeg", ".gif", ".webp"} <= picture_suffixes()


def test_a_file_that_is_missing(tmp_path):
    with pytest.raises(UnreadablePictureError, match=r"nothing\.png cannot be opened"):
        read_picture(tmp_path / "nothing.png", (8, 8, 3))
