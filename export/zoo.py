"""The published models: a folder with an index, and a folder for each model."""

import contextlib
import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import jsonschema

from keras_iterconv.models.pretrained import INDEX, ZooError, read_index, sha256

_SCHEMA = Path(__file__).with_name("index.schema.json")
_STAGED = ".partial-"
_NAME = "[a-z0-9][a-z0-9_-]*"


def check_index(index: dict, folder: Path) -> None:
    """Raise `ZooError` where an index is not as the schema wants it."""
    schema = json.loads(_SCHEMA.read_text(encoding="utf-8"))
    error = next(jsonschema.Draft202012Validator(schema).iter_errors(index), None)
    if error is not None:
        place = "/".join(str(part) for part in error.absolute_path) or "the whole"
        raise ZooError(f"{folder / INDEX} is not as its schema wants it: {place}: {error.message}")


def check_name(name: str) -> None:
    """Raise `ZooError` where a model's name is none: a folder's might lie outside of the zoo."""
    if not re.fullmatch(_NAME, name):
        raise ZooError(
            "the model's name must be of a-z, 0-9, - and _, and start with a letter or a digit: "
            f"{name!r}"
        )


@contextlib.contextmanager
def new_entry(zoo: Path, name: str) -> Iterator[Path]:
    """Give a folder to write a model's files to; call `commit` when they are whole.

    One process at a time writes to a zoo. What a killed one has left is removed.

    Raises:
        ZooError: The schema allows no such name.
    """
    check_name(name)
    zoo.mkdir(parents=True, exist_ok=True)
    with _locked(zoo):
        if (zoo / INDEX).exists():
            # Before anything is removed by what it says.
            check_index(read_index(zoo), zoo)
        _sweep(zoo, name)
        staged = zoo / name / f"{_STAGED}{os.getpid()}"
        staged.parent.mkdir(exist_ok=True)
        staged.mkdir()
        try:
            yield staged
        finally:
            shutil.rmtree(staged, ignore_errors=True)
            with contextlib.suppress(OSError):
                # Of a first publication that failed.
                (zoo / name).rmdir()


def commit(zoo: Path, name: str, staged: Path, entry: dict) -> None:
    """Publish the files of a staged entry, within `new_entry`.

    The index is what counts: a kill before it is replaced leaves the old entry, whole, and one
    after it the new one. So a new entry's files lie in a folder of their own, numbered.

    Args:
        zoo: The zoo's folder.
        name: The model's name.
        staged: Where its files are.
        entry: What the index says of it, without `files`.

    Raises:
        ZooError: The index would not be as its schema wants it.
    """
    index = read_index(zoo) if (zoo / INDEX).exists() else {"version": 1, "models": {}}
    number = 1 + max((int(p.name) for p in (zoo / name).iterdir() if p.name.isdigit()), default=0)
    final = zoo / name / str(number)
    files = {}
    for path in sorted(path for path in staged.rglob("*") if path.is_file()):
        with path.open("rb+") as stream:
            os.fsync(stream.fileno())
        place = (final / path.relative_to(staged)).relative_to(zoo).as_posix()
        files[place] = {"sha256": sha256(path), "bytes": path.stat().st_size}
    index["models"][name] = {**entry, "files": files}
    index["models"] = dict(sorted(index["models"].items()))
    check_index(index, zoo)
    os.rename(staged, final)
    partial = zoo / f"{_STAGED}{INDEX}"
    with partial.open("w", encoding="utf-8") as stream:
        stream.write(json.dumps(index, indent=2) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(partial, zoo / INDEX)
    _sweep(zoo, name)


def _sweep(zoo: Path, name: str) -> None:
    """Remove what killed publications have left: a model's files that the index does not name.

    A numbered folder without the model's file, or of a name that is neither the index's nor
    `name`, is somebody else's.
    """
    models = read_index(zoo)["models"] if (zoo / INDEX).exists() else {}
    for folder in (path for path in zoo.iterdir() if path.is_dir()):
        files = models[folder.name]["files"] if folder.name in models else ()
        named = {Path(file).parts[1] for file in files}
        ours = folder.name in models or folder.name == name
        for path in folder.iterdir():
            staged = path.name.startswith(_STAGED)
            left = ours and path.name.isdigit() and path.name not in named
            left = left and (path / f"{folder.name}.keras").is_file()
            if path.is_dir() and (staged or left):
                shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _locked(zoo: Path) -> Iterator[None]:
    """Wait until no other process writes to the zoo."""
    descriptor = os.open(zoo, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
