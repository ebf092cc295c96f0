"""Preparation of pictures of one mark, in the way in which the images of a data set were made."""

import math
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image

INVERT = ("auto", "yes", "no")

# Least contrast of background and ink: as a share of the range from black to white, and in standard
# deviations of the background. A lower contrast is paper texture or an empty picture.
LEAST_CONTRAST = 0.1
LEAST_OVER_NOISE = 4

# Least trimmed squares changes little after a few rounds.
TRIMMED_ROUNDS = 5

# Longer pictures are first reduced by an integer factor, which bounds time and memory.
LONGEST_SIDE = 1024


class Preparation(NamedTuple):
    """How the images of a data set of light marks on black were made from bitmaps.

    Attributes:
        box: Height and width of the box into which a mark is scaled, in cells.
        stretch: Largest ratio of the scale factors in the two directions. With 1 a mark keeps its
            aspect ratio; with a larger ratio it can fill more of the box.
        centre: The point of the mark that is placed in the image's centre: the centre of "mass" or
            of the "box".
        cells: Side of the square of cells that is averaged to one pixel.
    """

    box: tuple[int, int]
    stretch: float
    centre: Literal["mass", "box"]
    cells: int = 1


# MNIST: "size normalized to fit in a 20x20 pixel box while preserving their aspect ratio", then
# "centered in a 28x28 image by computing the center of mass" (its web page). The digits of
# scikit-learn: 32x32 bitmaps, of which each pixel counts a square of 4x4; all of them are 32
# cells high, and at half the greatest value nearly all are at most 24 wide (measured).
PREPARATIONS = {
    "mnist": Preparation((20, 20), stretch=1, centre="mass"),
    "digits": Preparation((32, 24), stretch=1.5, centre="box", cells=4),
}


def parse_preparation(value: Any) -> Preparation | None:
    """Return the preparation of a JSON value; None if the value is not a valid preparation."""
    try:
        height, width = value["box"]
        read = Preparation((height, width), value["stretch"], value["centre"], value["cells"])
    except (TypeError, ValueError, KeyError):
        return None
    counts = (height, width, read.cells)
    fits = (
        set(value) == set(Preparation._fields)
        and all(type(count) is int and 1 <= count <= 1024 for count in counts)
        and type(read.stretch) in (int, float)
        and 1 <= read.stretch < math.inf
        and read.centre in ("mass", "box")
    )
    return read if fits else None


class Prepared(NamedTuple):
    """A prepared picture of one mark.

    Attributes:
        pixels: float32 `[H, W]`, from 0 (background) to 1 (ink).
        inverted: Whether dark and light were exchanged.
        crop: Left, top, right and bottom of the mark in the picture; None if the picture already
            had the image's size and the mark its position, or if there is no contrast.
        has_contrast: Whether ink differs from the background; otherwise `pixels` are all 0.
    """

    pixels: np.ndarray
    inverted: bool
    crop: tuple[int, int, int, int] | None
    has_contrast: bool


def prepare(
    image: Image.Image, size: tuple[int, int], preparation: Preparation, invert: str = "auto"
) -> Prepared:
    """Return a grey picture with its mark scaled and placed as in a data set.

    The background is estimated from the picture's border. Everything that differs from it belongs
    to the mark, except specks.

    Args:
        image: The picture in mode L or F, from 0 to 255.
        size: Height and width of the model's images.
        preparation: How the images of the data set were made.
        invert: "yes" if the ink is darker than the background, "no" if it is lighter, "auto" to
            detect it.

    Returns:
        The prepared picture.
    """
    # The result if no ink is found.
    nothing = Prepared(np.zeros(size, np.float32), invert == "yes", None, False)
    factor = math.ceil(max(image.size) / LONGEST_SIDE)
    full_size = image.size
    if factor > 1:
        image = image.reduce(factor)
    light = np.asarray(image, np.float32) / 255
    ground, noise = _find_ground(light)
    mark = light - ground
    # Ink differs from the background strongly and in one direction, noise and shadows weakly and in
    # both. The sum of cubes therefore has the sign of the ink.
    inverted = invert == "yes" or (invert == "auto" and bool(np.vdot(mark, mark * mark) < 0))
    mark = np.maximum(-mark if inverted else mark, 0)
    smooth = _average_3x3(mark)
    ink = mark[mark >= smooth.max() / 2].mean()
    if ink < max(LEAST_CONTRAST, LEAST_OVER_NOISE * noise):
        return nothing
    # In the 3x3 neighbourhood of a pixel, a line one pixel wide covers a third, a speck a ninth.
    is_ink = (mark > ink / 2) & (smooth > ink / 5)
    rows, columns = (np.flatnonzero(is_ink.any(axis)) for axis in (1, 0))
    if not len(rows):
        return nothing
    old = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    pixels, new = _place(np.minimum(mark / ink, 1), old, size, preparation)
    if light.shape == size and np.abs(new - old).max() <= 1:
        # The picture is already an image of the data set: resampling would only blur it.
        return Prepared(mark / mark.max(), inverted, None, True)
    crop = np.minimum(old * factor, [*full_size, *full_size])
    return Prepared(pixels, inverted, tuple(crop.tolist()), True)


