"""The data set of a published model, as far as it can be found again."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_iterconv.datasets import (
    CATALOGUE,
    TEST_SHARE,
    DatasetError,
    ImageData,
    load_any,
)
from keras_iterconv.datasets.tfds_reader import tfds_folder
from keras_iterconv.runs import FinishedRun

# How a picture file becomes an image, for the card and the metadata.
READING = (
    "upright as its EXIF orientation says; transparent parts over black or white, whichever is "
    "farther from the mean of what is visible; the largest centred part of the aspect ratio, "
    "averaged over boxes or resized bilinearly with antialiasing"
)


def describe_source(run: FinishedRun) -> dict[str, Any] | None:
    """Return where the images of a run come from, for the index; None for the catalogue's."""
    if run.settings["dataset"] in CATALOGUE:
        return None
    return {
        "folder": run.settings.get("data"),
        "test_share": run.settings.get("test_share", TEST_SHARE),
        "sha256": run.data.get("sha256"),
    }


def task_name(dataset: str) -> str:
    """Return the name of the task of a data set."""
    return CATALOGUE[dataset].task if dataset in CATALOGUE else "classes"


def load_published(
    dataset: str, input_shape: Sequence[int], source: Mapping[str, Any] | None
) -> ImageData:
    """Return the data set of a model, whose test part is the one of the model's training.

    Args:
        dataset: Its name.
        input_shape: The shape of the model's images.
        source: Where they come from, as of `describe_source`.

    Raises:
        DatasetError: It is not on this machine, or is another one than in the training.
    """
    if source is None and dataset in CATALOGUE:
        return load_any(dataset, None)
    if source is None:
        raise DatasetError(f"The source of the data set {dataset!r} is not given.")
    folder = source["folder"]
    # Not downloaded: the index may name any data set.
    place = Path(tfds_folder(), re.split("[/:]", dataset)[0] or ".") if folder is None else folder
    if not Path(place).is_dir():
        raise DatasetError(f"Its pictures are not on this machine: {place} is not a folder.")
    try:
        data = load_any(
            dataset, folder, image_size=input_shape[:2], test_share=source["test_share"]
        )
    except ValueError as error:
        raise DatasetError(f"Its pictures in {place} cannot be read: {error}.") from error
    same = data.sha256 == source["sha256"] and list(data.input_shape) == list(input_shape)
    if not same:
        raise DatasetError(f"The pictures in {place} are not those of the training.")
    return data
