"""The folder of a run: what lies in it, how nothing in it is lost, and how it is read back."""

import contextlib
import itertools
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from keras_iterconv._support import files
from keras_iterconv._support.locking import LockedError, locked

from .errors import UserError, as_user_error, check_folder
from .history import format_history, parse_history
from .run_schemas import CONFIG, RESULT
from .settings import Settings


class RunFolder:
    """The files of one run.

    A file is written elsewhere and then moved to its place, so that a kill or a full disk leaves
    the old one whole. What is read back is checked: anybody may have edited it.

    Args:
        path: The folder.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self.config = self.path / "config.json"
        self.history = self.path / "history.csv"
        self.last = self.path / "last.keras"
        self.within_epoch = self.path / "within_epoch.npz"
        self.best = self.path / "best.keras"
        self.curves = self.path / "curves.png"
        self.indices = self.path / "indices.png"
        self.result = self.path / "result.json"
        self.lock = self.path / ".lock"
        self.tensorboard = self.path / "tensorboard"

    @property
    def files(self) -> list[Path]:
        """All files that a run writes, but for the logs."""
        return [path for path in vars(self).values() if path not in (self.path, self.tensorboard)]

    @classmethod
    def create(cls, path: str | os.PathLike | None, name: str) -> "RunFolder":
        """Make a new folder.

        Args:
            path: Where, or None for the first free one of `runs/NAME-1`, `runs/NAME-2` and on.
            name: What a run without a path is called.

        Raises:
            UserError: The folder holds something already, or cannot be made.
        """
        try:
            if path is None:
                return cls(_make_numbered(Path("runs"), name))
            cls.refuse_taken(path)
            Path(path).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"--output {path or 'runs'} cannot be used: {error.strerror}"
            ) from error
        return cls(path)

    @classmethod
    def refuse_taken(cls, path: str | os.PathLike) -> None:
        """Raise `UserError` where a new run cannot have this folder.

        What a run leaves that was killed before its first file was whole does not count.
        """
        check_folder("--output", path)
        folder = cls(path)
        try:
            if folder.path.exists() and not folder.path.is_dir():
                raise UserError(f"--output {path} cannot be used: it is no folder")
            held = folder._held()
        except OSError as error:
            raise UserError(f"--output {path} cannot be used: {error.strerror}") from error
        if folder.config.name in held:
            raise UserError(
                f"--output {path} already holds a run; go on with it by --resume {path}, or name "
                "another folder"
            )
        if held:
            raise UserError(f"--output {path} is not empty; name a new or an empty folder")

    @classmethod
    def open(cls, path: str | os.PathLike, option: str = "--resume") -> "RunFolder":
        """Open the folder of a run, to go on with it or to read it.

        Args:
            path: The folder.
            option: What the user gave it as.

        Raises:
            UserError: The folder holds no run, or something else in the place of one of its files.
        """
        check_folder(option, path)
        folder = cls(path)
        for file in folder.files:
            kind = _kind(file)
            if kind is not None and not stat.S_ISREG(kind):
                raise UserError(f"{file} is no regular file; move it away to use this run")
        for place in (folder.tensorboard, *map(folder.tensorboard.joinpath, ("train", "depth"))):
            kind = _kind(place)
            if kind is not None and not stat.S_ISDIR(kind):
                raise UserError(f"{place} is no folder of logs; move it away to use this run")
        if _kind(folder.config) is None:
            folder._refuse_without_config(option)
        return folder

    def _refuse_without_config(self, option: str) -> None:
        try:
            found = self.path.is_dir()
            left = found and not self._held()
        except OSError:
            found, left = True, False
        if not found:
            raise UserError(f"{option} {self.path} is no folder; name that of a run")
        # Not "delete it": the folder may be anybody's.
        advice = (
            f"; nothing else is in it: start one by iterconv fit --output {self.path}"
            if left
            else ""
        )
        raise UserError(f"{option} {self.path} holds no run: {self.config.name} is missing{advice}")

    def _held(self) -> set[str]:
        """Return the names of what the folder holds beside what a killed run leaves."""
        if not self.path.is_dir():
            return set()
        ours = {self.lock, *files.find_staged(self.path, self._names())}
        return {file.name for file in set(self.path.iterdir()) - ours}

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from training this run, and sweep what a killed one has left.

        Raises:
            UserError: One trains it already, or the folder cannot be written.
        """
        try:
            with contextlib.ExitStack() as stack:
                try:
                    stack.enter_context(locked(self.lock, wait=False))
                except OSError as error:
                    raise UserError(f"{self.path} cannot be used: {error.strerror}") from error
                files.sweep(self.path, self._names())
                yield
        except LockedError as error:
            raise UserError(f"{self.path} is being trained by another process") from error

    def _names(self) -> list[str]:
        return [file.name for file in self.files]

    @contextlib.contextmanager
    def replacing(self, file: Path) -> Iterator[Path]:
        """Give a path to write to, and move what was written to `file` at the end.

        Raises:
            UserError: It cannot be written.
        """
        try:
            with files.replacing(file) as partial:
                yield partial
        except OSError as error:
            reason = error.strerror or str(error)
            raise UserError(
                f"{file} could not be written: {reason}; what was there is kept"
            ) from error

    def write_json(self, file: Path, content: dict[str, Any]) -> None:
        """Write a JSON file whole.

        Raises:
            UserError: It cannot be written, or holds a number that is not finite.
        """
        try:
            files.write_json(file, content)
        except (OSError, ValueError) as error:
            raise UserError(
                f"{file} could not be written: {error}; what was there is kept"
            ) from error

    def read_config(self) -> dict[str, Any]:
        """Return what `config.json` says, its `"settings"` as `Settings`.

        Raises:
            UserError: It is not what a run of this version writes.
        """
        config = as_user_error(files.read_json, self.config, CONFIG)
        try:
            settings = Settings(**config["settings"])
        except UserError as error:
            raise UserError(f"{self.config} is not as expected: {error}") from error
        return {**config, "settings": settings}

    def read_result(self) -> dict[str, Any] | None:
        """Return what `result.json` says; None where there is none.

        Raises:
            UserError: It is not what a run of this version writes.
        """
        if _kind(self.result) is None:
            return None
        return as_user_error(files.read_json, self.result, RESULT)

    def write_history(self, rows: list[dict[str, float]]) -> None:
        """Write a row for each epoch."""
        with self.replacing(self.history) as partial:
            partial.write_text(format_history(rows), encoding="utf-8", newline="")

    def read_history(self, epochs: int) -> list[dict[str, float]]:
        """Return the rows of the first `epochs` epochs.

        A later row belongs to an epoch that a kill cut off before its checkpoint was written.

        Raises:
            UserError: A row is missing or damaged.
        """
        if epochs == 0:
            return []
        try:
            return parse_history(files.read_text(self.history), epochs)
        except ValueError as error:
            raise UserError(
                f"{self.history} does not hold the {epochs} epochs that {self.last.name} has seen "
                f"({error}); put the whole file back to go on"
            ) from error


def _kind(path: Path) -> int | None:
    """Return the mode of what is at a path, a link not followed; None where there is nothing.

    Raises:
        UserError: The system does not say.
    """
    try:
        return path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{path} cannot be used: {reason}") from error


def _make_numbered(folder: Path, name: str) -> Path:
    """Make and return the first of `NAME-1`, `NAME-2` and on that is free."""
    # Its own failure must not look like a number that is taken: a link that leads nowhere exists.
    folder.mkdir(exist_ok=True)
    for number in itertools.count(1):
        path = folder / f"{name}-{number}"
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path
