"""Search for image files, and their conversion to the images that a model expects."""

import glob
import logging
import os
import warnings
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps, ImageStat, UnidentifiedImageError

from .inputs import is_stream
from .preparation import Preparation, prepare

# Pillow also logs some of the errors that it raises, and Python prints logs without a handler.
logging.getLogger("PIL").addHandler(logging.NullHandler())

# Pillow reads the headers of these formats, but cannot decode their contents.
_NEVER_DRAWN = {"BUFR", "GRIB", "HDF5", "MPEG", "WMF"}

# 65535 / 255: from the range of 16 bits to that of 8.
_SIXTEEN_TO_EIGHT_BITS = 257


class PictureError(Exception):
    """Error of a file that cannot be read as a picture; the message names the file and a remedy."""


class Picture(NamedTuple):
    """A picture file as an image for a model.

    Attributes:
        pixels: float32 `[H, W, C]`, from 0 to the `scale` of the model's data set.
        resized_from: Original width and height in pixels, upright; None if it was not resized.
        crop: Left, top, right and bottom in pixels of the part that is used; None for the whole.
        inverted: Whether dark and light were exchanged.
        has_contrast: False if no ink is found for a model of digits; `pixels` are then background.
    """

    pixels: np.ndarray
    resized_from: tuple[int, int] | None
    crop: tuple[int, int, int, int] | None = None
    inverted: bool = False
    has_contrast: bool = True


def find_pictures(argument: str) -> list[str]:
    """Return the files that a command-line argument names.

    Args:
        argument: A file; a folder, for the pictures directly in it, sorted; or a glob pattern that
            the shell has not expanded, for the matching files, sorted (`**` for folders of any
            depth). In a folder, pictures are the files with a suffix that Pillow can read. Hidden
            files are left out, as by a pattern.

    Returns:
        Paths, at least one. A file is not opened, and need not exist.

    Raises:
        PictureError: A folder holds no picture or cannot be listed, or a pattern matches no file.
    """
    if os.path.isdir(argument):
        try:
            names = sorted(os.listdir(argument))
        except OSError as error:
            raise PictureError(f"{argument} cannot be listed: {error.strerror}") from error
        suffixes = _readable_suffixes()
        files = [
            os.path.join(argument, name)
            for name in names
            if os.path.splitext(name)[1].lower() in suffixes and not name.startswith(".")
        ]
        # A dangling link is kept, so that reading it reports the error.
        files = [file for file in files if not os.path.isdir(file)]
        if not files:
            raise PictureError(
                f"{argument} holds no pictures: expected files such as .png or .jpg directly in "
                "it; name the folder or pattern of the pictures"
            )
        return files
    # A file's name may contain the special characters of a pattern.
    if os.path.exists(argument) or not glob.has_magic(argument):
        return [argument]
    files = [file for file in sorted(glob.glob(argument, recursive=True)) if os.path.isfile(file)]
    if not files:
        raise PictureError(f"{argument} matches no file: expected pictures; check the pattern")
    return files


def read_picture(
    path: str | os.PathLike,
    shape: tuple[int, int, int],
    scale: float,
    preparation: Preparation | None = None,
    invert: str = "auto",
) -> Picture:
    """Return a picture file as an image in the size, the channels and the scale of a model.

    The first frame is read, upright as its EXIF orientation says. Grey of 16 bits is scaled from
    0..65535 to 0..255. Transparent parts are shown over black or white, whichever is farther from
    the mean of what is visible. Colour profiles are not applied. Colour becomes grey by ITU-R 601
    (0.299 R + 0.587 G + 0.114 B); grey becomes three equal channels.

    If the aspect ratio differs from the model's, the largest centred part of the right aspect ratio
    is used. It is averaged over boxes if both sides shrink by integer factors. Otherwise it is
    resized by Pillow's bilinear filter, whose support grows with the factor, which avoids aliasing.
    With a `preparation` the mark is found and placed instead, see `export.preparation`.

    Args:
        path: The file.
        shape: (H, W, C) of the model's images, C = 1 for grey or 3 for RGB.
        scale: Value of white: an 8-bit value becomes `value * scale / 255`.
        preparation: How the images of the model's data set were made from pictures of one mark.
        invert: One of `INVERT`, for `preparation`.

    Returns:
        The image.

    Raises:
        PictureError: The file is missing, empty, truncated, not a picture, a pipe or a device, has
            an unknown range of values, or is so large that it could be a decompression bomb.
        ValueError: C is neither 1 nor 3.
    """
    height, width, channels = shape
    if channels not in (1, 3):
        raise ValueError(
            "`shape` must end in 1 channel (grey) or 3 (RGB), which a picture file can provide. "
            f"Received: shape={tuple(shape)}"
        )
    image = _decode(os.fspath(path))
    if image.mode == "RGB" and (channels == 1 or preparation is not None):
        image = image.convert("L")
    size = image.size
    if preparation is not None:
        found = prepare(image, (height, width), preparation, invert)
        pixels = found.pixels * np.float32(scale)
        picture = Picture(pixels, None, found.crop, found.inverted, found.has_contrast)
    else:
        pixels, crop = _resize(image, width, height)
        # In this order of operations 255 becomes exactly `scale`.
        picture = Picture(pixels * np.float32(scale) / np.float32(255), None, crop)
    if picture.pixels.ndim == 2:
        picture = picture._replace(pixels=np.repeat(picture.pixels[:, :, None], channels, axis=2))
    return picture._replace(resized_from=None if size == (width, height) else size)


