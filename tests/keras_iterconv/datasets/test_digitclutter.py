"""Digitclutter: its drawing against its description, its folder, and its parts."""

import errno
import itertools
import logging
import os
import shutil
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage, stats

from keras_iterconv import datasets
from keras_iterconv.datasets import (
    DatasetCorruptedError,
    DatasetError,
    digitclutter,
    digitclutter_builder,
)
from keras_iterconv.datasets.digitclutter import draw_picture, draw_pictures, lay_out, plot_samples
from keras_iterconv.datasets.digitclutter_builder import Digitclutter, make_config
from keras_iterconv.tasks import TASKS
from tests.support.comparisons import one_sentence

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


def build(folder, **arguments):
    builder = Digitclutter(
        config=make_config(**{"digits": 3, "sizes": (30, 5, 4), "seed": 1, **arguments}),
        data_dir=folder,
    )
    builder.download_and_prepare(download_dir=folder / "downloads")
    return builder


def test_the_records_hold_the_pictures_in_their_order(tmp_path):
    builder = build(tmp_path)
    for part, size in (("train", 30), ("validation", 5), ("test", 4)):
        records = list(tfds.as_numpy(builder.as_dataset(split=part)))
        assert len(records) == builder.info.splits[part].num_examples == size
        for index, record in enumerate(records):
            classes, places = lay_out(1, 3, part, index)
            assert record["digits"].tolist() == classes.tolist()
            assert np.flatnonzero(record["label"]).tolist() == sorted(classes)
            assert record["label"].sum() == 3
            assert np.array_equal(record["image"], draw_picture(classes, places))


def test_a_seed_repeats_every_byte(tmp_path):
    seeds = {"a": 1, "b": 1, "c": 2}
    folders = [build(tmp_path / name, seed=seed).data_path for name, seed in seeds.items()]
    a, b, c = (
        {path.name: path.read_bytes() for path in folder.glob("*tfrecord*")} for folder in folders
    )
    assert len(a) == 3
    assert a == b
    assert not any(a[name] == c[name] for name in a)


def test_every_data_set_has_its_own_name():
    assert [config.name for config in Digitclutter.BUILDER_CONFIGS] == ["n2", "n3", "n4", "n5"]
    assert make_config(4) is Digitclutter.BUILDER_CONFIGS[2]
    assert make_config(4).sizes == (100_000, 10_000, 10_000)
    others = [(2, (9, 9, 9), 0), (2, (99, 9, 9), 0), (2, (9, 9, 9), 1), (6, (9, 9, 9), 0), (4,)]
    assert len({make_config(*arguments).name for arguments in others}) == len(others)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"digits": 0}, "`digits` must be from 1 to 10. Received: digits=0"),
        ({"digits": 11}, "`digits` must be from 1 to 10. Received: digits=11"),
        (
            {"sizes": (5, 5)},
            r"`sizes` must be three integers of at least 1. Received: sizes=\(5, 5\)",
        ),
        ({"sizes": (5, 0, 5)}, "`sizes` must be three integers of at least 1"),
        ({"seed": -1}, "`seed` must be an integer of at least 0. Received: seed=-1"),
    ],
)
def test_a_data_set_that_cannot_be_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_config(**{"digits": 3, **arguments})


def test_loading_is_quiet_but_for_the_bars(tiny_digitclutter, capfd, caplog, request):
    # absl's logger does not hand its records on to the root logger, where caplog listens.
    logger = logging.getLogger("absl")
    logger.addHandler(caplog.handler)
    request.addfinalizer(lambda: logger.removeHandler(caplog.handler))
    datasets.load("digitclutter3", limit_train=32)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert capfd.readouterr().out == ""
    assert [path.name for path in tiny_digitclutter.iterdir()] == ["digitclutter"]


def test_loaded_parts_are_the_builders_own(tiny_digitclutter):
    data = datasets.load("digitclutter3")
    for part, size in (("train", 96), ("validation", 12), ("test", 20)):
        split = getattr(data, part)
        assert len(split) == size
        assert (split.images.dtype, split.labels.dtype) == (np.uint8, np.int32)
        for index, (picture, classes) in enumerate(drawn(size, part=part)):
            assert np.array_equal(split.images[index], picture)
            assert np.flatnonzero(split.labels[index]).tolist() == sorted(classes)
    assert data.task is TASKS[datasets.CATALOGUE["digitclutter3"].task] is TASKS["label_sets"]
    assert data.input_shape == (32, 32, 1)
    assert (data.classes, data.scale) == (tuple("0123456789"), 255)
    assert data.mean == pytest.approx(data.train.images.mean(dtype=float), rel=1e-6)


def test_a_data_set_is_drawn_once(tiny_digitclutter, monkeypatch):
    first = datasets.load("digitclutter2", limit_train=32)
    monkeypatch.setattr(digitclutter_builder, "draw_pictures", None)
    again = datasets.load("digitclutter2", limit_train=32)
    assert np.array_equal(first.train.images, again.train.images)