def _find_ground(light: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the background, a plane `[H, W]` fitted to the picture's border, and its noise.

    A plane models uneven lighting. It is fitted by least trimmed squares, since ink may touch the
    border: each round fits the half of the border's pixels that are closest to the last plane.
    """
    edge = np.ones(light.shape, bool)
    edge[1:-1, 1:-1] = False
    rows, columns = np.nonzero(edge)
    points = np.stack([np.ones(len(rows)), rows, columns], axis=1)
    values = light[edge].astype(np.float64)
    plane = np.array([np.median(values), 0, 0])
    for _ in range(TRIMMED_ROUNDS):
        apart = np.abs(values - points @ plane)
        near = apart <= np.median(apart)
        plane = np.linalg.lstsq(points[near], values[near])[0]
    apart = np.abs(values - points @ plane)
    # For a normal distribution, the median distance from the mean is 0.6745 standard deviations.
    noise = float(np.median(apart)) / 0.6745
    height, width = light.shape
    ground = plane[0] + plane[1] * np.arange(height)[:, np.newaxis] + plane[2] * np.arange(width)
    return ground.astype(np.float32), noise


def _average_3x3(values: np.ndarray) -> np.ndarray:
    padded = np.pad(values, 1)
    columns = padded[:-2] + padded[1:-1] + padded[2:]
    return (columns[:, :-2] + columns[:, 1:-1] + columns[:, 2:]) / 9


def _place(
    levels: np.ndarray, old: np.ndarray, size: tuple[int, int], preparation: Preparation
) -> tuple[np.ndarray, np.ndarray]:
    """Return the image, and the left, top, right and bottom of the mark in it."""
    cells = preparation.cells
    left, top, right, bottom = old.tolist()
    height, width = bottom - top, right - left
    factor = np.array(preparation.box) / (height, width)
    factor = np.minimum(factor, preparation.stretch * factor.min())
    shape = np.maximum(np.rint(factor * (height, width)).astype(int), 1)
    resample = Image.Resampling.BOX if factor[0] < 1 else Image.Resampling.BILINEAR
    mark = Image.fromarray(levels).resize(
        shape[::-1].tolist(), resample, (left, top, right, bottom)
    )
    mark = np.clip(np.asarray(mark), 0, None)
    # Thin strokes are faint after the reduction.
    mark = mark / mark.max()
    canvas = np.zeros(np.array(size) * cells, np.float32)
    if preparation.centre == "mass":
        # As in MNIST, where the centre of mass is in pixel (14, 14), counted from 0.
        masses = [mark.sum(axis) for axis in (1, 0)]
        middle = [np.average(np.arange(len(mass)), weights=mass) for mass in masses]
        corner = np.rint(np.array(canvas.shape) // 2 - middle).astype(int)
    else:
        corner = (np.array(canvas.shape) - shape) // 2
    top, left = np.clip(corner, 0, np.array(canvas.shape) - shape).tolist()
    bottom, right = top + shape[0], left + shape[1]
    canvas[top:bottom, left:right] = mark
    pixels = canvas.reshape(size[0], cells, size[1], cells).mean((1, 3))
    return pixels, np.array([left, top, right, bottom]) / cells
