"""The catalogue of data sets, and their split into training, validation and test parts."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from keras_iterconv._support.architecture_kinds import (
    CONVOLUTIONAL,
    FULLY_CONNECTED,
    RECURRENT,
)
from keras_iterconv.datasets.assembly import TEST_SHARE
from keras_iterconv.datasets.digitclutter import CLASSES, PARTS, SIDE, SIZES
from keras_iterconv.datasets.image_data import ImageData
from keras_iterconv.datasets.image_split import Split
from keras_iterconv.datasets.pixel_statistics import channel_statistics, pixel_scaling
from keras_iterconv.datasets.prefix_sums import AVAILABLE, BITS, make_prefix_sums
from keras_iterconv.datasets.splitting import VALIDATION_SHARE, cut, stratified_subset
from keras_iterconv.datasets.tfds_reader import read_tfds

DIGITS_TEST_SHARE = 0.2


@dataclass(frozen=True)
class DatasetEntry:
    """A data set of the catalogue: its properties and its reader.

    Args:
        name: Name for `load` and for the commands.
        input_shape: Shape (H, W, C) of every image.
        num_classes: Number of classes.
        scale: Largest possible raw value of a pixel.
        read: Function that returns `(splits, classes)`: a dictionary with `(images uint8
            [N, H, W, C], labels int32 [N] or [N, C])` under `"train"` and `"test"`, and the class
            names by label.
        available: Number of training images of a data set with its own validation part: `read`
            then takes `limit_train` and also returns a part `"validation"`. None where the
            validation part is split off the training part.
        epochs: Default number of training epochs, by the kind of architecture.
        adaptive_epochs: The same for nets of adaptive depth, whose epochs cost less; None where it
            does not differ.
        augmented: Whether augmentation (shifts; in colour also mirroring) improves convolutional
            nets.
        padding: Raw value of the pixels that a shift uncovers, the colour of the background. None
            for photographs: the value that standardises to 0, which is the mean.
        task: Name in `keras_iterconv.tasks.TASKS`, which determines loss, metrics and labels.

    Example:
        >>> entry = ki.datasets.CATALOGUE["digits"]
        >>> entry.input_shape, entry.num_classes, entry.scale
        ((8, 8, 1), 10, 16)

    See also:
        `datasets.CATALOGUE`, which holds them; `datasets.load`.
    """

    name: str
    input_shape: tuple[int, int, int]
    num_classes: int
    scale: int
    read: Callable[..., tuple[dict[str, tuple[np.ndarray, np.ndarray]], tuple[str, ...]]]
    epochs: Mapping[str, int]
    adaptive_epochs: int | None = None
    augmented: bool = False
    padding: int | None = None
    available: int | None = None
    task: str = "classes"


def _read_digits():
    # Imported here to keep `import keras_iterconv` fast.
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = digits.images.astype(np.uint8)[..., np.newaxis]
    labels = digits.target.astype(np.int32)
    indices_of_parts = zip(("train", "test"), cut(labels, DIGITS_TEST_SHARE), strict=True)
    splits = {part: (images[indices], labels[indices]) for part, indices in indices_of_parts}
    return splits, tuple(str(name) for name in digits.target_names)


def _read_digitclutter(digits: int, limit_train: int | None) -> Any:
    # Imported here because this module imports TFDS, which takes long to load.
    from keras_iterconv.datasets.digitclutter_builder import read_digitclutter

    return read_digitclutter(digits, limit_train)


def _digitclutter(digits: int) -> DatasetEntry:
    read = partial(_read_digitclutter, digits)
    shape = (SIDE, SIDE, 1)
    return DatasetEntry(
        f"digitclutter{digits}",
        shape,
        CLASSES,
        255,
        read,
        _epochs(10, 10),
        available=SIZES[0],
        # Black, although the background is grey: repeated runs must give equal results.
        padding=0,
        task="label_sets",
    )


def _epochs(convolutional: int, fully_connected: int) -> dict[str, int]:
    return {CONVOLUTIONAL: convolutional, FULLY_CONNECTED: fully_connected}


_CIFAR = "https://www.cs.toronto.edu/~kriz/cifar.html"
_MNIST = "https://storage.googleapis.com/cvdf-datasets/mnist/train-labels-idx1-ubyte.gz"

CATALOGUE = {
    entry.name: entry
    for entry in (
        DatasetEntry(
            "digits",
            (8, 8, 1),
            10,
            16,
            _read_digits,
            _epochs(10, 30),
            adaptive_epochs=15,
            augmented=True,
            padding=0,
        ),
        DatasetEntry(
            "mnist",
            (28, 28, 1),
            10,
            255,
            partial(read_tfds, "mnist", _MNIST),
            _epochs(5, 20),
            padding=0,
        ),
        *(
            DatasetEntry(
                name,
                (32, 32, 3),
                classes,
                255,
                partial(read_tfds, name, _CIFAR),
                epochs,
                augmented=True,
            )
            for name, classes, epochs in (
                ("cifar10", 10, _epochs(30, 20)),
                ("cifar100", 100, _epochs(60, 20)),
            )
        ),
        *map(_digitclutter, (2, 3, 4, 5)),
        DatasetEntry(
            "prefix_sums",
            (BITS, 1, 1),
            2,
            1,
            make_prefix_sums,
            {RECURRENT: 30},
            available=AVAILABLE,
            padding=0,
            task="labels_per_position",
        ),
    )
}


def list_datasets() -> list[str]:
    """Return the names of the data sets that `load` reads, the default first.

    Example:
        >>> ki.datasets.list_datasets()[:3]
        ['digits', 'mnist', 'cifar10']

    See also:
        `datasets.load`; `datasets.CATALOGUE`.
    """
    return list(CATALOGUE)


def load(
    name: str = "digits",
    *,
    limit_train: int | None = None,
    validation_share: float = VALIDATION_SHARE,
    pixels: str = "standardized",
    image_size: int | Sequence[int] | None = None,
    test_share: float = TEST_SHARE,
) -> ImageData:
    """Return a data set, split into training, validation and test parts.

    The validation part is a stratified share of the official training part, a tenth by default. The
    test part is the complete official one. `digits` has no official test part: a stratified fifth
    of it is the test part. All splits use one fixed seed, so they do not depend on the training
    seed. They depend on the order of the records in the TFDS folder: two folders with the same
    images in different orders are split differently.

    `digitclutter2` to `digitclutter5` have their own validation part. Their images are generated in
    the TFDS folder at the first use, which takes a minute or two. With `limit_train`, only the
    limited data set is generated. `prefix_sums` is generated in memory: sequences of bits as images
    of one column, and for each position the parity of the bits so far.

    Any other name is that of an image classification set of TensorFlow Datasets, one with the
    features `image` and `label`, such as `"fashion_mnist"`, `"oxford_flowers102"` or
    `"cifar10_corrupted/fog_1"`. Its parts are its own splits `train`, `validation` and `test`.
    Without a labelled test split its validation split is the test part, and without both the test
    part is a share of the training part. Images stay in memory where they take at most an eighth
    of it, and are otherwise read from disk for each batch; the batches are the same.

    Args:
        name: Name in `list_datasets()`, or of TensorFlow Datasets.
        limit_train: Number of training images to keep, stratified as far as whole images permit.
            The validation part is limited so that its share stays the same (by default a ninth of
            `limit_train`). None keeps all images. For Digitclutter these are the first images of
            the training part, and a tenth as many of the validation part.
        validation_share: Share of the official training part for validation, in [0, 1). With 0,
            all images are training images and the validation part is empty.
        pixels: Scaling of the pixels: `"standardized"` by mean and standard deviation of the
            training part, after the split and the limit; or `"unit"`, values from 0 to 1.
        image_size: Side of the images, or height and width, of a data set that is not in
            `list_datasets()`: pictures are cropped to this aspect ratio and resized, see
            `read_picture`. None for their own size if all have one of at most 128 a side, and
            else 64.
        test_share: Share of the training part for the test part of a data set that is not in
            `list_datasets()` and has no labelled test or validation split, in (0, 1).

    Returns:
        An `ImageData`.

    Raises:
        ValueError: The name or `pixels` is unknown; the data set is no image classification set;
            the limit is less than one image a class, or
            more than the training part holds; the share leaves a part with less than one image a
            class; or the data set has its own validation part and `validation_share` is not the
            default.
        DatasetNotFoundError: The data set is not in the TFDS folder and cannot be downloaded.
        DatasetError: The generated data set cannot be written to the TFDS folder.
        DatasetCorruptedError: The data set is in the TFDS folder but cannot be read.

    Example:
        >>> data = ki.datasets.load("digits", limit_train=900)
        >>> len(data.train), len(data.validation), len(data.test), data.scale
        (900, 100, 360, 16)

    See also:
        `datasets.load_folder`, for your own pictures; `datasets.list_datasets`;
        `datasets.ImageData`.
    """
    if name not in CATALOGUE:
        return _load_tfds(
            name,
            image_size=image_size,
            validation_share=validation_share,
            test_share=test_share,
            limit_train=limit_train,
            pixels=pixels,
        )
    entry = CATALOGUE[name]
    _check_own_part(entry, image_size, test_share)
    if entry.available is not None:
        if limit_train is not None:
            _check_limit(limit_train, entry, entry.available)
        if validation_share != VALIDATION_SHARE:
            raise ValueError(
                f"`validation_share` must be {VALIDATION_SHARE}, the default: {name} has "
                f"its own validation part. Received: validation_share={validation_share}"
            )
        splits, classes = entry.read(limit_train)
        named = entry.task if entry.task == "labels_per_position" else None
        train, validation, test = (
            Split(*splits[part], padding=entry.padding, task_name=named) for part in PARTS
        )
    else:
        splits, classes = entry.read()
        official, test = (Split(*splits[part], padding=entry.padding) for part in ("train", "test"))
        train, validation = _cut(official, entry, limit_train, validation_share)
    mean, std = pixel_scaling(
        pixels, partial(channel_statistics, train.images[:]), entry.input_shape[-1], entry.scale
    )
    return ImageData(
        name=name,
        train=train,
        validation=validation,
        test=test,
        mean=mean,
        std=std,
        classes=classes,
        scale=entry.scale,
    )


def _load_tfds(name: str, **options: Any) -> ImageData:
    # Imported here because TFDS takes long to load.
    from keras_iterconv.datasets.tfds_images import UnknownTfdsNameError, list_tfds, load_tfds

    try:
        return load_tfds(name, **options)
    except UnknownTfdsNameError as error:
        known = [*CATALOGUE, *list_tfds()]
        near = difflib.get_close_matches(str(name).lower(), known, n=1, cutoff=0.6)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"`dataset` must be one of {', '.join(CATALOGUE)}, or the name of an image "
            f"classification set of TensorFlow Datasets.{hint} Received: dataset={name!r}"
        ) from error


def _check_own_part(entry: DatasetEntry, image_size: Any, test_share: float) -> None:
    """Raise `ValueError` where an argument is for other data sets than those of the catalogue."""
    if image_size is not None:
        height, width, _ = entry.input_shape
        raise ValueError(
            f"`image_size` must be left out: the images of {entry.name} have {height}x{width} "
            f"pixels. Received: image_size={image_size!r}"
        )
    if test_share != TEST_SHARE:
        raise ValueError(
            f"`test_share` must be {TEST_SHARE}, the default: {entry.name} has a fixed test part. "
            f"Received: test_share={test_share}"
        )


def _cut(
    official: Split, entry: DatasetEntry, limit_train: int | None, share: float
) -> tuple[Split, Split]:
    """Return the training and the validation part of an official training part."""
    _check_share(share, entry, len(official))
    train, validation = cut(official.labels, share)
    if limit_train is not None:
        _check_limit(limit_train, entry, len(train))
        # By default a ninth of the training part, which is a tenth of both.
        wanted = round(limit_train * share / (1 - share))
        train = _limit(train, official.labels, limit_train)
        validation = _limit(validation, official.labels, wanted)
    return official.take(train), official.take(validation)


def _limit(indices: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    return indices[stratified_subset(labels[indices], count)]


def _check_share(share: float, entry: DatasetEntry, images: int) -> None:
    """Raise `ValueError` where a part would have fewer images than classes."""
    smallest = entry.num_classes / images
    if share != 0 and not smallest <= share <= 1 - smallest:
        raise ValueError(
            f"`validation_share` must be 0, or from {smallest:.4f} to {1 - smallest:.4f}, so that "
            f"both parts of the {images} images of {entry.name} have one image for each class. "
            f"Received: validation_share={share}"
        )


def _check_limit(limit: int, entry: DatasetEntry, available: int) -> None:
    if isinstance(limit, bool) or not isinstance(limit, int | np.integer):
        raise ValueError(f"`limit_train` must be an integer. Received: limit_train={limit!r}")
    if limit < entry.num_classes:
        raise ValueError(
            f"`limit_train` must be at least {entry.num_classes}, one image for each class of "
            f"{entry.name}. Received: limit_train={limit}"
        )
    if limit > available:
        raise ValueError(
            f"`limit_train` must be at most {available}, the number of training images of "
            f"{entry.name}. Received: limit_train={limit}"
        )
