"""Files that are written whole or not at all, and files that are read with suspicion.

A folder that a user names may hold anything: links that somebody planted, files of gigabytes,
JSON that is nested a million times. Nothing here follows a link when it writes, blocks on a
device, or reads more than it was told to expect.
"""

import contextlib
import json
import math
import os
import re
import stat
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jsonschema

STAGED_PREFIX = ".partial-"
# The names that `tempfile` gives to folders of this prefix.
STAGED = re.compile(re.escape(STAGED_PREFIX) + "[a-z0-9_]{8}")
# No configuration, result or index of this package comes near it.
TEXT_LIMIT = 64 * 2**20


# The draft's own integers include 1.0, which Python does not count with.
_Validator = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda checker, value: isinstance(value, int) and not isinstance(value, bool)
    ),
)


class FileError(ValueError):
    """A file is not what it must be; the message is one line that says what to do."""


@contextlib.contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Give a path to write a file to, and put what was written in the place of `file` at the end.

    A kill, a full disk or an exception leaves the old file whole. The path lies in a new folder
    of an unpredictable name that nobody else can write to, and has the file's own name, whose
    suffix tells Keras and Matplotlib the format. Where `file` is a link, the link is replaced and
    what it leads to stays.

    Args:
        file: The file; its folder must exist.

    Yields:
        The path to write to.

    Raises:
        OSError: The file could not be written; the old one is whole.
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


def sweep(folder: Path, names: Iterable[str]) -> None:
    """Remove what `replacing` left behind in a folder when its process was killed.

    Whoever calls it holds the folder's lock, since the folder of a writer at work looks the same.

    Args:
        folder: Where the files are.
        names: As for `find_staged`.
    """
    for staged in find_staged(folder, names):
        with contextlib.suppress(OSError):
            for file in staged.iterdir():
                file.unlink()
            staged.rmdir()


def find_staged(folder: Path, names: Iterable[str]) -> list[Path]:
    """Return the folders that `replacing` writes in, or has left behind.

    Args:
        folder: Where the files are.
        names: The names of the files that are written there; a staging folder that holds anything
            else is somebody else's.
    """
    names = set(names)
    return [path for path in folder.glob(f"{STAGED_PREFIX}*") if _is_staged(path, names)]


def _is_staged(path: Path, names: set[str]) -> bool:
    """Say whether a folder is named as `replacing` names it, and holds our files alone or none."""
    try:
        if not STAGED.fullmatch(path.name) or path.is_symlink() or not path.is_dir():
            return False
        return all(
            file.name in names and file.is_file() and not file.is_symlink()
            for file in path.iterdir()
        )
    except OSError:
        # Another process has removed it meanwhile, or forbids to look.
        return False


def write_json(file: Path, content: Any) -> None:
    """Write a JSON file whole.

    Raises:
        ValueError: `content` holds a NaN or an infinity, for which JSON has no words.
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
        limit: The most bytes it may have.

    Raises:
        FileError: It is missing, a link, a folder or a device, too large, or not UTF-8.
    """
    try:
        with open_regular(file) as stream:
            size = os.fstat(stream.fileno()).st_size
            if size > limit:
                raise FileError(f"{file} has {size:,} bytes; at most {limit:,} were expected")
            return stream.read(limit).decode("utf-8")
    except UnicodeDecodeError as error:
        raise FileError(f"{file} is not text in UTF-8 ({error.reason})") from error


def open_regular(file: Path):
    """Open a regular file for reading bytes; a link, a folder or a device is refused.

    Raises:
        FileError: There is no such file, it is not regular, or it cannot be opened.
    """
    # Without O_NONBLOCK a named pipe would wait for a writer. Windows has neither flag.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)
    flags |= getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        # Asked first for the systems that have no O_NOFOLLOW.
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
        raise FileError(f"{file} is no regular file")
    return open(descriptor, "rb")


def read_json(file: Path, schema: dict[str, Any], limit: int = TEXT_LIMIT) -> Any:
    """Return what a JSON file holds, after it was checked against a schema.

    Args:
        file: The file.
        schema: A JSON schema, draft 2020-12.
        limit: The most bytes it may have.

    Raises:
        FileError: As for `read_text`; or it is no JSON (NaN and Infinity are none, nor is a number
            that a float cannot hold), nested too deeply, or not as the schema wants it. 1.0 is no
            integer.
    """
    return parse_json(read_text(file, limit), schema, str(file))


def parse_json(text: str | bytes, schema: dict[str, Any], name: str) -> Any:
    """Parse and check JSON as `read_json` does; `name` is what messages call its source."""
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


def _refuse_constant(constant: str):
    raise ValueError(f"{constant} is no JSON number")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{_shortened(digits, 40)} is larger than any float")
    return number


def _whole(digits: str) -> int:
    # More digits would make an integer that cannot become a float.
    if len(digits) > 300:
        raise ValueError(f"{_shortened(digits, 40)} is larger than any float")
    return int(digits)


def _shortened(text: str, length: int = 200) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."
