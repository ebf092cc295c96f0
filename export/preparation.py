"""Pictures of one mark, prepared as the images of a net's data set were made."""

import math
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image

INVERT = ("auto", "yes", "no")

# Between ground and ink, as a share of black to white, and in standard deviations of the ground.
# Below them is paper's texture, or nothing.
LEAST_CONTRAST = 0.1
LEAST_OVER_NOISE = 4

# Least trimmed squares moves little after a few rounds.
TRIMMED_ROUNDS = 5

# Longer pictures are reduced by a whole factor first: it bounds the time and memory of the rest.
LONGEST_SIDE = 1024


class Preparation(NamedTuple):
    """How the images of a data set of light marks on black were made from bitmaps.

    Attributes:
        box: Height and width of the box that a mark is scaled into, in cells.
        stretch: Largest ratio of the factors in the two directions; at 1 a mark keeps its aspect,
            above it comes closer to filling the box.
        centre: What lies in the image's centre: the mark's centre of "mass", or of its "box".
        cells: Side of the square of cells that one pixel averages.
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
    """Return the preparation that a value of JSON means; None where it means none."""
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
    """A picture of one mark, prepared.

    Attributes:
        pixels: float32 `[H, W]`, from 0, the ground, to 1, the ink.
        inverted: Whether dark and light were exchanged.
        crop: Left, top, right and bottom of the mark in the picture; None where the picture had
            the image's size and the mark its place, and where there is no contrast.
        has_contrast: Whether ink differs from the ground; otherwise `pixels` are all 0.
    """

    pixels: np.ndarray
    inverted: bool
    crop: tuple[int, int, int, int] | None
    has_contrast: bool


def prepare(
    image: Image.Image, size: tuple[int, int], preparation: Preparation, invert: str = "auto"
) -> Prepared:
    """Find the mark in a grey picture and place it as its data set does.

    The ground is found from the picture's border, and everything that differs from it counts as
    the mark, but for specks.

    Args:
        image: Of mode L or F, from 0 to 255.
        size: Height and width of the net's images.
        preparation: How its data set was made.
        invert: "yes" where ink is darker than the ground, "no" where it is lighter, "auto" to find
            out.

    Returns:
        The image.
    """
    # Without ink there is nothing to find out.
    nothing = Prepared(np.zeros(size, np.float32), invert == "yes", None, False)
    factor = math.ceil(max(image.size) / LONGEST_SIDE)
    whole = image.size
    if factor > 1:
        image = image.reduce(factor)
    light = np.asarray(image, np.float32) / 255
    ground, noise = _find_ground(light)
    mark = light - ground
    # Ink lies far from the ground on one side, noise and shadows near it on both.
    inverted = invert == "yes" or (invert == "auto" and bool(np.vdot(mark, mark * mark) < 0))
    mark = np.maximum(-mark if inverted else mark, 0)
    smooth = _average_3x3(mark)
    ink = mark[mark >= smooth.max() / 2].mean()
    if ink < max(LEAST_CONTRAST, LEAST_OVER_NOISE * noise):
        return nothing
    # Of a line's pixels, one wide, a third of the neighbourhood is ink; of a speck's, a ninth.
    is_ink = (mark > ink / 2) & (smooth > ink / 5)
    rows, columns = (np.flatnonzero(is_ink.any(axis)) for axis in (1, 0))
    if not len(rows):
        return nothing
    old = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    pixels, new = _place(np.minimum(mark / ink, 1), old, size, preparation)
    if light.shape == size and np.abs(new - old).max() <= 1:
        # Made as the data set was: another resampling would only blur it.
        return Prepared(mark / mark.max(), inverted, None, True)
    crop = np.minimum(old * factor, [*whole, *whole])
    return Prepared(pixels, inverted, tuple(crop.tolist()), True)


def _find_ground(light: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the plane through the picture's border, `[H, W]`, and the noise around it.

    A plane, since paper is seldom lit evenly; by least trimmed squares, since ink may touch the
    border: each round fits the half of the border's pixels that lie nearest to the last plane.
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
    # The median distance from the mean, in standard deviations of a normal distribution.
    noise = float(np.median(apart)) / 0.6745
    height, width = light.shape
    ground = plane[0] + plane[1] * np.arange(height)[:, np.newaxis] + plane[2] * np.arange(width)
    return ground.astype(np.float32), noise


def _average_3x3(values: np.ndarray) -> np.ndarray:
    padded = np.pad(values, 1)
    columns = padded[:-2] + padded[1:-1] + padded[2:]
    return (columns[:, :-2] + columns[:, 1:-1] + columns[:, 2:]) / 9


def _place(levels, old, size, preparation) -> tuple[np.ndarray, np.ndarray]:
    """Return the image, and the mark's left, top, right and bottom in it."""
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
    # Thin strokes are only faint after they are reduced.
    mark = mark / mark.max()
    canvas = np.zeros(np.array(size) * cells, np.float32)
    if preparation.centre == "mass":
        # As in MNIST, where the pixel of the centre of mass is (14, 14), counted from 0.
        masses = [mark.sum(axis) for axis in (1, 0)]
        middle = [np.average(np.arange(len(mass)), weights=mass) for mass in masses]
        place = np.rint(np.array(canvas.shape) // 2 - middle).astype(int)
    else:
        place = (np.array(canvas.shape) - shape) // 2
    top, left = np.clip(place, 0, np.array(canvas.shape) - shape).tolist()
    bottom, right = top + shape[0], left + shape[1]
    canvas[top:bottom, left:right] = mark
    pixels = canvas.reshape(size[0], cells, size[1], cells).mean((1, 3))
    return pixels, np.array([left, top, right, bottom]) / cells
