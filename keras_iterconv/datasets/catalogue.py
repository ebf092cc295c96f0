"""The one catalogue of data sets, and how each is cut into three parts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from keras_iterconv._support.checks import unknown_name
from keras_iterconv.datasets.digitclutter import CLASSES, PARTS, SIDE, SIZES
from keras_iterconv.datasets.image_data import ImageData, Split, pixel_scaling
from keras_iterconv.datasets.splitting import VALIDATION_SHARE, cut, stratified_subset
from keras_iterconv.datasets.tfds_reader import read_tfds

DIGITS_TEST_SHARE = 0.2


@dataclass(frozen=True)
class DatasetEntry:
    """What is known of a data set before it is read.

    Args:
        name: What a user writes.
        input_shape: (H, W, C) of every image.
        num_classes: How many classes there are.
        scale: The largest raw value a pixel can have.
        read: Returns `(splits, classes)`: a dictionary with `(images uint8 [N, H, W, C],
            labels int32 [N] or [N, C])` under `"train"` and `"test"`, and the class names by label.
        available: None where the parts are to be cut. Otherwise how many training images there
            are: `read` then takes `limit_train` and returns the parts as they are to be used, one
            for `"validation"` with them.
        epochs: How long nets train on it by default, by the kind of architecture; with a number
            for `"adaptive"` ones, where each image stops by itself and an epoch costs less.
        augmented: Whether shifted (and, in colour, mirrored) images help convolutional nets.
        multi_label: Whether a picture shows several classes.
    """

    name: str
    input_shape: tuple[int, int, int]
    num_classes: int
    scale: int
    read: Callable[..., tuple[dict[str, tuple[np.ndarray, np.ndarray]], tuple[str, ...]]]
    epochs: Mapping[str, int]
    augmented: bool = False
    available: int | None = None
    multi_label: bool = False


def _read_digits():
    # Not at the top: `import keras_iterconv` does not wait for it.
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = digits.images.astype(np.uint8)[..., np.newaxis]
    labels = digits.target.astype(np.int32)
    parts = zip(("train", "test"), cut(labels, DIGITS_TEST_SHARE), strict=True)
    splits = {part: (images[indices], labels[indices]) for part, indices in parts}
    return splits, tuple(str(name) for name in digits.target_names)


def _read_digitclutter(digits: int, limit_train: int | None):
    # TFDS is wanted for a base class there, and takes its time to load.
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
        multi_label=True,
    )


def _epochs(convolutional: int, fully_connected: int, **others: int) -> dict[str, int]:
    return {"convolutional": convolutional, "fully connected": fully_connected, **others}


_CIFAR = "https://www.cs.toronto.edu/~kriz/cifar.html"
_MNIST = "https://storage.googleapis.com/cvdf-datasets/mnist/train-labels-idx1-ubyte.gz"

CATALOGUE = {
    entry.name: entry
    for entry in (
        DatasetEntry(
            "digits", (8, 8, 1), 10, 16, _read_digits, _epochs(10, 30, adaptive=15), augmented=True
        ),
        DatasetEntry(
            "mnist", (28, 28, 1), 10, 255, partial(read_tfds, "mnist", _MNIST), _epochs(5, 20)
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
    )
}


def list_datasets() -> list[str]:
    """The names that `load` knows, the default first."""
    return list(CATALOGUE)


def load(
    name: str = "digits",
    *,
    limit_train: int | None = None,
    validation_share: float = VALIDATION_SHARE,
    pixels: str = "standardized",
) -> ImageData:
    """Read a data set, cut it into training, validation and test parts, and measure it.

    Validation is a share of the official training part, stratified, a tenth by default; the test
    part is the official one, whole. `digits` has no official test part: a fifth of it, stratified,
    is held out. All cuts use one fixed seed of their own, so they do not change with the training
    seed. They follow the order of the records in the folder: two folders that hold the same images
    in another order are cut elsewhere.

    `digitclutter2` to `digitclutter5` have a validation part of their own. They are drawn into the
    TFDS folder at the first use, which takes a minute or two; with a limit no more than the limited
    set is drawn.

    Args:
        name: One of `list_datasets()`.
        limit_train: Keep this many training images, in proportion by class as far as whole images
            permit, and as many for validation as keep its share (a ninth of them by default).
            `None` keeps all. Of Digitclutter: the first so many, and a tenth as many for
            validation.
        validation_share: The share of the official training part that is cut off for validation,
            in [0, 1); 0 trains on all of it and leaves the validation part empty.
        pixels: `"standardized"` by mean and standard deviation of the training part, after the cut
            and the limit; or `"unit"`, values from 0 to 1.

    Returns:
        An `ImageData`.

    Raises:
        ValueError: If the name or `pixels` is unknown, the limit is less than one image a class or
            more than the training part holds, the share leaves a part with less than one image a
            class, or a data set with a validation part of its own is to be cut.
        DatasetNotFoundError: If it is not in the TFDS folder and cannot be downloaded.
        DatasetError: If it is to be drawn and cannot be written to the TFDS folder.
        DatasetCorruptedError: If it is in the TFDS folder but cannot be read.

    Example:
        >>> data = keras_iterconv.datasets.load("digits", limit_train=900)
        >>> len(data.train), len(data.validation), len(data.test), data.scale
        (900, 100, 360, 16)
    """
    if name not in CATALOGUE:
        raise ValueError(unknown_name("dataset", name, CATALOGUE))
    entry = CATALOGUE[name]
    if entry.available is not None:
        if limit_train is not None:
            _check_limit(limit_train, entry, entry.available)
        if validation_share != VALIDATION_SHARE:
            raise ValueError(
                f"`validation_share` must be {VALIDATION_SHARE}, the default: {name} has a "
                f"validation part of its own. Received: validation_share={validation_share}"
            )
        splits, classes = entry.read(limit_train)
        train, validation, test = (Split(*splits[part]) for part in PARTS)
    else:
        splits, classes = entry.read()
        official, test = Split(*splits["train"]), Split(*splits["test"])
        train, validation = _cut(official, entry, limit_train, validation_share)
    mean, std = pixel_scaling(pixels, train.images, entry.scale)
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


def _cut(
    official: Split, entry: DatasetEntry, limit_train: int | None, share: float
) -> tuple[Split, Split]:
    """Cut an official training part into one for training and one for validation."""
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
    """Refuse a share that leaves the training or the validation part without some class."""
    smallest = entry.num_classes / images
    if share != 0 and not smallest <= share <= 1 - smallest:
        raise ValueError(
            f"`validation_share` must be 0, or from {smallest:.4f} to {1 - smallest:.4f}, so that "
            f"both parts of the {images} images of {entry.name} have one for each class. "
            f"Received: validation_share={share}"
        )


def _check_limit(limit: int, entry: DatasetEntry, available: int) -> None:
    if isinstance(limit, bool) or not isinstance(limit, int | np.integer):
        raise ValueError(f"`limit_train` must be a whole number. Received: limit_train={limit!r}")
    if limit < entry.num_classes:
        raise ValueError(
            f"`limit_train` must be at least {entry.num_classes}, one image for each class of "
            f"{entry.name}. Received: limit_train={limit}"
        )
    if limit > available:
        raise ValueError(
            f"`limit_train` must be at most {available}, the images in the training part of "
            f"{entry.name}. Received: limit_train={limit}"
        )
