"""Trained models by name, from a zoo: a folder with an index and a folder for each model."""

import hashlib
import json
import os
from pathlib import Path

import keras

from keras_iterconv.checks import check_channels_last
from keras_iterconv.naming import unknown_name

INDEX = "index.json"
VARIABLE = "KERAS_ITERCONV_ZOO"


class ZooError(ValueError):
    """A zoo, or a model in it, is not what it says it is."""


def load_pretrained(name: str, zoo: str | os.PathLike | None = None) -> keras.Model:
    """Load a trained model.

    Args:
        name: Its name in the zoo's index.
        zoo: The zoo's folder. Where None, the one that the environment variable
            `KERAS_ITERCONV_ZOO` names, else the checkout's `saved_models/`.

    Returns:
        An `IterativeModel` from standardised images to logits, not compiled: compile it, and go
        on training. Its card in the zoo says how the images are standardised.

    Raises:
        ValueError: There is no such name.
        ZooError: There is no zoo there, or the model's file is not the one that was published.

    Example:
        >>> model = load_pretrained("nais_mnist")
    """
    check_channels_last()
    folder = find_zoo(zoo)
    models = read_index(folder)["models"]
    if not isinstance(name, str) or name not in models:
        raise ValueError(unknown_name("name", name, models))
    path = verified_file(folder, name, models[name], ".keras")
    return keras.models.load_model(path, compile=False, safe_mode=True)


def find_zoo(zoo: str | os.PathLike | None = None) -> Path:
    """Return the zoo's folder.

    Raises:
        ZooError: It has no index.
    """
    checkout = Path(__file__).parents[2] / "saved_models"
    folder = Path(zoo or os.environ.get(VARIABLE) or checkout)
    if not (folder / INDEX).is_file():
        raise ZooError(
            f"{folder} holds no zoo: {INDEX} is missing. Name a folder that `export.publish` has "
            f"written, as `zoo` or in the environment variable {VARIABLE}."
        )
    return folder


def read_index(folder: Path) -> dict:
    """Return a zoo's index.

    Raises:
        ZooError: It is no index.
    """
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ZooError(f"{folder / INDEX} cannot be read: {error}") from error
    if not isinstance(index, dict) or not isinstance(index.get("models"), dict):
        raise ZooError(f"{folder / INDEX} is no index: it must be an object with `models`")
    return index


def verified_file(folder: Path, name: str, entry: dict, suffix: str) -> Path:
    """Return the path of a published file, after its contents have been checked.

    Raises:
        ZooError: The entry names no such file, one outside of its folder, or one that was changed.
    """
    files = entry.get("files") if isinstance(entry, dict) else None
    files = files if isinstance(files, dict) else {}
    chosen = [path for path in files if path.endswith(suffix)]
    if len(chosen) != 1:
        raise ZooError(
            f"{folder / INDEX}: {name!r} must name one file *{suffix}; it names {chosen}"
        )
    return verified_path(folder, name, chosen[0], files[chosen[0]])


def verified_path(folder: Path, name: str, file: str, facts: dict) -> Path:
    """Return the path of a file that the index names, after its contents have been checked.

    Args:
        folder: The zoo's folder.
        name: The model's name.
        file: The file, relative to the zoo.
        facts: What the index says of it.

    Raises:
        ZooError: It lies outside the model's folder, is missing, or was changed.
    """
    path = (folder / file).resolve()
    if not path.is_relative_to(folder.resolve() / name):
        raise ZooError(
            f"{folder / INDEX}: {name!r} names {file}, which lies outside the model's folder"
        )
    if not path.is_file():
        raise ZooError(f"{path} is missing; publish {name!r} again, or restore the file")
    if not isinstance(facts, dict) or sha256(path) != facts.get("sha256"):
        raise ZooError(
            f"{file} is not the file that was published as {name!r}: its SHA-256 differs from the "
            "index's. Restore the file, or publish the model again"
        )
    return path


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
