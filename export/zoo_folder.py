"""The folder of a zoo: an index, and a folder for each published model."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from keras_iterconv._support.files import (
    STAGED,
    STAGED_PREFIX,
    FileError,
    parse_json,
    sweep,
    sync,
    write_json,
)
from keras_iterconv._support.locking import locked
from keras_iterconv.zoo.index import CARD, INDEX, ZooError, index_schema, read_index

LOCK = ".lock"
CURVES = "curves.png"
DEPTH_FIGURE = "depth.png"
SAVED_MODEL = "saved_model"
LONGEST_NAME = 100
_NAME = "[a-z0-9][a-z0-9_-]*"
# The folder for a new entry's files, inside of one that `tempfile` creates.
_FILES = "files"
# TensorFlow first writes the parts of a SavedModel under longer names.
_WRITTEN = (
    r"{name}\.keras|{name}(_int8)?\.onnx|"
    + "|".join(map(re.escape, (CARD, CURVES, DEPTH_FIGURE)))
    + rf"|{SAVED_MODEL}(/assets|/[a-z_]+\.pb[^/]*|/variables(/variables.*)?)?"
)


def check_index(index: dict[str, Any], folder: Path) -> None:
    """Raise `ZooError` if an index violates the schema or holds a NaN."""
    try:
        parse_json(json.dumps(index), index_schema(), str(folder / INDEX))
    except FileError as error:
        raise ZooError(str(error)) from error


def check_name(name: str) -> None:
    """Raise `ZooError` if a model's name is invalid: its folder could be outside of the zoo."""
    if not re.fullmatch(_NAME, name) or len(name) > LONGEST_NAME:
        raise ZooError(
            "the model's name must consist of a-z, 0-9, - and _, start with a letter or a digit, "
            f"and have at most {LONGEST_NAME} characters: {name!r}"
        )


@contextlib.contextmanager
def new_entry(zoo: Path, name: str) -> Iterator[Path]:
    """Yield a folder for a model's files; call `commit` when they are complete.

    Only one process at a time writes to a zoo. Files that a killed process has left are removed.

    Args:
        zoo: The zoo's folder; it is created if it does not exist.
        name: The model's name.

    Raises:
        ZooError: The name or the zoo's index is invalid, or the model's folder is a link.
        OSError: The zoo cannot be written.
    """
    check_name(name)
    zoo.mkdir(parents=True, exist_ok=True)
    with _locked(zoo):
        # The index must be readable before files that it does not list are removed.
        models = _read_models(zoo)
        sweep(zoo, [INDEX])
        for known in {name, *models}:
            _sweep(zoo / known, models.get(known))
        folder = zoo / name
        if folder.is_symlink():
            raise ZooError(f"{folder} must be a folder of the zoo, but is a link; remove it")
        folder.mkdir(exist_ok=True)
        # `mkdtemp` gives permissions to this user only, so that no other user can create a link in
        # it. The folder inside has the usual permissions.
        private = Path(tempfile.mkdtemp(prefix=STAGED_PREFIX, dir=folder))
        staged = private / _FILES
        try:
            staged.mkdir()
            yield staged
        finally:
            shutil.rmtree(private, ignore_errors=True)
            with contextlib.suppress(OSError, ZooError):
                # Removes the replaced version, or the new one if the index was not written.
                _sweep(folder, _read_models(zoo).get(name))
            with contextlib.suppress(OSError):
                # Succeeds only if the folder is empty, after a failed first publication.
                folder.rmdir()


