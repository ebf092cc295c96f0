"""Digitclutter: generated images of overlapping digits, each with its own random numbers.

An image is a pure function of (seed, number of digits, part, index). So the images do not depend on
the number of processes, and the first images of a large data set are those of a small one. The
bytes depend on the glyphs that Pillow renders, which may differ between versions of FreeType.

This file imports no other module of its package. Worker processes run it by its path, so they load
neither TensorFlow nor the caller's main module.

Reference:
    Spoerer, McClure and Kriegeskorte 2017 (the stimuli; reimplemented from their description).
"""

import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import ExitStack, suppress
from functools import cache, partial
from pathlib import Path
from typing import IO, cast

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

PARTS = ("train", "validation", "test")  # The index of a part seeds its images.
SIZES = (100_000, 10_000, 10_000)  # Number of images of the complete parts.
CLASSES = 10
SIDE = 32  # Pixels of a finished image.

CANVAS = 512  # Pixels; a multiple of SIDE, so that each pixel is the average of a whole block.
GREY = 119
FONT_PIXELS = 384  # 384 pt at 72 dots per inch.
# Pixels of white beyond the edge of the black face. In the description the stroke of the glyph's
# edge is 20 pixels wide, and the face covers its inner half. Pillow counts a stroke from the edge.
OUTLINE = 10
# Largest distance of a digit's centre from the canvas's centre, as a fraction of the canvas. The
# description adds 0.076 downwards: it places the centre of the text line, which includes space for
# descenders. Digits have none, so they would be too high by about that much. Here the centre of the
# digit itself is placed, so no offset is needed.
SPREAD_X, SPREAD_Y = 0.29, 0.19

# With fewer images, starting processes takes longer than generating the images.
_FEW = 2000
# More workers would generate images faster than TFDS writes them.
_MOST_WORKERS = 4


