"""Finding picture files and reading them as a net expects its images."""

import glob
import logging
import os
import warnings
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, ImageStat, UnidentifiedImageError

from .inputs import is_stream
from .preparation import Preparation, prepare

# Pillow logs some of what it then raises, and Python prints logs without a handler.
logging.getLogger("PIL").addHandler(logging.NullHandler())

# Pillow reads the headers of these formats, but cannot decode their contents.
_NEVER_DRAWN = {"BUFR", "GRIB", "HDF5", "MPEG", "WMF"}

# 65535 / 255: from the range of 16 bits to that of 8.
_SIXTEEN_TO_EIGHT_BITS = 257


class PictureError(Exception):
    """A file is no picture that can be read; the message names it and says what to do."""


class Picture(NamedTuple):
    """A picture as a net reads it.

    Attributes:
        pixels: float32 `[H, W, C]`, from 0 to the `scale` of the net's data set.
        resized_from: Width and height in pixels that it had, upright; None where they fitted.
        crop: Left, top, right and bottom in pixels of the part that is read; None for all of it.
        inverted: Whether dark and light were exchanged.
        has_contrast: False where nets of digits find no ink; `pixels` are then the ground alone.
    """

    pixels: np.ndarray
    resized_from: tuple[int, int] | None
    crop: tuple[int, int, int, int] | None = None
    inverted: bool = False
    has_contrast: bool = True


def find_pictures(argument: str) -> list[str]:
    """Return the files that an argument of the command line means.

    Args:
        argument: A file; a folder, for the pictures directly in it, sorted; or a glob pattern that
            no shell has expanded, for the files it matches, sorted (`**` for folders of any depth).
            In a folder, pictures are known by the suffixes that Pillow can read, and hidden files
            are left out, as a pattern leaves them out.

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
        # A link that leads nowhere is complained of when it is read.
        files = [file for file in files if not os.path.isdir(file)]
        if not files:
            raise PictureError(
                f"{argument} holds no pictures: expected files such as .png or .jpg directly in "
                "it; name the folder or the pattern that has them"
            )
        return files
    # A file may have the signs of a pattern in its name.
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
    """Read a picture file in the size, the channels and the scale of a net.

    The first frame is read, upright as its EXIF orientation says. Grey of 16 bits is scaled from
    0..65535 to 0..255. Transparent parts are shown over black or white, whichever is farther from
    the mean of what is visible. Colour profiles are not applied. Colour becomes grey by ITU-R 601
    (0.299 R + 0.587 G + 0.114 B); grey becomes three equal channels.

    Of a picture whose sides are in another proportion than the net's, the middle is read, as large
    as it can be. It is averaged over boxes where both sides shrink by whole factors, otherwise
    resized by Pillow's bilinear filter, which widens with the shrinkage and so leaves no aliasing.
    With a `preparation` the mark is found and placed instead, see `export.preparation`.

    Args:
        path: The file.
        shape: (H, W, C) of the net, C = 1 for grey or 3 for RGB.
        scale: What the value 255 of an 8-bit picture becomes: `value * scale / 255`.
        preparation: How the images of the net's data set were made from pictures of one mark.
        invert: One of `INVERT`, for `preparation`.

    Returns:
        The picture.

    Raises:
        PictureError: The file is missing, empty, cut off, no picture, a pipe or a device, of a kind
            whose range of values is not known, or so large that it could be a decompression bomb.
        ValueError: C is neither 1 nor 3.
    """
    height, width, channels = shape
    if channels not in (1, 3):
        raise ValueError(
            "`shape` must end in 1 channel (grey) or 3 (RGB), the ones that a picture can give. "
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
        # In this order 255 becomes the scale exactly.
        picture = Picture(pixels * np.float32(scale) / np.float32(255), None, crop)
    if picture.pixels.ndim == 2:
        picture = picture._replace(pixels=np.repeat(picture.pixels[:, :, None], channels, axis=2))
    return picture._replace(resized_from=None if size == (width, height) else size)


def _resize(image: Image.Image, width: int, height: int):
    """Return the pixels of the middle, and the crop where that is not the whole picture."""
    if image.size == (width, height):
        return np.asarray(image, np.float32), None
    # The largest part of the net's proportion, in whole pixels.
    factor = min(image.width / width, image.height / height)
    part = max(round(width * factor), 1), max(round(height * factor), 1)
    left, top = (image.width - part[0]) // 2, (image.height - part[1]) // 2
    box = (left, top, left + part[0], top + part[1])
    # At other factors a box takes in one pixel more here and one less there.
    whole = part[0] % width == 0 and part[1] % height == 0
    resample = Image.Resampling.BOX if whole else Image.Resampling.BILINEAR
    # Cut first: near its edge a box given to `resize` would take in what lies outside.
    pixels = np.asarray(image.crop(box).resize((width, height), resample), np.float32)
    return pixels, None if part == image.size else box


def _decode(path: str) -> Image.Image:
    """Return the upright picture in mode L, RGB or F, from 0 to 255."""
    with warnings.catch_warnings():
        # Of damaged metadata, or of a size that is large but still read.
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
            raise PictureError(
                f"{path} is too large: expected at most {2 * Image.MAX_IMAGE_PIXELS:,} pixels, for "
                "more could be a decompression bomb; make it smaller first"
            ) from error
        except OSError as error:
            if error.strerror is None:
                raise _damaged(path, error) from error
            raise PictureError(f"{path} cannot be opened: {error.strerror}") from error
        # Each of Pillow's readers has its own way to fail: SyntaxError, struct.error, KeyError.
        except Exception as error:
            raise _damaged(path, error) from error


def _damaged(path: str, error: Exception) -> PictureError:
    reason = str(error) or type(error).__name__
    return PictureError(
        f"{path} cannot be read to its end ({reason}): expected a whole picture; copy it again, or "
        "save it as a new PNG"
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
        # The mean over black is that of the visible parts times that of their opacity.
        brightness = ImageStat.Stat(over_black.convert("L")).mean[0]
        opacity = ImageStat.Stat(image.getchannel("A")).mean[0]
        return over_white if brightness < opacity / 2 else over_black
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


def _readable_suffixes() -> set[str]:
    suffixes = Image.registered_extensions()
    return {s for s, kind in suffixes.items() if kind in Image.OPEN and kind not in _NEVER_DRAWN}
