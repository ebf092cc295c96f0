"""The two containers that every reader fills and every pipeline reads."""

from dataclasses import dataclass

import numpy as np

from keras_iterconv._support.checks import unknown_name

PIXELS = ("standardized", "unit")


@dataclass(frozen=True, eq=False)
class Split:
    """One part of a data set, held in memory as it was read.

    Args:
        images: uint8 [N, H, W, C], raw values from 0 to the data set's `scale`.
        labels: int32 [N], class numbers from 0; or, where a picture shows several classes, int32
            [N, C], 1 for each class that it shows and 0 for the others.

    Raises:
        ValueError: If the two are not of one length, the images are not [N, H, W, C], or the
            labels neither [N] nor [N, C] of zeros and ones.
    """

    images: np.ndarray
    labels: np.ndarray

    def __post_init__(self):
        if self.images.ndim != 4:
            raise ValueError(
                "`images` must have the shape [N, H, W, C]. "
                f"Received: images.shape={self.images.shape}"
            )
        if self.labels.ndim not in (1, 2) or len(self.labels) != len(self.images):
            raise ValueError(
                f"`labels` must have the shape [{len(self.images)}], a label an image, or "
                f"[{len(self.images)}, C], a set of classes an image. "
                f"Received: labels.shape={self.labels.shape}"
            )
        if self.multi_label and not np.isin(self.labels, (0, 1)).all():
            raise ValueError(
                "`labels` of the shape [N, C] must be 0 or 1. "
                f"Received: labels from {self.labels.min()} to {self.labels.max()}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def multi_label(self) -> bool:
        """Whether a label is a set of classes rather than one class."""
        return self.labels.ndim == 2

    def take(self, indices: np.ndarray) -> "Split":
        """Copy out the samples at `indices`, in that order."""
        return Split(self.images[indices], self.labels[indices])


@dataclass(frozen=True, eq=False)
class ImageData:
    """A data set, cut and measured.

    Args:
        name: The catalogue's name.
        train: What the weights are fitted to.
        validation: What choices are made on; cut from the official training part, unless the data
            set has one of its own. Empty where training takes all images.
        test: What is reported; never cut, never limited.
        mean: float32 [C], subtracted from the raw values of each channel: by `"standardized"`
            pixels the mean of `train`, by `"unit"` pixels 0.
        std: float32 [C], divides what is left: the standard deviation of `train`, or `scale`.
        classes: The class names, by label.
        scale: The largest raw value a pixel can have: 16 for `digits`, 255 otherwise. Exported
            models need it to turn a picture of 0 to 255 into what the net was trained on.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    mean: np.ndarray
    std: np.ndarray
    classes: tuple[str, ...]
    scale: int

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of every image."""
        return self.train.images.shape[1:]

    @property
    def multi_label(self) -> bool:
        """Whether a label is a set of classes rather than one class."""
        return self.train.multi_label

    @property
    def num_classes(self) -> int:
        """How many classes there are, whether or not each occurs in every part."""
        return len(self.classes)


def pixel_scaling(pixels: str, images: np.ndarray, scale: int) -> tuple[np.ndarray, np.ndarray]:
    """What is subtracted from raw pixels, and what divides the difference.

    Args:
        pixels: `"standardized"`: each channel has mean 0 and standard deviation 1 over `images`;
            `"unit"`: values from 0 to 1.
        images: uint8 [N, H, W, C], the training part.
        scale: The largest raw value that a pixel can have.

    Returns:
        `(mean, std)`, float32 [C] each, in raw values.

    Raises:
        ValueError: `pixels` is not one of `PIXELS`.
    """
    if pixels == "standardized":
        return channel_statistics(images)
    if pixels == "unit":
        channels = images.shape[-1]
        return np.zeros(channels, np.float32), np.full(channels, scale, np.float32)
    raise ValueError(unknown_name("pixels", pixels, PIXELS))


def channel_statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel, exact up to the last rounding.

    Args:
        images: uint8 [N, H, W, C].

    Returns:
        `(mean, std)`, float32 [C] each, in raw values; `std` divides by the number of pixels.
    """
    pixels = images[..., 0].size
    total = images.sum(axis=(0, 1, 2), dtype=np.int64)
    # 255 squared still fits 16 bits; a float64 copy of CIFAR would take over a gigabyte.
    squares = np.square(images, dtype=np.uint16).sum(axis=(0, 1, 2), dtype=np.int64)
    mean = total / pixels
    std = np.sqrt(squares / pixels - mean**2)
    return mean.astype(np.float32), std.astype(np.float32)