def lay_out(seed: int, digits: int, part: str, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the random digits of one image and their positions.

    Args:
        seed: Seed of the data set, an integer of at least 0.
        digits: Number of digits, from 1 to 10.
        part: One of `PARTS`.
        index: Index of the image in its part.

    Returns:
        `(classes, places)`: the digits, int64 [n], without replacement, from the lowermost to the
        uppermost; and x and y of their centres, int64 [n, 2], in pixels of the canvas.
    """
    # The spawn key gives each (digits, part, index) its own stream, whatever the size of the seed.
    sequence = np.random.SeedSequence(seed, spawn_key=(digits, PARTS.index(part), index))
    # Only uniform numbers of a named generator: NumPy may change the algorithm of `choice`.
    draws = np.random.Generator(np.random.PCG64(sequence)).random(CLASSES + 2 * digits)
    classes = np.argsort(draws[:CLASSES])[:digits]
    offsets = (2 * draws[CLASSES:].reshape(digits, 2) - 1) * (SPREAD_X, SPREAD_Y)
    return classes, np.rint(CANVAS * (0.5 + offsets)).astype(int)


def draw_picture(classes: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return one image of the digits and positions that `lay_out` returned.

    Args:
        classes: Digits, int [n], from the lowermost to the uppermost.
        places: x and y of their centres, int [n, 2], in pixels of the canvas.

    Returns:
        uint8 [32, 32, 1].
    """
    canvas = Image.new("L", (CANVAS, CANVAS), GREY)
    masks = _masks()
    for digit, (x, y) in zip(classes.tolist(), places.tolist(), strict=True):
        for ink, (mask, left, top) in masks[digit]:
            canvas.paste(ink, (x + left, y + top), mask)
    return np.asarray(canvas.reduce(CANVAS // SIDE))[..., np.newaxis]


def draw_pictures(
    seed: int, digits: int, part: str, count: int, *, workers: int | None = None
) -> Generator[tuple[np.ndarray, np.ndarray]]:
    """Yield the first images of a part, in their order.

    Args:
        seed: Seed of the data set.
        digits: Number of digits in an image.
        part: One of `PARTS`.
        count: Number of images.
        workers: Number of worker processes; 0 for this process, None for a default by `count`.
            The images do not depend on it.

    Yields:
        `(image uint8 [32, 32, 1], classes int64 [n])`.

    Raises:
        RuntimeError: A worker process ends early.
    """
    if workers is None:
        workers = 0 if count < _FEW else min(os.cpu_count() or 1, _MOST_WORKERS)
    if workers == 0:
        for index in range(count):
            classes, places = lay_out(seed, digits, part, index)
            yield draw_picture(classes, places), classes
        return

    size = SIDE * SIDE + digits
    with ExitStack() as stack:
        # A pipe holds about sixty images, so no worker gets far ahead.
        processes = [
            subprocess.Popen(
                # -P keeps this folder off the import path: its files could hide packages.
                [sys.executable, "-P", __file__]
                + [str(value) for value in (seed, digits, part, first, count, workers)],
                stdout=subprocess.PIPE,
            )
            for first in range(workers)
        ]
        for process in processes:
            stack.callback(_end, process)
        for index in range(count):
            output = cast(IO[bytes], processes[index % workers].stdout)
            record = output.read(size)
            if len(record) < size:
                code = processes[index % workers].wait()
                raise RuntimeError(f"a process that generates {part} images ended with code {code}")
            values = np.frombuffer(record, np.uint8)
            yield values[digits:].reshape(SIDE, SIDE, 1), values[:digits].astype(np.int64)


def plot_samples(
    path: str | os.PathLike,
    *,
    seed: int = 0,
    digits: tuple[int, ...] = (2, 3, 4, 5),
    count: int = 8,
) -> None:
    """Write a figure of the first training images, each with its digits above.

    Args:
        path: Image file to write.
        seed: Seed of the data sets.
        digits: Numbers of digits in an image, a row each.
        count: Number of images in a row.

    Example:
        >>> from keras_iterconv.datasets.digitclutter import plot_samples
        >>> plot_samples("docs/digitclutter.png")
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.1 * count, 1.32 * len(digits)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(digits), count, squeeze=False)
    for row, number in zip(grid, digits, strict=True):
        pictures = draw_pictures(seed, number, "train", count, workers=0)
        for axes, (picture, classes) in zip(row, pictures, strict=True):
            axes.imshow(picture[..., 0], cmap="gray", vmin=0, vmax=255)
            axes.set_title(" ".join(map(str, classes)), fontsize=10, pad=3)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        row[0].set_ylabel(f"{number} digits", fontsize=10)
    figure.savefig(path, dpi=120)


def font() -> ImageFont.FreeTypeFont:
    """Return the bold sans font that comes with Matplotlib, in the size for the canvas."""
    # Not by Matplotlib's font manager: it may find another version of the font in the system.
    path = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans-Bold.ttf")
    # The other layout engine is missing from some builds of Pillow.
    return ImageFont.truetype(path, FONT_PIXELS, layout_engine=ImageFont.Layout.BASIC)


@cache
def _masks():
    """Return ink and `(mask, left, top)`, from the centre, for outline and face of each digit."""
    letters = font()
    _, top, _, bottom = letters.getbbox("0", anchor="ls")
    baseline = CANVAS - (top + bottom) // 2
    masks = []
    for digit in range(CLASSES):
        layers = []
        for ink, stroke in ((255, OUTLINE), (0, 0)):
            sheet = Image.new("L", (2 * CANVAS, 2 * CANVAS))
            ImageDraw.Draw(sheet).text(
                (CANVAS, baseline), str(digit), 255, letters, anchor="ms", stroke_width=stroke
            )
            box = cast(tuple[int, int, int, int], sheet.getbbox())
            layers.append((ink, (sheet.crop(box), box[0] - CANVAS, box[1] - CANVAS)))
        masks.append(layers)
    return masks


def _end(process: subprocess.Popen) -> None:
    process.kill()
    cast(IO[bytes], process.stdout).close()
    process.wait()


def _work(seed: str, digits: str, part: str, first: str, count: str, step: str) -> None:
    """Write every `step`-th image to the standard output: the digits, then the pixels."""
    # Ctrl-C reaches all processes of a terminal; the parent process ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    plan = partial(lay_out, int(seed), int(digits), part)
    # Where the reader has ended, this process ends without a message.
    with suppress(BrokenPipeError):
        for index in range(int(first), int(count), int(step)):
            classes, places = plan(index)
            picture = draw_picture(classes, places)
            sys.stdout.buffer.write(classes.astype(np.uint8).tobytes() + picture.tobytes())
        sys.stdout.buffer.flush()
    # At its normal end Python flushes the output again, and a broken pipe would raise again.
    os._exit(0)


if __name__ == "__main__":
    _work(*sys.argv[1:])
