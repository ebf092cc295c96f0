"""Trained models by name, from a zoo: a folder with an index and a folder for each model."""

import os
from pathlib import Path
from typing import Any

import keras

from keras_iterconv._support.checks import check_channels_last
from keras_iterconv._support.files import FileError, read_text
from keras_iterconv._support.keras_files import load_model_file
from keras_iterconv.preprocessing import Preprocessing
from keras_iterconv.zoo.index import CARD, ZooError, find_zoo, read_entry, read_index, verified_file


def load_pretrained(name: str, zoo: str | os.PathLike | None = None) -> keras.Model:
    """Load a trained model.

    Its file is compared with the index by size and SHA-256, and may hold only what named nets are
    made of; code in it, or a layer that could run some, is refused.

    Args:
        name: Its name in the zoo's index.
        zoo: The zoo's folder. Where None, the one that the environment variable
            `KERAS_ITERCONV_ZOO` names, else the checkout's `saved_models/`.

    Returns:
        An `IterativeModel` from standardised images to logits, not compiled: compile it, and go
        on training. Three attributes say how it is used: `preprocessing`, a `Preprocessing` to
        call on raw images (with `mean` and `std`, a number a channel); `class_names`, in the
        order of the logits; and `card`, the text of its card, Markdown. The first two are saved
        with the model; the card, which describes the published weights, is not.

    Raises:
        ValueError: There is no such name.
        ZooError: There is no zoo there, or the model's file is not the one that was published.

    Example:
        >>> model = load_pretrained("nais_mnist")
        >>> logits = model(model.preprocessing(images))
    """
    check_channels_last()
    folder = find_zoo(zoo)
    return read_entry(folder, name, lambda entry: _load(folder, name, entry))


def list_pretrained(zoo: str | os.PathLike | None = None) -> list[str]:
    """Return the names that `load_pretrained` takes.

    Args:
        zoo: The zoo's folder, as for `load_pretrained`.

    Raises:
        ZooError: There is no zoo there.
    """
    return sorted(read_index(find_zoo(zoo))["models"])


def _load(folder: Path, name: str, entry: dict[str, Any]) -> keras.Model:
    path = verified_file(folder, name, entry, ".keras")
    card = verified_file(folder, name, entry, f"/{CARD}")
    try:
        model = load_model_file(path)
        model.card = read_text(card)
    except FileError as error:
        raise ZooError(str(error)) from error
    model.preprocessing = Preprocessing(tuple(entry["mean"]), tuple(entry["std"]))
    model.class_names = tuple(entry["classes"])
    return model
