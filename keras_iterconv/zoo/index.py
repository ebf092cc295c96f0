"""The index of a zoo: its location, its schema, and verification of the files that it names."""

import functools
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from keras_iterconv._support.checks import unknown_name
from keras_iterconv._support.errors import CorrectableError
from keras_iterconv._support.files import FileError, open_regular, read_json

INDEX = "index.json"
CARD = "README.md"
VARIABLE = "KERAS_ITERCONV_ZOO"
CHECKOUT_ZOO = Path(__file__).parents[2] / "saved_models"

Found = TypeVar("Found")


class ZooError(CorrectableError, ValueError):
    """A zoo is missing or invalid, or a file in it differs from the published one.

    Example:
        >>> ki.load_pretrained("nais10_digits", zoo="no-zoo")
        Traceback (most recent call last):
            ...
        keras_iterconv.zoo.index.ZooError: no-zoo is not a zoo: index.json is missing. Give the...

    See also:
        `load_pretrained`; `list_pretrained`.
    """


def find_zoo(zoo: str | os.PathLike | None = None) -> Path:
    """Return the zoo's folder.

    Raises:
        ZooError: The folder has no index.
    """
    if zoo is not None and not os.fspath(zoo):
        raise ZooError(f"`zoo` must name a folder. Received: zoo={zoo!r}")
    given = zoo or os.environ.get(VARIABLE)
    folder = Path(given or CHECKOUT_ZOO)
    # Unlike `Path.is_file`, it returns False for a name that is invalid on this system.
    if os.path.isfile(folder / INDEX):
        return folder
    if given:
        raise ZooError(
            f"{folder} is not a zoo: {INDEX} is missing. Give the path of a folder that "
            "`iterconv publish` has written, as `zoo` or in the environment variable "
            f"{VARIABLE}"
        )
    raise ZooError(
        "an installed package contains no trained models; they are in the folder saved_models/ of "
        f"the project's repository. Give its path, as `zoo` or in the environment variable "
        f"{VARIABLE}, or publish a run of your own by `iterconv publish RUN --zoo FOLDER`"
    )


def read_index(folder: Path) -> dict[str, Any]:
    """Return the index of a zoo, checked against its schema.

    Raises:
        ZooError: The file is not a valid index, or names a file outside the model's folder.
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
    """Return the result of `read`, called again where the model was replaced meanwhile.

    A publication that replaces a model removes the old files after it has changed the index.

    Args:
        folder: Folder of the zoo.
        name: Name of the model.
        read: Function of the model's entry in the index, which reads the model's files.

    Raises:
        ValueError: The index has no such name.
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
    """Return the path of a published file with a suffix, after its contents have been checked.

    Raises:
        ZooError: The entry names no such file or several, or a file that is outside the model's
            folder, missing or changed.
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
        folder: Folder of the zoo.
        name: Name of the model.
        file: Path of the file, relative to the zoo.
        facts: Size and SHA-256 of the file in the index.

    Raises:
        ZooError: The file is outside the model's folder, missing or changed.
    """
    path = (folder / file).resolve()
    if not path.is_relative_to(folder.resolve() / name):
        raise ZooError(
            f"{folder / INDEX}: {name!r} names {file}, which lies outside the model's folder"
        )
    try:
        with open_regular(path) as stream:
            size = os.fstat(stream.fileno()).st_size
            # The size is compared first: hashing a very large file takes long.
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
