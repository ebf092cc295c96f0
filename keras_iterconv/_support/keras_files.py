"""Loading of untrusted `.keras` files, limited to the classes of the named architectures.

Keras's safe mode rejects Python code in a file, but not layers that call any function of Keras,
open files, or read assets. So a file is checked before Keras loads it, and only the classes that
the named architectures consist of are allowed.
"""

import contextlib
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras

from keras_iterconv._support.files import TEXT_LIMIT, FileError, open_regular, parse_json

_CONFIG = "config.json"
# The members that Keras writes, and the one that a checkpoint of `training.fit` adds. Assets, which
# are files that layers read, are not allowed.
_MEMBERS = {"metadata.json", _CONFIG, "model.weights.h5", "training.json"}
# Bytes of a file; many times the largest named net with its optimizer's state.
_FILE_LIMIT = 2 * 2**30
# Largest ratio of unpacked to packed size. Keras does not compress members, but a user may have.
_EXPANSION = 20

_PACKAGE = "keras_iterconv>"
# The class name of a symbolic tensor, which refers to a layer of the same file.
_TENSOR = "__keras_tensor__"
_ALLOWED = {
    "keras": {"DTypePolicy"},
    "keras.initializers": {
        *("Constant", "GlorotNormal", "GlorotUniform", "HeNormal", "HeUniform", "LecunNormal"),
        *("LecunUniform", "Ones", "Orthogonal", "RandomNormal", "RandomUniform"),
        *("TruncatedNormal", "VarianceScaling", "Zeros"),
    },
    "keras.layers": {
        *("Activation", "Add", "BatchNormalization", "Concatenate", "Conv2D", "Dense", "Flatten"),
        *("GlobalAveragePooling2D", "GlobalMaxPooling2D", "InputLayer", "ReLU", "Rescaling"),
        "Reshape",
    },
    # A model inside a layer; its own layers are checked as well.
    "keras.src.models.functional": {"Functional"},
    "keras.src.ops.numpy": {"All", "Less", "LogicalNot", "ZerosLike"},
}


class ForeignModelError(FileError):
    """A file contains an object that no net of this package has, for example code."""


def load_model_file(file: Path) -> keras.Model:
    """Return a model that a run of this package has saved, not compiled.

    Args:
        file: A `.keras` file, which may be untrusted.

    Raises:
        FileError: As for `checked_copy`, or Keras cannot load it.
    """
    with checked_copy(file) as copy:
        try:
            return keras.models.load_model(copy, compile=False, safe_mode=True)
        # A damaged file raises various exceptions of zip, HDF5, Keras or a layer.
        except Exception as error:
            raise FileError(
                f"{file} is no model that can be loaded "
                f"({type(error).__name__}: {_one_line(error)})"
            ) from error


def save_model_file(model: keras.Model, file: Path) -> None:
    """Write a model to a `.keras` file.

    Raises:
        OSError: The file cannot be written, on a full disk for example.
    """
    try:
        model.save(file)
    except RuntimeError as error:
        # HDF5 raises it where memory is short and Keras writes the weights to the disk first.
        raise OSError(_one_line(error)) from error


@contextlib.contextmanager
def checked_copy(file: Path) -> Iterator[Path]:
    """Yield a checked copy of a `.keras` file that contains a net of this package and nothing else.

    The copy is checked, and no other user can write to it; the file itself could be replaced
    between check and loading. The check does not deserialise any object.

    Args:
        file: The file.

    Yields:
        The copy; it is removed at the end.

    Raises:
        FileError: It is no such file, or too large.
        ForeignModelError: It holds a class, a function or a member that no named net has.
    """
    with tempfile.TemporaryDirectory() as private:
        # Keras derives the format from the name.
        copy = Path(private) / "model.keras"
        _copy(file, copy)
        try:
            with zipfile.ZipFile(copy) as archive:
                _check_members(file, archive, copy.stat().st_size)
                text = archive.read(_CONFIG)
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError) as error:
            raise FileError(
                f"{file} is no model that can be loaded: it is damaged ({_one_line(error)})"
            ) from error
        _check_config(file, text)
        yield copy


def _copy(file: Path, copy: Path) -> None:
    with open_regular(file) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size > _FILE_LIMIT:
            raise FileError(
                f"{file} is not loaded: it has {size:,} bytes; at most {_FILE_LIMIT:,} were "
                "expected"
            )
        try:
            with copy.open("xb") as target:
                shutil.copyfileobj(stream, target)
        except OSError as error:
            raise FileError(
                f"{file} could not be copied to {copy.parent}, to be checked: {error.strerror}"
            ) from error


def _check_config(file: Path, text: bytes) -> None:
    config = parse_json(text, {"type": "object"}, f"{_CONFIG} in {file}")
    # Keras also ignores it when it loads a model without compiling it.
    config.pop("compile_config", None)
    for node in _nodes(config):
        if "class_name" in node and not _is_allowed(node):
            raise ForeignModelError(
                f"{file} is not loaded: it holds {_description(node)}, which no net of this "
                "package has and which may run code or touch files. Load it by "
                "`keras.models.load_model` if you know who wrote it"
            )


def _check_members(file: Path, archive: zipfile.ZipFile, size: int) -> None:
    members = archive.infolist()
    names = [member.filename for member in members]
    unknown = sorted({name for name in names if name not in _MEMBERS or names.count(name) > 1})
    if unknown or _CONFIG not in names:
        found = f"{unknown[0][:100]!r}" if unknown else f"no {_CONFIG}"
        raise ForeignModelError(f"{file} is not loaded: a model's archive does not hold {found}")
    limit = TEXT_LIMIT + _EXPANSION * size
    for member in members:
        most = TEXT_LIMIT if member.filename.endswith(".json") else limit
        if member.file_size > most:
            raise FileError(
                f"{file} is not loaded: {member.filename} in it has {member.file_size:,} bytes; at "
                f"most {most:,} were expected"
            )


def _nodes(content: Any) -> Iterator[dict[str, Any]]:
    """Yield all objects of parsed JSON, without recursion."""
    left = [content]
    while left:
        node = left.pop()
        if isinstance(node, dict):
            yield node
            left.extend(node.values())
        elif isinstance(node, list):
            left.extend(node)


def _is_allowed(node: dict[str, Any]) -> bool:
    """Return whether a serialised object is of an allowed class.

    Keras looks up special class names first, then the registered name, then the class in the
    module. An object without a module is read as of older formats, which find any layer by its
    class name alone.
    """
    name, module = node["class_name"], node.get("module")
    registered = node.get("registered_name")
    if not isinstance(name, str) or not isinstance(module, str | None):
        return False
    if registered == f"{_PACKAGE}{name}":
        return keras.saving.get_registered_object(registered) is not None
    if registered not in (None, name):
        return False
    return name == _TENSOR if module is None else name in _ALLOWED.get(module, ())


def _description(node: dict[str, Any]) -> str:
    place = node.get("module") or node.get("registered_name") or "no module"
    return f"`{str(node['class_name'])[:100]}` ({str(place)[:100]})"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
