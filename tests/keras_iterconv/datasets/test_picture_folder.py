"""A folder of class folders as a data set: parts, sizes, statistics, and what is refused."""

import os
import shutil
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from keras_iterconv.datasets import load_folder
from tests.support.picture_folders import DARK, LIGHT, make_pixels, write_pictures

PARTS = ("train", "validation", "test")


@pytest.fixture
def folder(tmp_path):
    return write_pictures(tmp_path / "meine Bilder", 10)


def test_each_picture_is_in_one_part(tmp_path):
    """All have one size, so that the pixels are those that were written."""
    folder = write_pictures(tmp_path / "pictures", 30, shapes=((12, 16),))
    data = load_folder(folder)
    assert data.name == "folder:pictures"
    assert data.classes == (DARK, LIGHT)
    assert data.input_shape == (12, 16, 3)
    found = np.concatenate([getattr(data, part).images for part in PARTS])
    labels = np.concatenate([getattr(data, part).labels for part in PARTS])
    written = [make_pixels(number, label, (12, 16)) for label in (0, 1) for number in range(30)]
    key = [*map(bytes, found)]
    assert sorted(key) == sorted(map(bytes, written))
    assert {pixels: int(label) for pixels, label in zip(key, labels, strict=True)} == {
        bytes(pixels): number // 30 for number, pixels in enumerate(written)
    }
    # A fifth of each class, and then a tenth of what is left.
    for part, count in zip(PARTS, (22, 2, 6), strict=True):
        assert np.bincount(getattr(data, part).labels).tolist() == [count, count]
    assert data.skipped == ()


def test_statistics_are_those_of_the_training_part_alone(folder):
    data = load_folder(folder, image_size=(8, 10), test_share=0.5)
    pixels = data.train.images.astype(float)
    np.testing.assert_allclose(data.mean, pixels.mean(axis=(0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(data.std, pixels.std(axis=(0, 1, 2)), rtol=1e-6)
    assert data.mean.tolist() != load_folder(folder, image_size=(8, 10)).mean.tolist()
    unit = load_folder(folder, image_size=(8, 10), pixels="unit")
    assert (unit.mean.tolist(), unit.std.tolist()) == ([0] * 3, [255] * 3)


def test_a_channel_of_one_value_standardises_to_zero(tmp_path):
    for name, colour in (("red", (200, 0, 7)), ("blue", (0, 0, 7))):
        (tmp_path / name).mkdir()
        for number in range(4):
            Image.new("RGB", (8, 8), colour).save(tmp_path / name / f"{number}.png")
    data = load_folder(tmp_path)
    assert data.std[1:].tolist() == [1, 1]
    images, _ = next(iter(data.evaluation_batches("test", 4)))
    assert not np.any(images[..., 1:])
    assert np.isfinite(images).all()


@pytest.mark.parametrize(
    ("shapes", "given", "expected"),
    [
        (((20, 28), (33, 24)), None, (64, 64)),
        (((40, 30),), None, (40, 30)),
        (((129, 20),), None, (64, 64)),
        (((20, 28), (33, 24)), 24, (24, 24)),
        (((20, 28),), (10, 12), (10, 12)),
    ],
)
def test_the_size_of_the_images(tmp_path, shapes, given, expected):
    folder = write_pictures(tmp_path / "a", 4, shapes)
    assert load_folder(folder, image_size=given).input_shape == (*expected, 3)


def test_images_are_grey_where_all_pictures_are(folder):
    for path in folder.rglob("*.png"):
        picture = Image.open(path).convert("L")
        (picture if "3" in path.name else picture.convert("LA")).save(path)
    grey = load_folder(folder)
    assert grey.input_shape == (64, 64, 1)
    Image.open(path).convert("RGB").save(path)
    assert load_folder(folder).input_shape == (64, 64, 3)


def test_every_format_and_what_is_no_picture(folder):
    for number, suffix in enumerate((".JPG", ".jpeg", ".gif", ".webp")):
        Image.fromarray(make_pixels(number, 0)).save(folder / DARK / f"more{suffix}")
    before = load_folder(folder)
    assert sum(len(getattr(before, part)) for part in PARTS) == 24
    (folder / DARK / "notes.txt").write_text("none")
    (folder / DARK / ".hidden.png").write_bytes(b"")
    (folder / ".cache").mkdir()
    (folder / "readme.png").write_bytes(b"")
    (folder / DARK / "deeper.png").mkdir()
    os.mkfifo(folder / DARK / "pipe.png")
    after = load_folder(folder)
    assert (after.sha256, after.skipped) == (before.sha256, ())
    assert np.array_equal(after.train.images, before.train.images)


def test_the_hash_is_of_names_and_contents_and_not_of_the_place(folder, tmp_path):
    first = load_folder(folder)
    copy = shutil.copytree(folder, tmp_path / "elsewhere")
    assert load_folder(copy).sha256 == first.sha256
    path = next((copy / DARK).iterdir())
    path.rename(path.with_name("other.png"))
    renamed = load_folder(copy).sha256
    Image.new("RGB", (5, 5)).save(path.with_name("other.png"))
    assert len({first.sha256, renamed, load_folder(copy).sha256}) == 3


def test_limit_keeps_the_test_part(folder):
    whole, limited = load_folder(folder), load_folder(folder, limit_train=9)
    assert len(limited.train) == 9
    assert len(limited.validation) == 1
    assert np.array_equal(limited.test.images, whole.test.images)
    assert len(load_folder(folder, validation_share=0).validation) == 0


def bomb(path):
    """Write the header of a PNG of 30,000 pixels a side."""
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    chunks = b""
    for kind, content in ((b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")):
        checksum = zlib.crc32(kind + content)
        chunks += struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)


def cut(path):
    whole = path.parent / "whole.jpg"
    Image.fromarray(make_pixels(1, 1, (60, 60))).save(whole)
    content = whole.read_bytes()
    whole.unlink()
    path.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.write_bytes(b""), "is empty: expected a picture, got 0 bytes"),
        (lambda path: path.write_text("hello"), "is not a picture that Pillow can read"),
        (bomb, "is too large: expected at most 178,956,970 pixels"),
        (cut, "cannot be read to its end"),
        (lambda path: path.symlink_to("nowhere"), "cannot be opened: No such file"),
        (lambda path: Image.new("F", (4, 4)).save(path, "TIFF"), "has floating-point pixels"),
    ],
    ids=["empty", "text", "bomb", "cut", "link", "float"],
)
def test_a_broken_picture_is_named_and_left_out(folder, damage, said):
    whole = load_folder(folder)
    damage(folder / LIGHT / "-kaputt ß.jpg")
    with pytest.warns(UserWarning, match=f"left out: .*kaputt ß.jpg {said}.*; see `skipped`"):
        data = load_folder(folder)
    assert len(data.skipped) == 1
    assert data.skipped[0].startswith(f"{folder / LIGHT}/-kaputt ß.jpg {said}")
    assert "\n" not in data.skipped[0]
    # Nothing else is lost.
    assert sum(len(getattr(data, part)) for part in PARTS) == 20
    assert data.classes == whole.classes


def test_16_bits_are_read(folder):
    deep = np.full((64, 64), 257 * 77, np.uint16)
    for path in folder.rglob("*.png"):
        Image.fromarray(deep).save(path)
    data = load_folder(folder)
    assert data.input_shape == (64, 64, 1)
    assert np.unique(data.train.images).tolist() == [77]


def remove_one_class(folder):
    shutil.rmtree(folder / LIGHT)


def empty_one_class(folder):
    shutil.rmtree(folder / LIGHT)
    (folder / LIGHT).mkdir()


def remove_all(folder):
    for name in (DARK, LIGHT):
        shutil.rmtree(folder / name)


def break_all(folder):
    for path in folder.rglob("*.png"):
        path.write_bytes(b"")


def break_one_class(folder):
    for path in (folder / LIGHT).iterdir():
        path.write_bytes(b"")


def keep_one_picture_each(folder):
    for name in (DARK, LIGHT):
        for path in sorted((folder / name).iterdir())[1:]:
            path.unlink()


def name_with_a_line_end(folder):
    (folder / DARK).rename(folder / "two\nlines")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (shutil.rmtree, "that can be read.*No such file"),
        (remove_all, "at least two folders.*holds no folder"),
        (remove_one_class, "at least two folders.*holds one folder, '-dark ones'"),
        (empty_one_class, "'Überhell' holds none"),
        (break_all, "of '-dark ones' none of 10 can, and .*00.png is empty"),
        (break_one_class, "of 'Überhell' none of 10 can, and .*00.png is empty"),
        (keep_one_picture_each, "at least two pictures of a class"),
        (name_with_a_line_end, r"printable names.*two\\nlines"),
    ],
)
def test_what_is_no_data_set_is_told_in_one_line(folder, change, said):
    change(folder)
    with pytest.raises(ValueError, match=f"`path` must .*{said}") as error:
        load_folder(folder)
    assert f"path={str(folder)!r}" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"image_size": 0}, "`image_size`"),
        ({"image_size": (3, 4, 5)}, "`image_size`.*or two"),
        ({"image_size": 5000}, "`image_size` must be at most 4096"),
        ({"test_share": 0}, "`test_share`"),
        ({"test_share": 1.0}, "`test_share`"),
        ({"validation_share": 1.0}, "`validation_share`"),
        ({"limit_train": 1}, "`limit_train` must be from 2"),
        ({"limit_train": 15}, "to 14"),
        ({"pixels": "bytes"}, "`pixels`"),
    ],
)
def test_arguments_out_of_range(folder, given, said):
    with pytest.raises(ValueError, match=said):
        load_folder(folder, **given)