def commit(zoo: Path, name: str, staged: Path, entry: dict[str, Any]) -> None:
    """Publish the files of a staged entry, within `new_entry`.

    Only files in the index count. A kill before the index is replaced leaves the complete old
    entry, a kill after it the new one. Therefore each entry's files are in a new numbered folder.

    Args:
        zoo: The zoo's folder.
        name: The model's name.
        staged: The folder that `new_entry` yielded.
        entry: Its entry in the index, without `files`.

    Raises:
        ZooError: The index would violate its schema.
        OSError: The zoo cannot be written; the old entry stays in the index.
    """
    models = _read_models(zoo)
    numbers = (int(path.name) for path in (zoo / name).iterdir() if _is_number(path.name))
    final = zoo / name / str(1 + max(numbers, default=0))
    files = {}
    for path in sorted(path for path in staged.rglob("*") if path.is_file()):
        sync(path)
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        place = (final / path.relative_to(staged)).relative_to(zoo).as_posix()
        files[place] = {"sha256": digest, "bytes": path.stat().st_size}
    models[name] = {**entry, "files": files}
    index = {"version": 1, "models": dict(sorted(models.items()))}
    check_index(index, zoo)
    os.rename(staged, final)
    write_json(zoo / INDEX, index)


def unlisted_files(zoo: Path) -> list[str]:
    """Return the files and links in a zoo that are not in its index, as paths relative to the zoo.

    A publication may write and remove files meanwhile; removed files are not returned.

    Raises:
        ZooError: The index cannot be read.
    """
    # Unlike `Path.rglob`, `os.walk` continues if a folder is removed. It does not follow links.
    there = [Path(top, name) for top, names, files in os.walk(zoo) for name in (*names, *files)]
    # Read after the walk, so that files published in the meantime count as listed.
    models = read_index(zoo)["models"]
    # A zoo may have a description of its own.
    listed = {INDEX, LOCK, CARD}.union(*(entry["files"] for entry in models.values()))
    left = (path for path in there if path.is_symlink() or (path.exists() and not path.is_dir()))
    return sorted({path.relative_to(zoo).as_posix() for path in left} - listed)


def _read_models(zoo: Path) -> dict[str, Any]:
    return read_index(zoo)["models"] if os.path.lexists(zoo / INDEX) else {}


def _is_number(name: str) -> bool:
    # `str.isdigit` is also True for "²".
    return re.fullmatch("[0-9]+", name) is not None


def _sweep(folder: Path, entry: dict[str, Any] | None) -> None:
    """Remove the folders that killed publications of a model have left and `entry` does not list.

    Folders with another kind of name or with files that no publication writes are kept. Links are
    neither followed nor removed.
    """
    if folder.is_symlink() or not folder.is_dir():
        return
    named = {Path(file).parts[1] for file in entry["files"]} if entry else set()
    for path in list(folder.iterdir()):
        if path.is_symlink() or not path.is_dir():
            continue
        if STAGED.fullmatch(path.name):
            if _is_written(path, folder.name, rf"{_FILES}(/({_WRITTEN}))?"):
                shutil.rmtree(path, ignore_errors=True)
        elif _is_number(path.name) and path.name not in named:
            whole = (path / f"{folder.name}.keras").is_file()
            if whole and _is_written(path, folder.name, _WRITTEN):
                _remove(path)


def _is_written(folder: Path, name: str, pattern: str) -> bool:
    """Return whether all files in a folder have names of a publication's files."""
    allowed = re.compile(pattern.replace("{name}", re.escape(name)))
    return all(
        not path.is_symlink() and allowed.fullmatch(path.relative_to(folder).as_posix())
        for path in folder.rglob("*")
    )


def _remove(version: Path) -> None:
    """Remove a version's folder. After a kill, the next publication removes the rest."""
    private = Path(tempfile.mkdtemp(prefix=STAGED_PREFIX, dir=version.parent))
    # Windows cannot rename a folder with an open file.
    with contextlib.suppress(OSError):
        os.rename(version, private / _FILES)
    shutil.rmtree(private, ignore_errors=True)


@contextlib.contextmanager
def _locked(zoo: Path) -> Iterator[None]:
    """Hold the lock of the zoo; wait until no other process writes to it."""
    with locked(zoo / LOCK):
        try:
            yield
        finally:
            # Windows cannot remove an open file. A file with content is not a lock of this module.
            with contextlib.suppress(OSError):
                if not (zoo / LOCK).stat().st_size:
                    (zoo / LOCK).unlink()
