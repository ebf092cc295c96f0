"""Loading trained models by name from a zoo, a folder with an index and one folder a model."""

import os
from pathlib import Path
from typing import Any

import keras

from keras_iterconv._support.checks import check_channels_last
from keras_iterconv._support.files import FileError, read_text
from keras_iterconv._support.keras_files import load_model_file
from keras_iterconv.preprocessing import Preprocessing
from keras_iterconv.zoo.hub import HUB, download_model
from keras_iterconv.zoo.index import CARD, ZooError, find_zoo, read_entry, read_index, verified_file


def load_pretrained(name: str, zoo: str | os.PathLike | None = None) -> keras.Model:
    """Return a trained model.

    The size and SHA-256 of its file must be those in the index. The file may contain only the
    classes of the named architectures; a file with code, or with a layer that can run code, is
    rejected.

    Args:
        name: Name of the model in the zoo's index; or `hf://owner/name`, a model on the Hugging
            Face Hub, also `hf://owner/name@revision`. This needs the extra `hub`.
        zoo: Folder of the zoo. None for the folder in the environment variable
            `KERAS_ITERCONV_ZOO`, or, without it, for `saved_models/` of the repository.

    Returns:
        An `IterativeModel` from standardised images to logits. It is not compiled; compile it to
        continue training. It has three more attributes: `preprocessing`, a `Preprocessing` to
        call on raw images (with `mean` and `std`, one number a channel); `class_names`, in the
        order of the logits; and `card`, its model card in Markdown. The first two are saved
        with the model. The card is not, because it describes the published weights.

    Raises:
        ValueError: The index has no such name.
        ZooError: The folder is not a zoo, the model's file differs from the published one, or
            there is no such model on the hub.

    Example:
        >>> model = ki.load_pretrained("nais_mnist")
        >>> images = np.zeros((2, 28, 28, 1))  # raw values from 0 to 255
        >>> model(model.preprocessing(images)).shape
        TensorShape([2, 10])
        >>> model.class_names[:3]
        ('0', '1', '2')

    See also:
        `list_pretrained`; `Preprocessing`; `ZooError`; `create_model`; `with_depth`.
    """
    check_channels_last()
    if isinstance(name, str) and name.startswith(HUB):
        return _load_from_hub(name, zoo)
    folder = find_zoo(zoo)
    return read_entry(folder, name, lambda entry: _load(folder, name, entry))


def list_pretrained(zoo: str | os.PathLike | None = None) -> list[str]:
    """Return the sorted names of the models in a zoo.

    Args:
        zoo: Folder of the zoo, as for `load_pretrained`.

    Raises:
        ZooError: The folder is not a zoo.

    Example:
        >>> "nais_mnist" in ki.list_pretrained()
        True

    See also:
        `load_pretrained`; `list_models`, for nets without trained weights.
    """
    return sorted(read_index(find_zoo(zoo))["models"])


def _load_from_hub(address: str, zoo: str | os.PathLike | None) -> keras.Model:
    if zoo is not None:
        raise ValueError(
            "`zoo` must be None for a model on the hub, which has its own index. "
            f"Received: name={address!r}, zoo={zoo!r}"
        )
    folder, name = download_model(address)
    try:
        return read_entry(folder, name, lambda entry: _load(folder, name, entry))
    except ZooError as error:
        raise ZooError(
            f"{error}. If the download was damaged, delete {folder}, and load {address} again"
        ) from error


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