def test_a_limit_draws_no_more_than_it_needs(tiny_digitclutter):
    limited = datasets.load("digitclutter3", limit_train=80)
    (folder,) = (tiny_digitclutter / "digitclutter").glob("n3-*")
    assert folder.name == "n3-80-10-20-seed0"
    assert [len(p) for p in (limited.train, limited.validation, limited.test)] == [80, 10, 20]
    whole = datasets.load("digitclutter3")
    for part, size in (("train", 80), ("validation", 10), ("test", 20)):
        first = getattr(whole, part).images[:size]
        assert np.array_equal(getattr(limited, part).images, first)


def test_a_limit_reads_the_whole_data_set_where_it_is_there(tiny_digitclutter, monkeypatch):
    whole = datasets.load("digitclutter3")
    monkeypatch.setattr(digitclutter_builder, "draw_pictures", None)
    limited = datasets.load("digitclutter3", limit_train=32)
    assert [len(p) for p in (limited.train, limited.validation, limited.test)] == [32, 4, 20]
    assert np.array_equal(limited.train.labels, whole.train.labels[:32])


@pytest.mark.parametrize("limit", [9, 100_001])
def test_a_limit_out_of_range_is_refused_before_anything_is_drawn(tiny_digitclutter, limit):
    with pytest.raises(ValueError, match=f"`limit_train` must be at .*limit_train={limit}"):
        datasets.load("digitclutter3", limit_train=limit)
    assert not tiny_digitclutter.exists()


def test_a_folder_that_cannot_be_written_is_told_in_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "file"))
    with pytest.raises(DatasetError) as error:
        datasets.load("digitclutter3", limit_train=10)
    text = one_sentence(error)
    for part in ("'digitclutter3'", str(tmp_path / "file"), "TFDS_DATA_DIR"):
        assert part in text


def stopping(error):
    """Return a drawing that gets to its fifth picture."""

    def draw(*args):
        yield from itertools.islice(draw_pictures(*args), 5)
        raise error

    return draw


@pytest.mark.parametrize(
    ("stop", "shown"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), DatasetError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_a_drawing_that_stops_leaves_nothing_and_can_start_again(
    tiny_digitclutter, monkeypatch, stop, shown
):
    with monkeypatch.context() as patched:
        patched.setattr(digitclutter_builder, "draw_pictures", stopping(stop))
        with pytest.raises(shown) as error:
            datasets.load("digitclutter3")
    if shown is DatasetError:
        assert "(No space left on device)" in one_sentence(error).replace("[Errno 28] ", "")
    assert [path.name for path in (tiny_digitclutter / "digitclutter").iterdir()] == [".config"]
    assert len(datasets.load("digitclutter3").train) == 96


def test_what_a_killed_drawing_left_is_no_hindrance(tiny_digitclutter):
    name = make_config(3, digitclutter_builder.SIZES).name
    left = tiny_digitclutter / "digitclutter" / name / f"incomplete.ABCDEF_{Digitclutter.VERSION}"
    left.mkdir(parents=True)
    (left / "digitclutter-train.tfrecord-00000-of-00001").write_bytes(b"half")
    assert len(datasets.load("digitclutter3").train) == 96


def test_images_of_an_older_version_are_not_read(tiny_digitclutter, monkeypatch):
    def draw_white(seed, digits, part, count):
        for _, classes in draw_pictures(seed, digits, part, count):
            yield np.full((32, 32, 1), 255, np.uint8), classes

    with monkeypatch.context() as patched:
        patched.setattr(Digitclutter, "VERSION", tfds.core.Version("1.0.0"))
        patched.setattr(digitclutter_builder, "draw_pictures", draw_white)
        old = datasets.load("digitclutter3")
    new = datasets.load("digitclutter3")
    assert (old.test.images == 255).all()
    assert (new.test.images < 255).any()
    assert str(Digitclutter.VERSION) in Digitclutter.RELEASE_NOTES


def test_a_data_set_that_another_process_finished_first_is_taken(tiny_digitclutter, monkeypatch):
    prepare = Digitclutter.download_and_prepare

    def beaten(self, **arguments):
        prepare(self, **arguments)
        raise OSError("Directory not empty")

    monkeypatch.setattr(Digitclutter, "download_and_prepare", beaten)
    assert len(datasets.load("digitclutter3").train) == 96


@pytest.mark.parametrize("file", ["*train.tfrecord*", "dataset_info.json"])
def test_damage_is_told_in_one_sentence(tiny_digitclutter, file):
    datasets.load("digitclutter3", limit_train=32)
    (path,) = tiny_digitclutter.glob(f"digitclutter/n3-*/{Digitclutter.VERSION}/{file}")
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(DatasetCorruptedError) as error:
        datasets.load("digitclutter3", limit_train=32)
    text = one_sentence(error)
    assert str(path.parents[1]) in text
    assert "delete that folder" in text
