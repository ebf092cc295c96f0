"""Any image classification set of TensorFlow Datasets: features `image` and `label`."""

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_iterconv.datasets.assembly import (
    TEST_SHARE,
    assemble,
    check_shares,
    choose_size,
    cut_off,
    limited,
    survey,
)
from keras_iterconv.datasets.image_data import PARTS, ImageData
from keras_iterconv.datasets.splitting import VALIDATION_SHARE
from keras_iterconv.datasets.stored_images import StoredImages
from keras_iterconv.datasets.tfds_reader import (
    DatasetCorruptedError,
    DatasetError,
    download,
    first_line,
    tfds_folder,
)
from keras_iterconv.datasets.tfds_records import scan

# TFDS asks it at each download, whatever the source of a data set.
_PROBED = "https://storage.googleapis.com"
# Name, config and version.
_NAME = re.compile(r"[a-z][a-z0-9_]*(/[\w.=,-]+)?(:\d+\.\d+\.\d+)?")


class UnknownTfdsNameError(ValueError):
    """The error for a name that no data set of TensorFlow Datasets has."""


def load_tfds(
    name: str,
    *,
    image_size: int | Sequence[int] | None,
    validation_share: float,
    test_share: float,
    limit_train: int | None,
    pixels: str,
) -> ImageData:
    """Return an image classification set of TensorFlow Datasets; see `load`.

    Raises:
        UnknownTfdsNameError: There is no data set of this name.
        ValueError: It is no image classification set, or another argument is out of range.
        DatasetNotFoundError: The data set is not in the TFDS folder and cannot be downloaded.
        DatasetCorruptedError: The data set is in the TFDS folder but cannot be read.
    """
    builder, prepared = _find_builder(name)
    image, label = _features(name, builder)
    if not prepared:  # Refused before, since a download can be large.
        download(builder, tfds_folder(), _PROBED)
    present = _present_parts(name, builder)
    damaged = (
        f"Data set {name!r} in {builder.data_path.parent} is damaged ({{}}): delete that folder "
        "and run again with a connection, or set TFDS_DATA_DIR to another."
    )
    splits = [builder.info.splits[split] for split in present.values()]
    try:
        records, numbers = scan(splits, with_sizes=None in image.shape[:2])
    except (ValueError, LookupError, OSError, tf.errors.OpError) as error:
        raise DatasetCorruptedError(damaged.format(first_line(error))) from error
    own = {part: found for part, found in zip(present, numbers, strict=True) if len(found)}
    parts = _cut_parts(name, records.labels, own, validation_share, test_share, limit_train)
    sizes = records.sizes or {image.shape[:2]}
    channels = 1 if image.shape[2] == 1 else 3
    shape = (*choose_size(image_size, sizes), channels)
    chosen = np.concatenate(parts)
    seen = survey(StoredImages(records.read, chosen, shape))
    if seen.broken:
        raise DatasetCorruptedError(damaged.format(next(iter(seen.broken.values()))))
    bounds = np.cumsum([0, *map(len, parts)])
    train, validation, test = (np.arange(*bounds[i : i + 2]) for i in range(len(PARTS)))
    classes = tuple(label.names)
    return assemble(
        name,
        seen,
        records.labels[chosen],
        (train, validation, test),
        classes,
        pixels,
        sha256=records.sha256,
    )


def is_prepared(name: str) -> bool:
    """Return whether the TFDS folder holds the data set that `load_tfds` reads.

    Raises:
        DatasetError: It needs a package of its own, or is damaged.
    """
    try:
        return _find_builder(name)[1]
    except UnknownTfdsNameError:
        return False


def list_tfds() -> list[str]:
    """Return the names of the data sets that TensorFlow Datasets can make."""
    import tensorflow_datasets as tfds

    return tfds.list_builders(with_community_datasets=False)


