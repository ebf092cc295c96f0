"""The data set of a run: loading it, describing it, and the batch size that fits to it."""

import dataclasses
import platform
import shlex
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console

import keras_iterconv as ki
from iterconv.command_errors import UserError, as_user_error
from keras_iterconv.datasets import ImageData, StoredImages, load_any

from .settings import Settings

# Number of lines on what is left out, such as pictures that cannot be read.
SKIPPED_SHOWN = 10


def load_data(settings: Settings, console: Console) -> ImageData:
    """Return the data set of a run, and print which pictures are left out.

    Raises:
        UserError: A setting does not fit to the data set, or a folder holds no pictures of classes.
        DatasetError: The data set is missing or damaged.
    """
    if settings.data is not None:
        console.print(f"reading the pictures in {settings.data}", soft_wrap=True, markup=False)
    data: ImageData = as_user_error(
        load_any,
        settings.dataset,
        settings.data,
        names={"name": "dataset", "path": "data"},
        limit_train=settings.limit_train,
        validation_share=settings.validation_share,
        pixels=settings.pixels,
        image_size=settings.height_and_width(),
        test_share=settings.test_share,
    )
    for sentence in data.skipped[:SKIPPED_SHOWN]:
        console.print(f"left out: {sentence}", soft_wrap=True, markup=False, highlight=False)
    if len(data.skipped) > SKIPPED_SHOWN:
        console.print(f"left out: {len(data.skipped) - SKIPPED_SHOWN} more")
    return data


def fit_batch(settings: Settings, images: int) -> Settings:
    """Return the settings with a batch that is small enough for a small training part.

    An epoch then has at least four steps.

    Args:
        settings: The settings, with the default batch size.
        images: Number of training images.
    """
    largest = 2 ** max((images // 4).bit_length() - 1, 0)
    return dataclasses.replace(settings, batch_size=min(settings.batch_size, largest))


def refuse_unreadable(data: ImageData, error: Exception, folder: Path) -> None:
    """Raise `UserError` where an error of TensorFlow comes from a picture that is gone or damaged.

    Args:
        data: The data set.
        error: The error.
        folder: The run's folder.
    """
    images = data.train.images
    if isinstance(images, StoredImages) and images.failures:
        raise UserError(
            f"{images.failures[0]}, but could be when the run started; restore it, and continue "
            f"with: iterconv fit --resume {shlex.quote(str(folder))}"
        ) from error


def describe_run(settings: Settings, data: ImageData) -> dict[str, Any]:
    """Return the content of `config.json`: settings, facts of the data set and versions."""
    return {
        "settings": dataclasses.asdict(settings),
        "data": data.describe(),
        "versions": {
            "keras_iterconv": ki.__version__,
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "command": sys.argv,
    }