def _resize(image: Image.Image, width: int, height: int) -> tuple[np.ndarray, Any]:
    """Return the pixels of the centred part, and the crop; None if that is the whole picture."""
    if image.size == (width, height):
        return np.asarray(image, np.float32), None
    # The largest part with the model's aspect ratio, in whole pixels.
    factor = min(image.width / width, image.height / height)
    part_size = max(round(width * factor), 1), max(round(height * factor), 1)
    left, top = (image.width - part_size[0]) // 2, (image.height - part_size[1]) // 2
    box = (left, top, left + part_size[0], top + part_size[1])
    # At non-integer factors the boxes would cover different numbers of pixels.
    integer_factors = part_size[0] % width == 0 and part_size[1] % height == 0
    resample = Image.Resampling.BOX if integer_factors else Image.Resampling.BILINEAR
    # Cropped first: `resize` with a box would also use pixels just outside of the box.
    pixels = np.asarray(image.crop(box).resize((width, height), resample), np.float32)
    return pixels, None if part_size == image.size else box


def _decode(path: str) -> Image.Image:
    """Return the upright picture in mode L, RGB or F, from 0 to 255."""
    with warnings.catch_warnings():
        # Ignores warnings of damaged metadata, and of a large size below the error limit.
        warnings.simplefilter("ignore")
        try:
            if is_stream(path):
                raise PictureError(
                    f"{path} is a pipe or a device: expected a picture; write it into a file first"
                )
            with Image.open(path) as file:
                return _to_eight_bits(ImageOps.exif_transpose(file), path)
        except PictureError:
            raise
        except FileNotFoundError as error:
            raise PictureError(
                f"{path} does not exist: expected a picture, a folder of pictures or a pattern; "
                "check the path"
            ) from error
        except UnidentifiedImageError as error:
            if os.path.getsize(path) == 0:
                raise PictureError(
                    f"{path} is empty: expected a picture, got 0 bytes; copy it again"
                ) from error
            raise PictureError(
                f"{path} is not a picture that Pillow can read; give a PNG, JPEG or TIFF file, "
                "for example"
            ) from error
        except Image.DecompressionBombError as error:
            largest = 2 * (Image.MAX_IMAGE_PIXELS or 0)
            raise PictureError(
                f"{path} is too large: expected at most {largest:,} pixels, "
                "since more could be a decompression bomb; make it smaller first"
            ) from error
        except OSError as error:
            if error.strerror is None:
                raise _damaged(path, error) from error
            raise PictureError(f"{path} cannot be opened: {error.strerror}") from error
        # Pillow's readers raise different exceptions: SyntaxError, struct.error, KeyError.
        except Exception as error:
            raise _damaged(path, error) from error


def _damaged(path: str, error: Exception) -> PictureError:
    reason = str(error) or type(error).__name__
    return PictureError(
        f"{path} cannot be read to its end ({reason}): expected a complete picture; copy it again, "
        "or save it as a new PNG"
    )


def _to_eight_bits(image: Image.Image, path: str) -> Image.Image:
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.float32)
        low, high = values.min(), values.max()
        if low < 0 or high > 65535:
            raise PictureError(
                f"{path} has pixel values from {low:g} to {high:g}: expected 0 to 65535; save it "
                "with 8 or 16 bits a channel"
            )
        if "transparency" in image.info:
            clear = values == image.info["transparency"]
            values[clear] = 65535 if values[~clear].sum() < 65535 / 2 * (~clear).sum() else 0
        return Image.fromarray(values / _SIXTEEN_TO_EIGHT_BITS)
    if image.mode == "F":
        raise PictureError(
            f"{path} has floating-point pixels, whose range is not known: expected integers; save "
            "it with 8 or 16 bits a channel"
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


def _readable_suffixes() -> set[str]:
    suffixes = Image.registered_extensions()
    return {s for s, kind in suffixes.items() if kind in Image.OPEN and kind not in _NEVER_DRAWN}
