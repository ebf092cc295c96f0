"""The data set of a published model, as far as it can be found again."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keras_iterconv.datasets.any_source import load_any
from keras_iterconv.datasets.catalogue import CATALOGUE
from keras_iterconv.datasets.image_data import ImageData
from keras_iterconv.datasets.tfds_images import is_prepared
from keras_iterconv.datasets.tfds_reader import DatasetError, tfds_folder


def load_published_data(entry: Mapping[str, Any]) -> ImageData:
    """Return the data set of a model of a zoo; its test part is the one of the model's training.

    Nothing is downloaded but the sets of the catalogue: an index may name any data set.

    Args:
        entry: The model's entry in the index.

    Raises:
        DatasetError: It is not on this machine, or has changed since the training.

    Example:
        >>> ki.datasets.load_published_data({"dataset": "digits"}).name
        'digits'

    See also:
        `datasets.load`; `load_pretrained`.
    """
    name, source = str(entry.get("dataset")), entry.get("data_source")
    if source is None and name in CATALOGUE:
        return load_any(name, None)
    if source is None:
        raise DatasetError(f"It is not known where the images of {name!r} come from.")
    folder = source["folder"]
    place = Path(tfds_folder(), re.split("[/:]", name)[0]) if folder is None else Path(folder)
    if not place.is_dir():
        raise DatasetError(
            f"The images of {name} are not on this machine: {place} is not a folder."
        )
    if folder is None and not is_prepared(name):
        raise DatasetError(
            f"The images of {name} are not on this machine: {place} holds other versions or "
            "configurations."
        )
    height, width, channels = entry["input_shape"]
    try:
        data = load_any(name, folder, image_size=(height, width), test_share=source["test_share"])
    except ValueError as error:
        raise DatasetError(f"The images of {name} cannot be read: {error}.") from error
    if data.sha256 != source["sha256"] or data.input_shape != (height, width, channels):
        raise DatasetError(f"The images of {name} in {place} are not those of the training.")
    return data
