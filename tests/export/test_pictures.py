"""Pictures of every kind against the pixels that were written."""

import struct

import numpy as np
import pytest
from PIL import Image

from export.pictures import read_picture

SHAPE = (4, 6, 3)
GREY = (4, 6, 1)
RNG = np.random.default_rng(3)
COLOURS = RNG.integers(0, 256, SHAPE, dtype=np.uint8)
GREYS = RNG.integers(0, 256, GREY[:2], dtype=np.uint8)


@pytest.mark.parametrize("scale", [255, 16, 1])
@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tiff", "a.ppm", "a.webp"])
def test_pixels_are_those_written(save, name, scale):
    options = {"lossless": True} if name == "a.webp" else {}
    picture = read_picture(save(COLOURS, name, **options), SHAPE, scale)
    assert picture.pixels.dtype == np.float32
    assert picture.resized_from is None
    np.testing.assert_allclose(picture.pixels, COLOURS * (scale / 255), rtol=1e-6)


@pytest.mark.parametrize("scale", [16, 255, 3])
def test_the_ends_of_the_scale_are_exact(save, scale):
    image = np.array([[0, 255]], np.uint8)
    pixels = read_picture(save(image), (1, 2, 1), scale).pixels
    assert pixels.ravel().tolist() == [0, scale]


def test_colour_to_grey_and_grey_to_colour(save):
    grey = read_picture(save(COLOURS), GREY, 255).pixels
    assert grey.shape == GREY
    np.testing.assert_allclose(grey[..., 0], COLOURS @ [0.299, 0.587, 0.114], atol=0.51)
    three = read_picture(str(save(GREYS)), SHAPE, 255).pixels
    np.testing.assert_array_equal(three, np.stack([GREYS] * 3, axis=2))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("dtype", "name"), [(np.uint16, "a.png"), (np.uint16, "a.tiff"), (np.int32, "a.tiff")]
)
def test_grey_of_16_bits_is_scaled(save, dtype, name, channels):
    deep = RNG.integers(0, 2**16, GREY[:2]).astype(dtype)
    deep[0, :2] = 0, 65535
    pixels = read_picture(save(deep, name), (*GREY[:2], channels), 16).pixels
    for channel in np.moveaxis(pixels, 2, 0):
        np.testing.assert_allclose(channel, deep / 65535 * 16, rtol=1e-6)


def test_big_endian_16_bits(save):
    image = Image.frombytes("I;16B", (2, 1), struct.pack(">HH", 257, 65535))
    pixels = read_picture(save(image, "a.tiff"), (1, 2, 1), 255).pixels
    assert pixels.ravel().tolist() == [1, 255]


def test_grey_of_16_bits_is_resized_without_a_clip(save):
    deep = RNG.integers(0, 2**16, (8, 12)).astype(np.uint16)
    picture = read_picture(save(deep), GREY, 255)
    boxes = deep.reshape(4, 2, 6, 2).mean(axis=(1, 3)) / 257
    np.testing.assert_allclose(picture.pixels[..., 0], boxes, rtol=1e-5)


def test_modes_that_are_converted(save):
    black_white = GREYS > 127
    pixels = read_picture(save(black_white), GREY, 16).pixels
    np.testing.assert_array_equal(pixels[..., 0], black_white * 16)

    indices = RNG.integers(0, 4, GREY[:2], dtype=np.uint8)
    palette = RNG.integers(0, 256, (4, 3), dtype=np.uint8)
    image = Image.fromarray(indices)
    image.putpalette(palette.tobytes())
    np.testing.assert_array_equal(read_picture(save(image), SHAPE, 255).pixels, palette[indices])

    ink = RNG.integers(0, 256, (*GREY[:2], 4), dtype=np.uint8)
    image = Image.frombytes("CMYK", (6, 4), ink.tobytes())
    cmy, key = (255.0 - ink[..., :3]), 1 - ink[..., 3:] / 255
    pixels = read_picture(save(image, "a.tiff"), SHAPE, 255).pixels
    np.testing.assert_allclose(pixels, cmy * key, atol=1.01)


