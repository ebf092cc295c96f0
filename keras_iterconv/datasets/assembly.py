"""Data sets of pictures of any size: a look at every picture, the parts, and the statistics."""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from keras_iterconv._support.checks import check_positive_int
from keras_iterconv._support.memory_limit import memory_limit
from keras_iterconv.datasets.image_data import ImageData
from keras_iterconv.datasets.image_split import Split
from keras_iterconv.datasets.picture_files import UnreadablePictureError
from keras_iterconv.datasets.pixel_statistics import PixelSums, pixel_scaling
from keras_iterconv.datasets.splitting import cut_each_class, stratified_subset
from keras_iterconv.datasets.stored_images import StoredImages

SCALE = 255
# Larger data sets stay on disk. A part in memory is copied once or twice, and the net needs memory.
SHARE_OF_MEMORY = 1 / 8
# Side of the images, where the pictures have several sizes or are larger than `LARGEST_OWN_SIDE`.
SIDE = 64
LARGEST_OWN_SIDE = 128
# A net of a larger side would not train on any machine.
LARGEST_SIDE = 4096
TEST_SHARE = 0.2


class Survey(NamedTuple):
    """What a look at every picture finds.

    Attributes:
        images: The images: in memory, uint8 [N, H, W, C], or still on disk.
        sums: The sums of each image's pixels.
        broken: The errors of the pictures that cannot be read, by their index.
    """

    images: np.ndarray | StoredImages
    sums: PixelSums
    broken: Mapping[int, UnreadablePictureError]


def survey(stored: StoredImages) -> Survey:
    """Decode each picture once, and keep the images where they take little of the memory."""
    kept = stored.nbytes <= SHARE_OF_MEMORY * memory_limit()
    images = np.zeros(stored.shape if kept else (0,), np.uint8)
    sums = PixelSums.zeros(len(stored), stored.shape[1:])
    broken: dict[int, UnreadablePictureError] = {}
    for index, image in enumerate(stored.decode_each()):
        if isinstance(image, UnreadablePictureError):
            broken[index] = image
            continue
        sums.put(index, image)
        if kept:
            images[index] = image
    return Survey(images if kept else stored, sums, broken)


def choose_size(given: Any, sizes: set[tuple[int, int]]) -> tuple[int, int]:
    """Return height and width of a data set's images.

    Args:
        given: The argument `image_size`: a side, (height, width), or None for the pictures' own
            size if they share one of at most `LARGEST_OWN_SIDE`, and else `SIDE`.
        sizes: The sizes (height, width) of the pictures.

    Raises:
        ValueError: The argument is not a size.
    """
    if given is None:
        own = next(iter(sizes)) if len(sizes) == 1 else (SIDE, SIDE)
        return own if max(own) <= LARGEST_OWN_SIDE else (SIDE, SIDE)
    sides = tuple(given) if isinstance(given, tuple | list) else (given, given)
    if len(sides) != 2:
        raise ValueError(
            "`image_size` must be an integer or two, the height and the width. "
            f"Received: image_size={given!r}"
        )
    height, width = (check_positive_int("image_size", side) for side in sides)
    if max(height, width) > LARGEST_SIDE:
        raise ValueError(
            f"`image_size` must be at most {LARGEST_SIDE} a side. Received: image_size={given!r}"
        )
    return height, width


def check_shares(validation_share: float, test_share: float | None = None) -> None:
    """Raise `ValueError` where a share is not one.

    Args:
        validation_share: In [0, 1).
        test_share: In (0, 1), or None where there is a test part.
    """
    if not 0 <= validation_share < 1:
        raise ValueError(
            "`validation_share` must be at least 0 and below 1. "
            f"Received: validation_share={validation_share}"
        )
    if test_share is not None and not 0 < test_share < 1:
        raise ValueError(
            f"`test_share` must be above 0 and below 1. Received: test_share={test_share}"
        )


def cut_off(labels: np.ndarray, chosen: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Return `chosen` indices of images in two parts, of which the second has a share."""
    kept, cut = cut_each_class(labels[chosen], share)
    return chosen[kept], chosen[cut]


def limited(
    labels: np.ndarray, train: np.ndarray, validation: np.ndarray, limit: int | None, share: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return a training part of `limit` images, and a validation part that keeps its share.

    Args:
        labels: Class numbers, int [N].
        train: Indices of the training part.
        validation: Indices of the validation part.
        limit: Number of training images; None for all.
        share: Share of the validation part that was cut off; 0 for one to keep as it is.

    Raises:
        ValueError: `limit` is not a number of images that there are.
    """
    if limit is None:
        return train, validation
    limit = check_positive_int("limit_train", limit)
    classes = len(np.unique(labels[train]))
    if not classes <= limit <= len(train):
        raise ValueError(
            f"`limit_train` must be from {classes}, one image for each class, to {len(train)}, the "
            f"number of training images. Received: limit_train={limit}"
        )
    wanted = min(round(limit * share / (1 - share)), len(validation))
    if share:
        validation = validation[stratified_subset(labels[validation], wanted)]
    return train[stratified_subset(labels[train], limit)], validation


def assemble(
    name: str,
    found: Survey,
    labels: np.ndarray,
    parts: tuple[np.ndarray, np.ndarray, np.ndarray],
    classes: tuple[str, ...],
    pixels: str,
    **facts: Any,
) -> ImageData:
    """Return a data set of surveyed images.

    Args:
        name: Name of the data set.
        found: The survey.
        labels: Class numbers, int [N], of the images of the survey.
        parts: Indices of the images of the training, validation and test part.
        classes: Class names, by label.
        pixels: Scaling of the pixels, one of `PIXELS`.
        **facts: Further arguments of `ImageData`.
    """
    everything = Split(found.images, labels.astype(np.int32))
    train, validation, test = (everything.take(indices) for indices in parts)
    statistics = partial(found.sums.statistics, parts[0])
    mean, std = pixel_scaling(pixels, statistics, found.images.shape[-1], SCALE)
    return ImageData(
        name=name,
        train=train,
        validation=validation,
        test=test,
        mean=mean,
        std=std,
        classes=classes,
        scale=SCALE,
        **facts,
    )
