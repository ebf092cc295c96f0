"""A data set of images: three parts, the scaling of the pixels, and its batches."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from keras_iterconv._support.checks import check_choice
from keras_iterconv.datasets.image_split import Split
from keras_iterconv.datasets.pipeline import evaluation_batches, steps_per_epoch, training_batches
from keras_iterconv.tasks import Task

PARTS = ("train", "validation", "test")
# Of the training part, for a mean number of updates; the images are run several times.
CALIBRATION_IMAGES = 5000


@dataclass(frozen=True, eq=False)
class ImageData:
    """A data set, split into three parts, with the scaling of its pixels.

    Args:
        name: Name in the catalogue or in TensorFlow Datasets, or `folder:` and a folder's name.
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
        skipped: What is left out of a folder: each picture that cannot be read, each folder with
            pictures in a class folder, and each class that a part has no picture of.
        sha256: Hash of the names and contents of a folder's pictures, or of the records of a data
            set of TensorFlow Datasets, in their order; None for the catalogue's.

    Example:
        >>> data = ki.datasets.load("digits")
        >>> data.input_shape, data.num_classes, len(data.train)
        ((8, 8, 1), 10, 1293)
        >>> images, labels = next(iter(data.training_batches(64)))
        >>> images.shape, labels.shape
        (TensorShape([64, 8, 8, 1]), TensorShape([64]))

    See also:
        `datasets.load` and `datasets.load_folder`, which return it; `datasets.Split`.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    mean: np.ndarray
    std: np.ndarray
    classes: tuple[str, ...]
    scale: int
    skipped: tuple[str, ...] = ()
    sha256: str | None = None

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

    def describe(self) -> dict[str, Any]:
        """Return the facts in the `config.json` of a run, by which its data set is recognised."""
        facts = {
            "input_shape": list(self.input_shape),
            "classes": list(self.classes),
            "scale": self.scale,
            "mean": self.mean.tolist(),
            "std": self.std.tolist(),
            "images": {part: len(getattr(self, part)) for part in PARTS},
        }
        return facts if self.sha256 is None else {**facts, "sha256": self.sha256}

    def steps_per_epoch(self, batch_size: int) -> int:
        """Return the number of full batches in an epoch of the training part.

        Args:
            batch_size: Number of images in a batch.

        Raises:
            ValueError: The batch size is not a positive integer, or larger than the training part.

        Example:
            >>> data = ki.datasets.load("digits", limit_train=900)
            >>> data.steps_per_epoch(64)  # 64 * 14 = 896
            14

        See also:
            `datasets.ImageData.training_batches`.
        """
        return steps_per_epoch(self.train, batch_size)

    def training_batches(
        self, batch_size: int, *, seed: int = 0, augment: str = "none"
    ) -> tf.data.Dataset:
        """Return an infinite data set of shuffled, augmented, standardised training batches.

        Args:
            batch_size: Number of images in a batch.
            seed: Training seed, an integer of at least 0.
            augment: Name in `AUGMENTATIONS`.

        Returns:
            A dataset as of `datasets.training_batches`.

        Raises:
            ValueError: An argument is out of range, or the augmentation is unknown.
            MissingExtraError: The augmentation needs a package that is not installed.

        Example:
            >>> data = ki.datasets.load("digits")
            >>> model = ki.create_model("nais_dense", data.input_shape, data.num_classes)
            >>> model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
            >>> history = model.fit(
            ...     data.training_batches(64), steps_per_epoch=4, epochs=2, shuffle=False, verbose=0
            ... )
            >>> history.epoch
            [0, 1]

        See also:
            `datasets.ImageData.steps_per_epoch`; `datasets.ImageData.evaluation_batches`.
        """
        return training_batches(
            self.train,
            mean=self.mean,
            std=self.std,
            batch_size=batch_size,
            seed=seed,
            augment=augment,
        )

    def evaluation_batches(self, part: str, batch_size: int) -> tf.data.Dataset:
        """Return the standardised batches of a part, in its order.

        Args:
            part: `"train"`, `"validation"` or `"test"`.
            batch_size: Number of images in a batch; the last may be smaller.

        Returns:
            A dataset as of `datasets.evaluation_batches`.

        Raises:
            ValueError: There is no such part, or the batch size is not a positive integer.

        Example:
            >>> data = ki.datasets.load("digits")
            >>> sizes = [len(labels) for _, labels in data.evaluation_batches("test", 100)]
            >>> sizes, len(data.test)
            ([100, 100, 100, 60], 360)

        See also:
            `datasets.ImageData.training_batches`; `datasets.evaluation_batches`.
        """
        split = getattr(self, check_choice("part", part, PARTS))
        return evaluation_batches(split, mean=self.mean, std=self.std, batch_size=batch_size)


def calibration_part(data: ImageData) -> tuple[Split, str]:
    """Return the images by which a depth is calibrated, and what they are called.

    They are the validation part; where training uses all images, the first `CALIBRATION_IMAGES` of
    the training part. These tell nothing about accuracy, only about updates.
    """
    if len(data.validation):
        return data.validation, "validation images"
    first = np.arange(min(CALIBRATION_IMAGES, len(data.train)))
    return data.train.take(first), "training images"