def test_few_pictures_of_a_class(folder):
    """Of three pictures each part has one."""
    for name in (DARK, LIGHT):
        for path in sorted((folder / name).iterdir())[3:]:
            path.unlink()
    data = load_folder(folder)
    for part in PARTS:
        assert sorted(getattr(data, part).labels) == [0, 1]


def test_pictures_in_deeper_folders_are_told(folder):
    before = load_folder(folder)
    for place in ("old", "old/older", ".hidden", "none", "old/.hidden"):
        (folder / DARK / place).mkdir()
        name = "notes.txt" if place == "none" else "a.png"
        Image.new("RGB", (5, 5)).save(folder / DARK / place / name, "PNG")
    with pytest.warns(UserWarning, match="left out: .*a folder in a class folder.*see `skipped`"):
        data = load_folder(folder)
    assert data.skipped == (f"{folder / DARK}/old, a folder in a class folder, with 2 pictures",)
    assert data.sha256 == before.sha256


@pytest.mark.parametrize(
    ("count", "given", "said"),
    [
        (1, {}, "class 'Überhell' from validation and test: it has 1 picture"),
        (2, {}, "class 'Überhell' from validation: it has 2 pictures"),
        (1, {"validation_share": 0}, "class 'Überhell' from test: it has 1 picture"),
        (2, {"validation_share": 0}, None),
        (3, {}, None),
    ],
)
def test_a_class_that_a_part_has_none_of_is_told(folder, count, given, said):
    for path in sorted((folder / LIGHT).iterdir())[count:]:
        path.unlink()
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        data = load_folder(folder, **given)
    assert data.skipped == (() if said is None else (said,))
    assert [str(warning.message) for warning in found] == [
        f"left out: {sentence}; see `skipped`" for sentence in data.skipped
    ]
