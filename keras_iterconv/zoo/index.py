"""A zoo's index: where it is, what it must hold, and the files that it names, verified."""

import functools
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from keras_iterconv._support.checks import unknown_name
from keras_iterconv._support.files import FileError, open_regular, read_json

INDEX = "index.json"
CARD = "README.md"
VARIABLE = "KERAS_ITERCONV_ZOO"
CHECKOUT_ZOO = Path(__file__).parents[2] / "saved_models"

Found = TypeVar("Found")


class ZooError(ValueError):
    """A zoo, or a model in it, is not what it says it is."""


def find_zoo(zoo: str | os.PathLike | None = None) -> Path:
    """Return the zoo's folder.

    Raises:
        ZooError: It has no index.
    """
    if zoo is not None and not os.fspath(zoo):
        raise ZooError(f"`zoo` must name a folder. Received: zoo={zoo!r}")
    given = zoo or os.environ.get(VARIABLE)
    folder = Path(given or CHECKOUT_ZOO)
    # Unlike `Path.is_file`, it is false for a name that no system takes.
    if os.path.isfile(folder / INDEX):
        return folder
    if given:
        raise ZooError(
            f"{folder} holds no zoo: {INDEX} is missing. Name a folder that `iterconv publish` has "
            f"written, as `zoo` or in the environment variable {VARIABLE}"
        )
    raise ZooError(
        "an installed package brings no trained models; they are in the folder saved_models/ of "
        f"the project's repository. Name its path, as `zoo` or in the environment variable "
        f"{VARIABLE}, or publish a run of your own by `iterconv publish RUN --zoo FOLDER`"
    )


def read_index(folder: Path) -> dict[str, Any]:
    """Return a zoo's index, after it was checked against its schema.

    Raises:
        ZooError: It is no index, or names a file that is not in its model's folder.
    """
    try:
        index = read_json(folder / INDEX, index_schema())
    except FileError as error:
        raise ZooError(str(error)) from error
    for name, entry in index["models"].items():
        for file in entry["files"]:
            if not file.startswith(f"{name}/"):
                raise ZooError(
                    f"{folder / INDEX}: {name!r} names {file}, which lies outside the model's "
                    "folder"
                )
    return index


@functools.cache
def index_schema() -> dict[str, Any]:
    """Return the JSON schema of a zoo's index."""
    file = Path(__file__).with_name("index.schema.json")
    return json.loads(file.read_text(encoding="utf-8"))


def read_entry(folder: Path, name: str, read: Callable[[dict[str, Any]], Found]) -> Found:
    """Read the files of a published model, again where it was replaced meanwhile.

    A publication that replaces a model removes the old files once the new ones count.

    Args:
        folder: The zoo's folder.
        name: The model's name.
        read: From what the index says of the model to what is wanted.

    Raises:
        ValueError: There is no such name.
        ZooError: The index cannot be read.
    """
    entry = _find_entry(folder, name)
    while True:
        try:
            return read(entry)
        except Exception:
            current = _find_entry(folder, name)
            if current == entry:
                raise
            entry = current


def _find_entry(folder: Path, name: str) -> dict[str, Any]:
    models = read_index(folder)["models"]
    if not isinstance(name, str) or name not in models:
        raise ValueError(unknown_name("name", name, models))
    return models[name]


def verified_file(folder: Path, name: str, entry: dict[str, Any], suffix: str) -> Path:
    """Return the path of a published file, after its contents have been checked.

    Raises:
        ZooError: The entry names no such file, one outside of its folder, or one that was changed.
    """
    files = entry["files"]
    chosen = [path for path in files if path.endswith(suffix)]
    if len(chosen) != 1:
        raise ZooError(
            f"{folder / INDEX}: {name!r} must name one file *{suffix}; it names {chosen}"
        )
    return verified_path(folder, name, chosen[0], files[chosen[0]])


def verified_path(folder: Path, name: str, file: str, facts: dict[str, Any]) -> Path:
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
    try:
        with open_regular(path) as stream:
            size = os.fstat(stream.fileno()).st_size
            # A file of any size can be planted; reading it to its end may take hours.
            difference = f"it has {size:,} bytes instead of {facts['bytes']:,}"
            if size == facts["bytes"]:
                difference = "its SHA-256 differs from the index's"
                if hashlib.file_digest(stream, "sha256").hexdigest() == facts["sha256"]:
                    return path
    except FileError as error:
        raise ZooError(f"{error}; publish {name!r} again, or restore the file") from error
    raise ZooError(
        f"{file} is not the file that was published as {name!r}: {difference}. Restore the file, "
        "or publish the model again"
    )
