"""Picture files as images for a model, in the way in which `export.predict` reads them.

`export.pictures` does the same without TensorFlow, which the import of this package loads; a test
compares the two.
"""

import io
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, ImageStat, UnidentifiedImageError

from keras_iterconv._support.errors import CorrectableError

# Pillow also logs some of the errors that it raises, and Python prints logs without a handler.
logging.getLogger("PIL").addHandler(logging.NullHandler())

# Pillow reads the headers of these formats, but cannot decode their contents.
_NEVER_DRAWN = {"BUFR", "GRIB", "HDF5", "MPEG", "WMF"}
# 65535 / 255: from the range of 16 bits to that of 8.
_SIXTEEN_TO_EIGHT_BITS = 257
_GREY_MODES = ("1", "L", "LA", "La")
# The tag of EXIF and its values for pictures that lie on their side.
_ORIENTATION, _ON_ITS_SIDE = 0x0112, (5, 6, 7, 8)


class UnreadablePictureError(CorrectableError, ValueError):
    """The error for a file that cannot be read as a picture; the message is one sentence.

    Example:
        >>> ki.datasets.read_picture("no_picture.png", (8, 8, 1))
        Traceback (most recent call last):
            ...
        keras_iterconv.datasets.picture_files.UnreadablePictureError: no_picture.png cannot be...

    See also:
        `datasets.read_picture`, which raises it.
    """


class PictureHeader(NamedTuple):
    """What the header of a picture file says.

    Attributes:
        height: Height in pixels, upright.
        width: Width in pixels, upright.
        is_grey: Whether the picture has no colours.
    """

    height: int
    width: int
    is_grey: bool


@cache
def picture_suffixes() -> frozenset[str]:
    """Return the suffixes of the files that Pillow can decode, such as `.png`, in lower case."""
    suffixes = Image.registered_extensions()
    drawn = (s for s, kind in suffixes.items() if kind in Image.OPEN and kind not in _NEVER_DRAWN)
    return frozenset(drawn)


def read_header(content: bytes, name: str) -> PictureHeader:
    """Return the size of a picture and whether it is grey, without decoding it.

    Args:
        content: Content of the file.
        name: Name of the file for messages.

    Raises:
        UnreadablePictureError: The content is no picture, or one of too many pixels.
    """
    with _opened(content, name) as file:
        width, height = file.size
        if file.getexif().get(_ORIENTATION) in _ON_ITS_SIDE:
            width, height = height, width
        is_grey = file.mode in _GREY_MODES or file.mode.startswith("I")
    return PictureHeader(height, width, is_grey)


def read_picture(path: str | os.PathLike, shape: tuple[int, int, int]) -> np.ndarray:
    """Return a picture file as a raw image, read as the pictures of a folder are.

    The first frame is read, upright as its EXIF orientation says. Grey of 16 bits is scaled from
    0..65535 to 0..255. Transparent parts are shown over black or white, whichever is farther from
    the mean of what is visible. Colour becomes grey by ITU-R 601. If the aspect ratio differs, the
    largest centred part of the right one is used. It is averaged over boxes if both sides shrink by
    integer factors, and otherwise resized by Pillow's bilinear filter, which avoids aliasing.

    Args:
        path: The file.
        shape: Shape (H, W, C) of the image; C is 1 for grey or 3 for RGB.

    Returns:
        The image, uint8 [H, W, C].

    Raises:
        UnreadablePictureError: The file is missing, empty, damaged or no picture, has
            floating-point pixels, or is so large that it could be a decompression bomb.

    Example:
        >>> keras.utils.save_img("grey.png", np.full((16, 32, 3), 200), scale=False)
        >>> image = ki.datasets.read_picture("grey.png", (8, 8, 1))
        >>> image.shape, int(image[0, 0, 0])
        ((8, 8, 1), 200)

    See also:
        `datasets.load_folder`; `Preprocessing`, which standardises what it returns.
    """
    return decode_picture(read_content(path), shape, os.fspath(path))


def read_content(path: str | os.PathLike) -> bytes:
    """Return the content of a file.

    Raises:
        UnreadablePictureError: The file cannot be opened.
    """
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise UnreadablePictureError(
            f"{os.fspath(path)} cannot be opened: {error.strerror}"
        ) from error


