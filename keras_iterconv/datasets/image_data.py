"""Containers of images and labels: one part of a data set, and a data set of three parts."""

import dataclasses
from dataclasses import dataclass

import numpy as np

from keras_iterconv._support.checks import unknown_name
from keras_iterconv.tasks import TASKS, Task

PIXELS = ("standardized", "unit")


@dataclass(frozen=True, eq=False)
class Split:
    """One part of a data set in memory, with raw pixel values.

    Args:
        images: Images, uint8 [N, H, W, C], raw values from 0 to the data set's `scale`.
        labels: Class numbers from 0, int32 [N]; or, where an image shows several classes, int32
            [N, C], 1 for each class in the image and 0 for the others.
        padding: Raw value of the pixels that a shift of an image uncovers; None for the value that
            standardises to 0.
        task_name: Name in `keras_iterconv.tasks.TASKS`; None for the task that follows from the
            labels' shape, one class or a set of classes. With `"labels_per_position"` the labels
            are class numbers, int32 [N, positions].

    Raises:
        ValueError: The two differ in length, the images are not [N, H, W, C], or the labels are
            neither [N] nor [N, C] of zeros and ones.
    """

    images: np.ndarray
    labels: np.ndarray
    padding: int | None = None
    task_name: str | None = None

    def __post_init__(self):
        if self.images.ndim != 4:
            raise ValueError(
                "`images` must have the shape [N, H, W, C]. "
                f"Received: images.shape={self.images.shape}"
            )
        if self.labels.ndim not in (1, 2) or len(self.labels) != len(self.images):
            raise ValueError(
                f"`labels` must have the shape [{len(self.images)}], one label an image, or "
                f"[{len(self.images)}, C], one set of classes an image. "
                f"Received: labels.shape={self.labels.shape}"
            )
        is_set = self.labels.ndim == 2 and self.task_name in (None, "label_sets")
        if is_set and not np.isin(self.labels, (0, 1)).all():
            raise ValueError(
                "`labels` of the shape [N, C] must be 0 or 1. "
                f"Received: labels from {self.labels.min()} to {self.labels.max()}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def task(self) -> Task:
        """The task: one class an image, a set of classes, or a class for each position."""
        if self.task_name is not None:
            return TASKS[self.task_name]
        return TASKS["classes" if self.labels.ndim == 1 else "label_sets"]

    def take(self, indices: np.ndarray) -> "Split":
        """Return a copy of the images and labels at `indices`, in that order."""
        return dataclasses.replace(self, images=self.images[indices], labels=self.labels[indices])


@dataclass(frozen=True, eq=False)
class ImageData:
    """A data set, split into three parts, with the scaling of its pixels.

    Args:
        name: Name in the catalogue.
        train: Part for fitting the weights.
        validation: Part for choosing settings; split off the official training part, unless the
            data set has its own. Empty where training uses all images.
        test: Part for the reported results; always complete.
        mean: Value to subtract from the raw values of each channel, float32 [C]: the mean of
            `train` for `"standardized"` pixels, 0 for `"unit"` pixels.
        std: Divisor of the difference, float32 [C]: the standard deviation of `train`, or `scale`.
        classes: Class names, by label.
        scale: Largest possible raw value of a pixel: 16 for `digits`, 255 otherwise. Exported
            models need it to scale image files, whose values are 0 to 255.
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
        """The shape (H, W, C) of every image."""
        return self.train.images.shape[1:]

    @property
    def task(self) -> Task:
        """The task: one class an image, a set of classes, or a class for each position."""
        return self.train.task

    @property
    def num_classes(self) -> int:
        """The number of classes, whether or not each occurs in every part."""
        return len(self.classes)


def pixel_scaling(pixels: str, images: np.ndarray, scale: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the value to subtract from raw pixels, and the divisor of the difference.

    Args:
        pixels: `"standardized"` for mean 0 and standard deviation 1 of each channel over `images`,
            `"unit"` for values from 0 to 1.
        images: Images of the training part, uint8 [N, H, W, C].
        scale: Largest possible raw value of a pixel.

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
    """Return mean and standard deviation of each channel, computed from exact integer sums.

    Args:
        images: Images, uint8 [N, H, W, C].

    Returns:
        `(mean, std)`, float32 [C] each, in raw values; `std` divides by the number of pixels.
    """
    pixels = images[..., 0].size
    total = images.sum(axis=(0, 1, 2), dtype=np.int64)
    # 255 squared fits into 16 bits; a float64 copy of CIFAR would take more than a gigabyte.
    squares = np.square(images, dtype=np.uint16).sum(axis=(0, 1, 2), dtype=np.int64)
    mean = total / pixels
    std = np.sqrt(squares / pixels - mean**2)
    return mean.astype(np.float32), std.astype(np.float32)
