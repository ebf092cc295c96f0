"""Where a mark is put, against what is said of how the data sets were made."""

import numpy as np
import pytest
from PIL import Image

from export.preparation import PREPARATIONS, parse_preparation, prepare
from keras_iterconv.datasets import CATALOGUE

MNIST, DIGITS = PREPARATIONS["mnist"], PREPARATIONS["digits"]


@pytest.mark.parametrize("name", PREPARATIONS)
def test_pictures_get_the_background_of_the_data_set(name):
    shape = CATALOGUE[name].input_shape[:2]
    prepared = prepare(Image.new("L", shape, 77), shape, PREPARATIONS[name])
    assert set(np.unique(prepared.pixels)) == {CATALOGUE[name].padding}


def paint(size, boxes, ink=255, ground=0):
    """Return a picture of height and width with (top, left, bottom, right) in ink."""
    pixels = np.full(size, ground, np.uint8)
    for top, left, bottom, right in boxes:
        pixels[top:bottom, left:right] = ink
    return Image.fromarray(pixels)


# A T, heavier at its top.
T = [(100, 200, 140, 300), (140, 240, 300, 260)]


@pytest.mark.parametrize("inverted", [False, True])
def test_a_mark_is_placed_as_in_mnist(inverted):
    colours = (20, 230) if inverted else (230, 20)
    found = prepare(paint((480, 640), T, *colours), (28, 28), MNIST)
    assert (found.inverted, found.has_contrast) == (inverted, True)
    assert found.crop == (200, 100, 300, 300)
    # 100 x 200 by a tenth: 20 rows of 10, bar of 4 rows, stem of 2 columns.
    rows, columns = (np.flatnonzero(found.pixels.any(axis)) for axis in (1, 0))
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (20, 10)
    np.testing.assert_allclose(found.pixels.sum(), 4 * 10 + 16 * 2, rtol=1e-3)
    for axis in (1, 0):
        mass = found.pixels.sum(axis)
        assert abs(np.average(np.arange(28), weights=mass) - 14) <= 0.5


def test_a_picture_without_ink_is_not_inverted():
    # The speck is too small to be ink, and darker than the ground.
    found = prepare(paint((50, 50), [(20, 20, 21, 21)], 0, 255), (28, 28), MNIST)
    assert (found.inverted, found.has_contrast, found.pixels.any()) == (False, False, False)


def test_a_mark_is_placed_as_in_the_digits():
    found = prepare(paint((480, 640), [(100, 200, 420, 440)]), (8, 8), DIGITS)
    expected = np.zeros((8, 8))
    expected[:, 1:7] = 1
    np.testing.assert_array_equal(found.pixels, expected)
    # 20 x 200, by 0.16 to the height of 32, by 0.24 to a width of 4.8: 5 cells of 32.
    narrow = prepare(paint((480, 640), [(100, 200, 300, 220)]), (8, 8), DIGITS).pixels
    assert narrow.sum() * 4 == 32 * 5 / 4


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize(("size", "preparation"), [((28, 28), MNIST), ((8, 8), DIGITS)])
def test_what_is_prepared_stays_as_it_is(size, preparation, inverted):
    once = prepare(paint((90, 90), [(10, 20, 80, 30), (70, 20, 80, 60)]), size, preparation)
    pixels = np.round(once.pixels * 255).astype(np.uint8)
    again = prepare(Image.fromarray(255 - pixels if inverted else pixels), size, preparation)
    assert (again.crop, again.inverted) == (None, inverted)
    np.testing.assert_allclose(again.pixels, pixels / 255, atol=1e-6)


def test_ink_at_the_border_uneven_light_noise_and_specks():
    mark = [(0, 80, 150, 100), (0, 40, 20, 140)]
    plain = prepare(paint((200, 200), mark, 40, 200), (28, 28), MNIST)
    pixels = np.asarray(paint((200, 200), mark, 40, 200), np.float32)
    pixels *= np.linspace(0.7, 1.2, 200)
    pixels += np.random.default_rng(0).normal(0, 3, pixels.shape)
    pixels[180, 20] = 0
    worse = prepare(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), (28, 28), MNIST)
    assert (worse.inverted, worse.crop) == (True, plain.crop) == (True, (40, 0, 140, 150))
    # As much ink, whose centre may be rounded to another pixel.
    np.testing.assert_allclose(worse.pixels.sum(), plain.pixels.sum(), rtol=0.05)


def test_a_thin_stroke_is_not_faint_and_a_large_picture_is_reduced():
    found = prepare(paint((3000, 2000), [(500, 900, 2500, 940)]), (28, 28), MNIST)
    # In pixels of the picture, to the factor by which it was reduced.
    np.testing.assert_allclose(found.crop, (900, 500, 940, 2500), atol=3)
    assert found.pixels.max() == 1


@pytest.mark.parametrize(
    "spoilt",
    [
        {"box": [20]},
        {"box": 20},
        {"box": [0, 20]},
        {"box": [20.0, 20]},
        {"box": [10**9, 20]},
        {"stretch": 0.5},
        {"stretch": float("nan")},
        {"stretch": True},
        {"centre": "middle"},
        {"cells": 0},
        {"more": 1},
    ],
)
def test_what_a_file_says_is_checked(spoilt):
    said = {"box": [20, 20], "stretch": 1, "centre": "mass", "cells": 1}
    assert parse_preparation(said) == MNIST
    assert parse_preparation(said | spoilt) is None
    assert parse_preparation([said]) is None