@pytest.mark.parametrize(("low", "high", "ground"), [(0, 120, 255), (136, 256, 0)])
def test_alpha_lies_over_what_is_far_from_it(save, low, high, ground):
    colours = RNG.integers(low, high, SHAPE, dtype=np.uint8)
    alpha = RNG.integers(0, 256, (*GREY[:2], 1), dtype=np.uint8)
    alpha[0, :2, 0] = 0, 255
    # What a picture has where nothing of it is visible does not count.
    colours[alpha[..., 0] == 0] = ground
    mixed = colours * (alpha / 255) + ground * (1 - alpha / 255)
    pixels = read_picture(save(np.concatenate([colours, alpha], axis=2)), SHAPE, 255).pixels
    np.testing.assert_allclose(pixels, mixed, atol=1.01)
    grey = np.stack([colours[..., 0], alpha[..., 0]], axis=2)
    pixels = read_picture(save(grey), GREY, 255).pixels
    np.testing.assert_allclose(pixels[..., 0], mixed[..., 0], atol=1.01)


def test_a_transparent_colour(save):
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    pixels = read_picture(save(image, transparency=1), (1, 3, 3), 255).pixels
    assert pixels.tolist() == [[[10, 20, 30], [255, 255, 255], [70, 80, 90]]]
    for visible, ground in ((8, 255), (200, 0)):
        path = save(np.array([[7, visible]], np.uint8), transparency=7)
        assert read_picture(path, (1, 2, 1), 255).pixels.ravel().tolist() == [ground, visible]
        deep = np.array([[257 * 7, 257 * visible]], np.uint16)
        path = save(deep, transparency=257 * 7)
        assert read_picture(path, (1, 2, 1), 255).pixels.ravel().tolist() == [ground, visible]


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.transpose(1, 0, 2)),
        (6, lambda a: np.rot90(a, -1)),
        (8, lambda a: np.rot90(a)),
    ],
)
def test_a_photo_is_upright(save, orientation, upright):
    exif = Image.Exif()
    exif[0x0112] = orientation
    expected = upright(COLOURS)
    path = save(COLOURS, exif=exif)
    picture = read_picture(path, expected.shape, 255)
    np.testing.assert_array_equal(picture.pixels, expected)
    assert picture.resized_from is None
    height, width = expected.shape[:2]
    larger = read_picture(path, (2 * height, 2 * width, 3), 255)
    assert larger.resized_from == (width, height)


def test_damaged_metadata_leave_the_picture(save):
    path = save(COLOURS, exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff")
    np.testing.assert_array_equal(read_picture(path, SHAPE, 255).pixels, COLOURS)


def test_whole_factors_average_boxes(save):
    large = RNG.integers(0, 256, (12, 18, 3), dtype=np.uint8)
    picture = read_picture(save(large), SHAPE, 255)
    assert (picture.resized_from, picture.crop) == ((18, 12), None)
    boxes = large.reshape(4, 3, 6, 3, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(picture.pixels, boxes, atol=1.01)


@pytest.mark.parametrize(("size", "crop"), [((12, 30), (6, 0, 24, 12)), ((21, 18), (0, 4, 18, 16))])
def test_the_middle_of_other_proportions_is_read(save, size, crop):
    large = RNG.integers(0, 256, (*size, 3), dtype=np.uint8)
    picture = read_picture(save(large), SHAPE, 255)
    assert (picture.resized_from, picture.crop) == (size[::-1], crop)
    middle = large[crop[1] : crop[3], crop[0] : crop[2]].reshape(4, 3, 6, 3, 3)
    np.testing.assert_allclose(picture.pixels, middle.mean(axis=(1, 3)), atol=1.01)


def triangles(small, large):
    """Return the matrix of an antialiased bilinear filter, `[small, large]`."""
    factor = large / small
    centres = (np.arange(small)[:, None] + 0.5) * factor
    distance = np.abs(np.arange(large) + 0.5 - centres) / max(factor, 1)
    weights = np.maximum(1 - distance, 0)
    return weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("size", [(9, 17), (2, 3), (5, 6), (4, 13)])
def test_other_factors_are_antialiased(save, size):
    image = RNG.integers(0, 256, size, dtype=np.uint8)
    picture = read_picture(save(image), GREY, 255)
    assert picture.resized_from == (size[1], size[0])
    left, top, right, bottom = picture.crop or (0, 0, *size[::-1])
    # The net's proportion, to half a pixel.
    assert abs((right - left) / 6 * 4 - (bottom - top)) <= 0.5
    middle = image[top:bottom, left:right]
    expected = triangles(4, bottom - top) @ middle @ triangles(6, right - left).T
    np.testing.assert_allclose(picture.pixels[..., 0], expected, atol=1.51)


def test_the_first_frame_is_read(save):
    frames = [Image.fromarray(np.full(GREY[:2], value, np.uint8)) for value in (9, 200)]
    path = save(frames[0], "a.gif", save_all=True, append_images=frames[1:])
    assert (read_picture(path, GREY, 255).pixels == 9).all()
