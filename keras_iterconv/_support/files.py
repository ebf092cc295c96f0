"""Writing files completely or not at all, and reading untrusted files.

A folder given by a user may contain malicious files: links, files of gigabytes, or JSON that is
nested a million times. The functions here do not follow links when they write, do not block on
devices, and do not read more than a limit.
"""

import contextlib
import json
import math
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any, NoReturn

import jsonschema

from keras_iterconv._support.errors import CorrectableError

STAGED_PREFIX = ".partial-"
# The names that `tempfile` gives to folders of this prefix.
STAGED = re.compile(re.escape(STAGED_PREFIX) + "[a-z0-9_]{8}")
# Bytes; far more than any configuration, result or index of this package has.
TEXT_LIMIT = 64 * 2**20


# In the JSON schema draft 1.0 is an integer, but not in Python.
_Validator = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda checker, value: isinstance(value, int) and not isinstance(value, bool)
    ),
)


class FileError(CorrectableError, ValueError):
    """A file is missing or invalid; the message is one line."""


@contextlib.contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Yield a path to write to, and replace `file` by the written file at the end.

    After a kill, a full disk or an exception the old file is unchanged. The path lies in a new
    folder of an unpredictable name to which no other user can write. It has the name of `file`,
    because Keras and Matplotlib derive the format from the suffix. Where `file` is a link, the
    link is replaced, and its target does not change.

    Args:
        file: File to replace or create; its folder must exist.

    Yields:
        The path to write to.

    Raises:
        OSError: The file could not be written; the old one is unchanged.
    """
    folder = Path(tempfile.mkdtemp(prefix=STAGED_PREFIX, dir=file.parent))
    partial = folder / file.name
    try:
        yield partial
        sync(partial)
        os.replace(partial, file)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            folder.rmdir()


@contextlib.contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Yield the path of a folder to write, and put it in the place of `folder` at the end.

    After an exception the old folder is unchanged. The path lies in a new folder to which no other
    user can write; nothing is there yet.

    Args:
        folder: Folder to replace or create; the folder around it must exist.

    Yields:
        The path to write to.

    Raises:
        OSError: The folder could not be written; the old one is unchanged.
    """
    private = Path(tempfile.mkdtemp(prefix=STAGED_PREFIX, dir=folder.parent))
    new, old = private / "new", private / "old"
    try:
        yield new
        if folder.exists():
            os.replace(folder, old)
        os.replace(new, folder)
    except BaseException:
        if old.exists() and not folder.exists():
            os.replace(old, folder)
        raise
    finally:
        shutil.rmtree(private, ignore_errors=True)


def sweep(folder: Path, names: Iterable[str]) -> None:
    """Remove the staging folders that killed processes left in a folder.

    The caller must hold the folder's lock: the staging folders of running processes look the same.

    Args:
        folder: Folder of the files.
        names: Names of the files, as for `find_staged`.
    """
    for staged in find_staged(folder, names):
        with contextlib.suppress(OSError):
            for file in staged.iterdir():
                file.unlink()
            staged.rmdir()


def find_staged(folder: Path, names: Iterable[str]) -> list[Path]:
    """Return the staging folders of `replacing` in a folder.

    Args:
        folder: Folder of the files.
        names: Names of the files that are written there. A folder with any other file is not a
            staging folder.
    """
    names = set(names)
    return [path for path in folder.glob(f"{STAGED_PREFIX}*") if _is_staged(path, names)]


def _is_staged(path: Path, names: set[str]) -> bool:
    """Return whether `path` is a staging folder: by its name, and with no files but `names`."""
    try:
        if not STAGED.fullmatch(path.name) or path.is_symlink() or not path.is_dir():
            return False
        return all(
            file.name in names and file.is_file() and not file.is_symlink()
            for file in path.iterdir()
        )
    except OSError:
        # Another process has removed the folder meanwhile, or it is not readable.
        return False


def write_json(file: Path, content: Any) -> None:
    """Write a JSON file completely or not at all.

    Raises:
        ValueError: `content` contains a NaN or an infinity, which JSON cannot represent.
        OSError: As for `replacing`.
    """
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    with replacing(file) as partial:
        partial.write_text(text, encoding="utf-8")


def sync(file: Path) -> None:
    """Wait until a file's contents are on the disk."""
    with file.open("rb+") as stream:
        os.fsync(stream.fileno())


def read_text(file: Path, limit: int = TEXT_LIMIT) -> str:
    """Return the text of a regular file.

    Args:
        file: The file.
        limit: Largest size in bytes.

    Raises:
        FileError: The file is missing, a link, a folder or a device, too large, or not UTF-8.
    """
    try:
        with open_regular(file) as stream:
            size = os.fstat(stream.fileno()).st_size
            if size > limit:
                raise FileError(f"{file} has {size:,} bytes; at most {limit:,} were expected")
            return stream.read(limit).decode("utf-8")
    except UnicodeDecodeError as error:
        raise FileError(f"{file} is not text in UTF-8 ({error.reason})") from error


def open_regular(file: Path) -> BufferedReader:
    """Return a regular file opened for reading bytes; a link, a folder or a device is rejected.

    Raises:
        FileError: The file does not exist, is not regular, or cannot be opened.
    """
    # Without O_NONBLOCK, opening a named pipe waits for a writer. Windows has neither flag.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)
    flags |= getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        # A separate check for systems without O_NOFOLLOW.
        link = file.is_symlink()
        descriptor = None if link else os.open(file, flags)
    except FileNotFoundError as error:
        raise FileError(f"{file} is missing") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise FileError(f"{file} cannot be opened: {reason}") from error
    if descriptor is None:
        raise FileError(f"{file} is a link; a regular file was expected")
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileError(f"{file} is not a regular file")
    return open(descriptor, "rb")


def read_json(file: Path, schema: dict[str, Any], limit: int = TEXT_LIMIT) -> Any:
    """Return the content of a JSON file, checked against a schema.

    Args:
        file: The file.
        schema: JSON schema, draft 2020-12.
        limit: Largest size in bytes.

    Raises:
        FileError: As for `read_text`; or the text is not JSON (NaN, Infinity and numbers beyond
            the range of a float are rejected), is nested too deeply, or does not match the schema.
            1.0 is not an integer.
    """
    return parse_json(read_text(file, limit), schema, str(file))


def parse_json(text: str | bytes, schema: dict[str, Any], name: str) -> Any:
    """Return parsed JSON, checked as by `read_json`; `name` is its source in messages."""
    try:
        content = json.loads(
            text, parse_constant=_refuse_constant, parse_float=_finite, parse_int=_whole
        )
        error = next(_Validator(schema).iter_errors(content), None)
    except RecursionError as error:
        raise FileError(f"{name} is nested too deeply") from error
    except ValueError as error:
        raise FileError(f"{name} is not JSON ({error})") from error
    if error is not None:
        place = "/".join(str(part) for part in error.absolute_path) or "the whole"
        message = " ".join(error.message.split())
        raise FileError(f"{name} is not as expected: {place}: {_shortened(message)}")
    return content


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON number")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{_shortened(digits, 40)} is larger than any float")
    return number


def _whole(digits: str) -> int:
    # An integer of more digits cannot be converted to a float.
    if len(digits) > 300:
        raise ValueError(f"{_shortened(digits, 40)} is larger than any float")
    return int(digits)


def _shortened(text: str, length: int = 200) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."