def _find_builder(name: str) -> tuple[Any, bool]:
    """Return the builder of a data set, and whether the TFDS folder holds what it reads."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.read_only_builder import builder_from_files

    folder = tfds_folder()
    if not _NAME.fullmatch(name):
        raise UnknownTfdsNameError(name)
    place = Path(folder, re.split("[/:]", name)[0])
    try:
        builder = tfds.builder(name, data_dir=folder)
    except ImportError as error:
        raise DatasetError(
            f"Data set {name!r} needs a package of its own ({first_line(error)}): install it."
        ) from error
    except Exception as error:
        if not place.exists():
            raise UnknownTfdsNameError(name) from error
        raise DatasetCorruptedError(
            f"Data set {name!r} in {place} is damaged ({first_line(error)}): delete that folder "
            "and run again with a connection, or set TFDS_DATA_DIR to another."
        ) from error
    if builder.data_path.exists():
        return builder, True
    if place.exists():
        # Another version than that of the installed package.
        with suppress(Exception):
            return builder_from_files(name, data_dir=folder), True
    return builder, False


def _features(name: str, builder: Any) -> tuple[Any, Any]:
    """Return the features of images and of labels.

    Raises:
        ValueError: The data set has no such features, or they are of another kind.
    """
    import tensorflow_datasets as tfds

    features = builder.info.features
    keys = list(features) if isinstance(features, tfds.features.FeaturesDict) else []
    image, label = (features[key] if key in keys else None for key in ("image", "label"))
    is_image = isinstance(image, tfds.features.Image) and image.np_dtype == np.uint8
    is_label = isinstance(label, tfds.features.ClassLabel) and (label.num_classes or 0) > 1
    if not is_image or not is_label:
        raise ValueError(
            "`dataset` must be an image classification set: with a feature `image` of 8 bits and a "
            f"feature `label` of at least two classes. Received: dataset={name!r}, with the "
            f"features {', '.join(keys) or type(features).__name__}"
        )
    return image, label


def _present_parts(name: str, builder: Any) -> dict[str, str]:
    """Return the splits that the parts train, validation and test are read from."""
    splits = builder.info.splits
    file_format = builder.info.file_format
    if file_format is not None and file_format.value != "tfrecord":
        raise DatasetError(
            f"Data set {name!r} in {builder.data_path} has files of the format "
            f"{file_format.value}: prepare it with TFDS's default format, tfrecord."
        )
    if "train" not in splits and len(splits) == 1:
        return {"train": next(iter(splits))}
    if "train" not in splits:
        raise ValueError(
            "`dataset` must have a split train, or only one split. "
            f"Received: dataset={name!r}, with the splits {', '.join(splits)}"
        )
    return {part: part for part in PARTS if part in splits}


def _cut_parts(
    name: str,
    labels: np.ndarray,
    own: dict[str, np.ndarray],
    validation_share: float,
    test_share: float,
    limit_train: int | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the numbers of the records of the training, validation and test part.

    Without labelled test images the validation split is the test part, as in the papers on such
    sets; what is missing then is cut off the training part.
    """
    parts = dict(own)
    if "train" not in parts:
        raise ValueError(
            f"`dataset` must have labelled training images. Received: dataset={name!r}"
        )
    if "test" not in parts and "validation" in parts:
        parts["test"] = parts.pop("validation")
    for part, given, default in (
        ("validation", validation_share, VALIDATION_SHARE),
        ("test", test_share, TEST_SHARE),
    ):
        if part in parts and given != default:
            raise ValueError(
                f"`{part}_share` must be {default}, the default: {name} has its own {part} part. "
                f"Received: {part}_share={given}"
            )
    check_shares(validation_share, test_share)
    train = parts["train"]
    if "test" not in parts:
        train, parts["test"] = cut_off(labels, train, test_share)
    share = 0.0
    if "validation" not in parts:
        train, parts["validation"] = cut_off(labels, train, validation_share)
        share = validation_share
    train, validation = limited(labels, train, parts["validation"], limit_train, share)
    if not len(parts["test"]):
        raise ValueError(
            f"`dataset` must have at least two images of a class. Received: dataset={name!r}"
        )
    return train, validation, parts["test"]
