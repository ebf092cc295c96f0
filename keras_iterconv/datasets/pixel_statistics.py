"""Mean and standard deviation of the pixels of a training part, from exact integer sums."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from keras_iterconv._support.checks import unknown_name

PIXELS = ("standardized", "unit")
# Images, or rows of one image, that are added at once.
ROWS = 256


class PixelSums(NamedTuple):
    """The sums of the pixels of each of N images, from which those of any part follow.

    Attributes:
        totals: Sums of the pixels of each channel, int64 [N, C].
        squares: Sums of their squares, int64 [N, C].
        pixels: Number of pixels of an image.
    """

    totals: np.ndarray
    squares: np.ndarray
    pixels: int

    @classmethod
    def zeros(cls, count: int, image_shape: tuple[int, int, int]) -> "PixelSums":
        """Return the sums of `count` black images of a shape (H, W, C)."""
        height, width, channels = image_shape
        totals, squares = (np.zeros((count, channels), np.int64) for _ in range(2))
        return cls(totals, squares, height * width)

    def put(self, index: int, image: np.ndarray) -> None:
        """Store the sums of one image, uint8 [H, W, C]."""
        self.totals[index], self.squares[index] = _sums(image)

    def statistics(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation of each channel over the images at `indices`.

        Returns:
            `(mean, std)`, float32 [C] each, as `channel_statistics` of these images.
        """
        totals, squares = (sums[indices].sum(axis=0) for sums in (self.totals, self.squares))
        return _statistics(totals, squares, self.pixels * len(indices))


def pixel_scaling(
    pixels: str,
    statistics: Callable[[], tuple[np.ndarray, np.ndarray]],
    channels: int,
    scale: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the value to subtract from raw pixels, and the divisor of the difference.

    Args:
        pixels: `"standardized"` for mean 0 and standard deviation 1 of each channel over the
            training part, `"unit"` for values from 0 to 1.
        statistics: Function that returns mean and standard deviation, float32 [C] each.
        channels: Number of channels C.
        scale: Largest possible raw value of a pixel.

    Returns:
        `(mean, std)`, float32 [C] each, in raw values.

    Raises:
        ValueError: `pixels` is not one of `PIXELS`.
    """
    if pixels == "standardized":
        return statistics()
    if pixels == "unit":
        return np.zeros(channels, np.float32), np.full(channels, scale, np.float32)
    raise ValueError(unknown_name("pixels", pixels, PIXELS))


def channel_statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of each channel, computed from exact integer sums.

    Args:
        images: Images, uint8 [N, H, W, C].

    Returns:
        `(mean, std)`, float32 [C] each, in raw values; `std` divides by the number of pixels. It
        is 1 for a channel that has one value everywhere, which then standardises to 0.
    """
    return _statistics(*_sums(images), images[..., 0].size)


def _sums(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sums of pixels and of their squares, int64 [C] each."""
    channels = images.shape[-1]
    # NumPy adds whole rows much faster than single channels, so the pixels of a place are added
    # first, over few enough images for 32 bits.
    rows = images.reshape(len(images), math.prod(images.shape[1:]))
    totals, squares = np.zeros((2, rows.shape[1]), np.int64)
    for start in range(0, len(rows), ROWS):
        part = rows[start : start + ROWS]
        totals += part.sum(axis=0, dtype=np.uint32)
        # 255 squared fits into 16 bits; a float64 copy of CIFAR would take more than a gigabyte.
        squares += np.square(part, dtype=np.uint16).sum(axis=0, dtype=np.uint32)
    return totals.reshape(-1, channels).sum(axis=0), squares.reshape(-1, channels).sum(axis=0)


def _statistics(
    totals: np.ndarray, squares: np.ndarray, pixels: int
) -> tuple[np.ndarray, np.ndarray]:
    mean = totals / pixels
    # Rounding can leave a tiny negative number for a channel of one value.
    std = np.sqrt(np.maximum(squares / pixels - mean**2, 0))
    # In integers of Python, since the squares of totals exceed 64 bits.
    both = zip(totals.tolist(), squares.tolist(), strict=True)
    is_constant = [total**2 == square * pixels for total, square in both]
    return mean.astype(np.float32), np.where(is_constant, 1, std).astype(np.float32)