def decode_picture(content: bytes, shape: tuple[int, int, int], name: str) -> np.ndarray:
    """Return the content of a picture file as a raw image; see `read_picture`.

    Args:
        content: Content of the file.
        shape: Shape (H, W, C) of the image; C is 1 or 3.
        name: Name of the file for messages.

    Returns:
        The image, uint8 [H, W, C].

    Raises:
        UnreadablePictureError: See `read_picture`.
    """
    height, width, channels = shape
    with _opened(content, name) as file:
        image = _to_eight_bits(ImageOps.exif_transpose(file), name)
        if image.mode == "RGB" and channels == 1:
            image = image.convert("L")
        pixels = np.asarray(_resize(image, width, height))
    if pixels.dtype != np.uint8:  # Grey of 16 bits.
        pixels = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    return np.repeat(pixels[:, :, None], channels, axis=2) if pixels.ndim == 2 else pixels


@contextmanager
def _opened(content: bytes, name: str) -> Iterator[Image.Image]:
    """Open a picture; errors become `UnreadablePictureError`.

    Pillow's warnings go where all of the program's go. Pictures are decoded in several threads, and
    a filter of warnings counts for all threads of a program.
    """
    try:
        with Image.open(io.BytesIO(content)) as file:
            yield file
    except UnreadablePictureError:
        raise
    # Pillow's readers raise different exceptions: OSError, SyntaxError, struct.error, KeyError.
    except Exception as error:
        raise UnreadablePictureError(f"{name} {_reason(content, error)}") from error


def _reason(content: bytes, error: Exception) -> str:
    if not content:
        return "is empty: expected a picture, got 0 bytes"
    if isinstance(error, UnidentifiedImageError):
        return "is not a picture that Pillow can read"
    if isinstance(error, Warning):
        return f"is not read, since warnings are errors here ({error})"
    if isinstance(error, Image.DecompressionBombError):
        return f"is too large: expected at most {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels"
    return f"cannot be read to its end ({' '.join(str(error).split()) or type(error).__name__})"


def _resize(image: Image.Image, width: int, height: int) -> Image.Image:
    """Return the largest centred part of the right aspect ratio, resized."""
    if image.size == (width, height):
        return image
    factor = min(image.width / width, image.height / height)
    part = max(round(width * factor), 1), max(round(height * factor), 1)
    left, top = (image.width - part[0]) // 2, (image.height - part[1]) // 2
    # At non-integer factors the boxes would cover different numbers of pixels.
    integer_factors = part[0] % width == 0 and part[1] % height == 0
    resample = Image.Resampling.BOX if integer_factors else Image.Resampling.BILINEAR
    # Cropped first: `resize` with a box would also use pixels just outside of the box.
    return image.crop((left, top, left + part[0], top + part[1])).resize((width, height), resample)


def _to_eight_bits(image: Image.Image, name: str) -> Image.Image:
    """Return a picture in mode L, RGB or F, from 0 to 255, without transparency."""
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.float32)
        low, high = values.min(), values.max()
        if low < 0 or high > 65535:
            raise UnreadablePictureError(
                f"{name} has pixel values from {low:g} to {high:g}: expected 0 to 65535"
            )
        if "transparency" in image.info:
            clear = values == image.info["transparency"]
            values[clear] = 65535 if values[~clear].sum() < 65535 / 2 * (~clear).sum() else 0
        return Image.fromarray(values / _SIXTEEN_TO_EIGHT_BITS)
    if image.mode == "F":
        raise UnreadablePictureError(
            f"{name} has floating-point pixels, whose range is not known: expected integers"
        )
    if image.has_transparency_data:
        image = image.convert("RGBA")
        over_black, over_white = (
            Image.alpha_composite(Image.new("RGBA", image.size, ground), image).convert("RGB")
            for ground in ("black", "white")
        )
        # The mean over black is the mean of the visible parts times the mean opacity.
        brightness = ImageStat.Stat(over_black.convert("L")).mean[0]
        opacity = ImageStat.Stat(image.getchannel("A")).mean[0]
        return over_white if brightness < opacity / 2 else over_black
    return image if image.mode in ("L", "RGB") else image.convert("RGB")
