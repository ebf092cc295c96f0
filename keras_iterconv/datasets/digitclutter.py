"""Digitclutter: pictures of overlapping digits, drawn here, each from its own random numbers.

A picture is a pure function of (seed, number of digits, part, index). So it does not matter how
many processes draw, and the first pictures of a large set are those of a small one. The bytes are
the same wherever Pillow draws the same letters; another version of FreeType may round otherwise.

This file imports nothing of its package: worker processes run it by its path, and need neither
TensorFlow nor the caller's main module for that.

Reference:
    Spoerer, McClure and Kriegeskorte 2017 (the stimuli; written anew from their description).
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import cache, partial
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

PARTS = ("train", "validation", "test")  # A part's place seeds its pictures.
SIZES = (100_000, 10_000, 10_000)  # Pictures of the whole parts.
CLASSES = 10
SIDE = 32  # Pixels of a finished picture.

CANVAS = 512  # Pixels; a whole multiple of SIDE, so that averaging has no remainders.
GREY = 119
FONT_PIXELS = 384  # 384 pt at 72 dots an inch.
# Pixels of white beyond the edge of the black face. The description strokes the glyph's edge 20
# pixels wide, of which the face then covers the inner half. Pillow counts a stroke from the edge.
OUTLINE = 10
# How far a digit's middle may lie from the canvas's middle, as a fraction of the canvas. The
# description adds 0.076 downwards: it hangs up the text by the middle of its line, which has room
# for descenders, so that the digits, which have none, stand too high by about that much in its
# font. Here the middle of the digit itself is placed, and nothing is left to add.
SPREAD_X, SPREAD_Y = 0.29, 0.19

# Below this it takes longer to start a process than to draw.
_FEW = 2000
# More would draw faster than TFDS writes.
_MOST_WORKERS = 4


def lay_out(seed: int, digits: int, part: str, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw the random numbers of one picture.

    Args:
        seed: Of the data set, a whole number from 0.
        digits: How many digits, from 1 to 10.
        part: One of `PARTS`.
        index: The picture's number in its part.

    Returns:
        `(classes, places)`: which digits, int64 [n], without replacement and the covered ones
        first, and where their middles are, int64 [n, 2], x and y in pixels of the canvas.
    """
    # The key keeps seeds, parts and numbers apart, whatever the size of the seed.
    sequence = np.random.SeedSequence(seed, spawn_key=(digits, PARTS.index(part), index))
    # Uniform numbers of a named generator alone: NumPy may change how `choice` makes use of them.
    draws = np.random.Generator(np.random.PCG64(sequence)).random(CLASSES + 2 * digits)
    classes = np.argsort(draws[:CLASSES])[:digits]
    offsets = (2 * draws[CLASSES:].reshape(digits, 2) - 1) * (SPREAD_X, SPREAD_Y)
    return classes, np.rint(CANVAS * (0.5 + offsets)).astype(int)


def draw_picture(classes: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Draw one picture as `lay_out` says.

    Args:
        classes: int [n], the digits from the first, which all others cover, to the last.
        places: int [n, 2], the x and y of their middles, in pixels of the canvas.

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
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Draw the first pictures of a part, in their order.

    Args:
        seed: Of the data set.
        digits: How many digits a picture has.
        part: One of `PARTS`.
        count: How many pictures.
        workers: How many processes draw; 0 draws in this one, None chooses. The pictures do not
            depend on it.

    Yields:
        `(picture uint8 [32, 32, 1], classes int64 [n])`.

    Raises:
        RuntimeError: If a worker ends early.
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
        # A pipe holds some sixty pictures, so no worker runs far ahead.
        processes = [
            subprocess.Popen(
                # -P: the files beside this one must not pass for packages of the same names.
                [sys.executable, "-P", __file__]
                + [str(value) for value in (seed, digits, part, first, count, workers)],
                stdout=subprocess.PIPE,
            )
            for first in range(workers)
        ]
        for process in processes:
            stack.callback(_end, process)
        for index in range(count):
            record = processes[index % workers].stdout.read(size)
            if len(record) < size:
                code = processes[index % workers].wait()
                raise RuntimeError(f"a process that draws {part} pictures ended with code {code}")
            values = np.frombuffer(record, np.uint8)
            yield values[digits:].reshape(SIDE, SIDE, 1), values[:digits].astype(np.int64)


def plot_samples(
    path: str | os.PathLike,
    *,
    seed: int = 0,
    digits: tuple[int, ...] = (2, 3, 4, 5),
    count: int = 8,
) -> None:
    """Draw a sheet with the first training pictures, their digits above each.

    Args:
        path: The picture to write.
        seed: Of the data set.
        digits: The numbers of digits, a row each.
        count: Pictures a row.

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
    """The bold sans font that comes with matplotlib, at its size on the canvas."""
    # Not matplotlib's font manager: it may find another version of the font in the system.
    path = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans-Bold.ttf")
    # The other layout engine is not in every Pillow.
    return ImageFont.truetype(path, FONT_PIXELS, layout_engine=ImageFont.Layout.BASIC)


@cache
def _masks():
    """For each digit, outline and face: the ink, and `(mask, left, top)` seen from its middle."""
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
            box = sheet.getbbox()
            layers.append((ink, (sheet.crop(box), box[0] - CANVAS, box[1] - CANVAS)))
        masks.append(layers)
    return masks


def _end(process: subprocess.Popen) -> None:
    process.kill()
    process.stdout.close()
    process.wait()


def _work(seed: str, digits: str, part: str, first: str, count: str, step: str) -> None:
    """Write every so many-th picture to the standard output: the digits, then the pixels."""
    # Ctrl-C goes to all processes of a terminal; this one's parent ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    plan = partial(lay_out, int(seed), int(digits), part)
    # The reader may be gone; there is nobody to tell, and nothing to leave behind.
    with suppress(BrokenPipeError):
        for index in range(int(first), int(count), int(step)):
            classes, places = plan(index)
            picture = draw_picture(classes, places)
            sys.stdout.buffer.write(classes.astype(np.uint8).tobytes() + picture.tobytes())
        sys.stdout.buffer.flush()
    # A broken pipe would make Python complain once more when it flushes at its end.
    os._exit(0)


if __name__ == "__main__":
    _work(*sys.argv[1:])
