"""One part of a data set: images and labels."""

import dataclasses
from dataclasses import dataclass

import numpy as np

from keras_iterconv.datasets.stored_images import StoredImages
from keras_iterconv.tasks import TASKS, Task


@dataclass(frozen=True, eq=False)
class Split:
    """One part of a data set, with raw pixel values.

    Args:
        images: Images, uint8 [N, H, W, C], raw values from 0 to the data set's `scale`: an array,
            or `StoredImages`, which are read where they are used.
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

    Example:
        >>> images, labels = np.zeros((3, 8, 8, 1), np.uint8), np.array([0, 1, 1], np.int32)
        >>> split = ki.datasets.Split(images, labels)
        >>> len(split), split.take([1, 2]).labels.tolist()
        (3, [1, 1])

    See also:
        `datasets.ImageData`, which has three; `datasets.StoredImages`.
    """

    images: np.ndarray | StoredImages
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
        """Return the images and labels at `indices`, in that order.

        Images in memory are copied; stored images are not read.

        Args:
            indices: Numbers of images, int `[n]`.
        """
        stored = isinstance(self.images, StoredImages)
        images = self.images.take(indices) if stored else self.images[indices]
        return dataclasses.replace(self, images=images, labels=self.labels[indices])
