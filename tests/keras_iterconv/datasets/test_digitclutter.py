"""Digitclutter: its drawing against its description, its folder, and its parts."""

import itertools
import os
import shutil
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage, stats

from keras_iterconv.datasets import (
    digitclutter,
)
from keras_iterconv.datasets.digitclutter import draw_picture, draw_pictures, lay_out, plot_samples

MIDDLE = (256, 256)


def layouts(count, digits=3, seed=0, part="train"):
    """Classes int [count, n] and places int [count, n, 2] of a part."""
    found = [lay_out(seed, digits, part, index) for index in range(count)]
    return np.array([classes for classes, _ in found]), np.array([places for _, places in found])


def drawn(count, **arguments):
    given = {"seed": 0, "digits": 3, "part": "train", "workers": 0, **arguments}
    return list(draw_pictures(count=count, **given))


def same(these, those):
    return all(
        a.tobytes() == b.tobytes() and np.array_equal(x, y)
        for (a, x), (b, y) in zip(these, those, strict=True)
    )


@pytest.mark.parametrize("digits", [2, 5])
def test_middles_are_uniform_and_independent(digits):
    _, places = layouts(4000, digits)
    offsets = places / 512 - 0.5
    half = 0.5 / 512  # Middles lie on whole pixels.
    for axis, spread in enumerate((0.29, 0.19)):
        for place in range(digits):
            values = offsets[:, place, axis]
            assert np.abs(values).max() <= spread + half
            assert np.abs(values).max() > 0.98 * spread
            test = stats.kstest(values, stats.uniform(-spread, 2 * spread).cdf)
            assert test.pvalue > 1e-3
    numbers = np.corrcoef(offsets.reshape(len(offsets), -1).T)
    assert np.abs(numbers - np.eye(2 * digits)).max() < 0.07  # 4.4 standard errors.


def test_digits_are_drawn_without_replacement_in_any_order():
    classes, _ = layouts(9000, 2)
    pairs, counts = np.unique(classes, axis=0, return_counts=True)
    assert pairs.tolist() == [list(pair) for pair in itertools.permutations(range(10), 2)]
    assert stats.chisquare(counts).pvalue > 1e-3
    classes, _ = layouts(1000, 5)
    assert all(len(set(row)) == 5 for row in classes.tolist())
    assert stats.chisquare(np.bincount(classes[:, 4])).pvalue > 1e-3


