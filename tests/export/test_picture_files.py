"""Picture files that cannot be read, and what the arguments of a command line mean."""

import errno
import os
import struct
import zlib

import numpy as np
import pytest

from export.pictures import PictureError, find_pictures, read_picture

SHAPE = (4, 6, 3)
RNG = np.random.default_rng(4)


def chunk(kind, content):
    body = kind + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def bomb():
    header = struct.pack(">IIBBBBB", 20000, 20000, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "does not exist: expected a picture, .* check the path"),
        (b"", "is empty: expected a picture, got 0 bytes; copy it again"),
        (b"no picture", "is not a picture that Pillow can read; give a PNG"),
        (bomb(), "is too large: expected at most 178,956,970 pixels.*make it smaller"),
        ("folder", "cannot be opened: Is a directory"),
        ("fifo", "is a pipe or a device: expected a picture; write it into a file first"),
        ("/dev/zero", "is a pipe or a device"),
        # Pillow's reader of this kind has no OSError for it.
        (b"P3 1 1 255 red 0 0", "cannot be read to its end .*: expected a complete picture"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, content, said):
    path = tmp_path / "picture.png"
    if content == "folder":
        path.mkdir()
    elif content == "fifo":
        os.mkfifo(path)
    elif content == "/dev/zero":
        path.symlink_to(content)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(PictureError, match=said) as raised:
        read_picture(path, SHAPE, 255)
    assert str(raised.value).startswith(f"{path} ")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tiff", "a.gif", "a.bmp", "a.webp"])
def test_a_cut_file_names_itself(save, name):
    path = save(RNG.integers(0, 256, (50, 40, 3), dtype=np.uint8), name)
    whole = path.read_bytes()
    for length in range(1, len(whole) * 3 // 4, len(whole) // 23):
        path.write_bytes(whole[:length])
        with pytest.raises(
            PictureError, match=r"cannot be read to its end|not a picture"
        ) as raised:
            read_picture(path, SHAPE, 255)
        assert str(raised.value).startswith(f"{path} ")
        assert "\n" not in str(raised.value)


def test_a_truncated_png_says_what_to_do(save):
    path = save(RNG.integers(0, 256, SHAPE, dtype=np.uint8))
    path.write_bytes(path.read_bytes()[:70])
    with pytest.raises(PictureError, match=r"cannot be read to its end \(.+\): .*copy it again"):
        read_picture(path, SHAPE, 255)


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (np.array([[0.0, 0.5]], np.float32), "has floating-point pixels, .*save it with 8 or 16"),
        (np.array([[-1, 5]], np.int32), "values from -1 to 5: expected 0 to 65535"),
        (np.array([[0, 65536]], np.int32), "values from 0 to 65536: expected 0 to 65535"),
    ],
)
def test_ranges_that_are_not_known(save, pixels, said):
    path = save(pixels, "a.tiff")
    with pytest.raises(PictureError, match=said) as raised:
        read_picture(path, (1, 2, 1), 255)
    assert str(raised.value).startswith(f"{path} ")


@pytest.mark.parametrize("channels", [0, 2, 4])
def test_nets_of_other_channels(save, channels):
    with pytest.raises(ValueError, match=rf"`shape` must end in 1 .*shape=\(4, 6, {channels}\)"):
        read_picture(save(np.zeros(SHAPE, np.uint8)), (4, 6, channels), 255)


@pytest.fixture
def album(tmp_path, monkeypatch):
    """Make a folder of some files the working directory's child, and go there."""
    monkeypatch.chdir(tmp_path)
    names = "b.png", "a.JPG", "c[1].jpeg", ".hidden.png", "notes.txt", "weights.h5", "sub/d.png"
    for name in names:
        path = tmp_path / "album" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "album" / "folder.png").mkdir()
    return tmp_path / "album"


@pytest.mark.parametrize(
    ("argument", "found"),
    [
        ("album", ["album/a.JPG", "album/b.png", "album/c[1].jpeg"]),
        ("album/", ["album/a.JPG", "album/b.png", "album/c[1].jpeg"]),
        ("album/b.png", ["album/b.png"]),
        ("album/notes.txt", ["album/notes.txt"]),
        ("album/c[1].jpeg", ["album/c[1].jpeg"]),
        ("album/*.png", ["album/b.png"]),
        ("album/[ab]*", ["album/a.JPG", "album/b.png"]),
        ("album/**/*.png", ["album/b.png", "album/sub/d.png"]),
        ("missing.png", ["missing.png"]),
        ("", [""]),
    ],
)
def test_what_an_argument_means(album, argument, found):
    assert find_pictures(argument) == found


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        (
            "album/folder.png",
            "^album/folder.png holds no pictures: expected .*name the folder or pattern",
        ),
        ("album/*.bmp", r"^album/\*.bmp matches no file: expected pictures; check the pattern"),
        ("album/sub*", r"^album/sub\* matches no file"),
    ],
)
def test_arguments_that_mean_nothing(album, argument, said):
    with pytest.raises(PictureError, match=said):
        find_pictures(argument)


def test_a_folder_that_cannot_be_listed(album, monkeypatch):
    # Permissions would not stop root.
    def refuse(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(PictureError, match=r"^album cannot be listed: Permission denied"):
        find_pictures("album")