def draw_glyph(digit):
    """The share of ink of each pixel of the canvas, float [512, 512], of a digit in its middle."""
    path = os.path.join(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans-Bold.ttf")
    font = ImageFont.truetype(path, 384, layout_engine=ImageFont.Layout.BASIC)
    top, bottom = font.getbbox("0", anchor="ls")[1::2]
    canvas = Image.new("L", (512, 512))
    place = (256, 256 - (top + bottom) // 2)
    ImageDraw.Draw(canvas).text(place, str(digit), 255, font, anchor="ms")
    return np.asarray(canvas, float) / 255


@pytest.mark.parametrize("digit", range(10))
def test_the_outline_reaches_ten_pixels_beyond_the_face(digit):
    face = draw_glyph(digit)
    # No stroke is drawn here: each pixel's distance from the face says whether it is white.
    white = ndimage.distance_transform_edt(face < 0.5) <= 10.5
    canvas = np.where(white, 255, 119) * (1 - face)
    expected = canvas.reshape(32, 16, 32, 16).mean(axis=(1, 3))
    picture = draw_picture(np.array([digit]), np.array([MIDDLE]))[..., 0]
    # One pixel more or less changes some cell by ten steps of grey or more.
    assert np.abs(picture - expected).max() < 8


@pytest.mark.parametrize("digits", [2, 3, 4, 5])
def test_a_picture_is_what_pillow_draws_letter_by_letter(digits):
    path = os.path.join(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans-Bold.ttf")
    font = ImageFont.truetype(path, 384, layout_engine=ImageFont.Layout.BASIC)
    top, bottom = font.getbbox("0", anchor="ls")[1::2]
    for index in range(12):
        classes, places = lay_out(7, digits, "test", index)
        canvas = Image.new("L", (512, 512), 119)
        for digit, (x, y) in zip(classes, places.tolist(), strict=True):
            ImageDraw.Draw(canvas).text(
                (x, y - (top + bottom) // 2), str(digit), fill=0, font=font, anchor="ms",
                stroke_width=10, stroke_fill=255,
            )  # fmt: skip
        blocks = np.asarray(canvas, np.float64).reshape(32, 16, 32, 16)
        expected = np.floor(blocks.mean(axis=(1, 3)) + 0.5)
        assert np.array_equal(draw_picture(classes, places)[..., 0], expected)


def test_later_digits_cover_earlier_ones():
    for above, below in itertools.permutations(range(10), 2):
        alone = draw_picture(np.array([above]), np.array([MIDDLE]))
        both = draw_picture(np.array([below, above]), np.array([MIDDLE, MIDDLE]))
        covered = (alone == 0) | (alone == 255)
        assert covered.sum() > 30
        # One step of grey: where the edge shines through by less than that.
        difference = both[covered].astype(int) - alone[covered]
        assert np.abs(difference).max() <= 1


def test_a_digit_is_black_within_white_on_grey():
    picture = draw_picture(np.array([8]), np.array([MIDDLE]))
    assert set(picture[[0, -1]].ravel().tolist()) == {119}
    assert picture.min() == 0
    # A cell is 16 pixels wide and the outline 10, so that no cell is all white.
    assert 180 < picture.max() < 255
    # From the left, the first thing met is the outline, the second the face.
    row = picture[20, :, 0].astype(int)
    first = np.flatnonzero(row != 119)[0]
    assert row[first : first + 2].max() > 180
    assert row[first + 2 : first + 4].min() == 0


def test_digits_are_in_the_middle_on_average():
    for digit in range(10):
        ink = draw_picture(np.array([digit]), np.array([MIDDLE]))[..., 0] != 119
        rows = np.flatnonzero(ink.any(axis=1))
        assert abs((rows[0] + rows[-1]) / 2 - 15.5) <= 0.5, digit
    pictures = np.array([picture[..., 0] for picture, _ in drawn(1500)], float)
    dark = np.maximum(119 - pictures, 0).sum(axis=0)
    middle = [(dark.sum(axis=axis) * np.arange(0.5, 32)).sum() / dark.sum() for axis in (1, 0)]
    assert middle == pytest.approx([16, 16], abs=0.4)


def test_pictures_do_not_depend_on_who_draws_them():
    alone = drawn(23)
    for workers in (1, 3):
        assert same(alone, drawn(23, workers=workers))
    assert same(alone[:9], drawn(9))
    np.random.seed(5)
    assert same(alone, drawn(23))


def test_picture_after_picture_is_the_function_of_its_index():
    for index, (picture, classes) in enumerate(drawn(10, digits=4, part="validation", seed=3)):
        expected, places = lay_out(3, 4, "validation", index)
        assert np.array_equal(classes, expected)
        assert np.array_equal(picture, draw_picture(expected, places))
        assert (picture.shape, picture.dtype, classes.dtype) == ((32, 32, 1), np.uint8, np.int64)


def test_parts_and_seeds_share_no_picture():
    seen = set()
    for seed, part in itertools.product((0, 1, 2**32, 2**64), digitclutter.PARTS):
        classes, places = layouts(300, 3, seed, part)
        seen |= {(*a, *b) for a, b in zip(classes.tolist(), map(np.ravel, places), strict=True)}
    assert len(seen) == 4 * 3 * 300
    # The digits of a picture of five do not start with those of a picture of four.
    fours, fives = layouts(100, 4)[0], layouts(100, 5)[0]
    assert not np.array_equal(fours, fives[:, :4])


@pytest.fixture
def started(monkeypatch):
    """The worker processes that a test starts."""
    processes = []

    class Popen(subprocess.Popen):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            processes.append(self)

    monkeypatch.setattr(subprocess, "Popen", Popen)
    return processes


def test_workers_end_with_the_reader(started):
    pictures = draw_pictures(0, 2, "train", 100_000, workers=2)
    next(pictures)
    assert [process.poll() for process in started] == [None, None]
    pictures.close()
    assert None not in [process.returncode for process in started]


def test_a_worker_that_dies_is_told(monkeypatch, started):
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(RuntimeError, match="generates train images ended with code 1"):
        list(draw_pictures(0, 2, "train", 10, workers=2))
    assert None not in [process.returncode for process in started]


def test_many_pictures_are_drawn_by_workers_and_few_are_not(started):
    pictures = draw_pictures(0, 2, "train", 100)
    next(pictures)
    assert started == []
    pictures = draw_pictures(0, 2, "train", 100_000)
    next(pictures)
    pictures.close()
    assert 1 <= len(started) <= 4


def test_the_sheet_is_a_picture(tmp_path):
    plot_samples(tmp_path / "sheet.png", digits=(2, 5), count=3)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert min(sheet.size) > 200
