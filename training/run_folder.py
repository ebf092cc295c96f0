"""The folder of a run: what lies in it, how nothing in it is lost, and how it is read back."""

import contextlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from iterconv.command_errors import UserError, as_user_error, check_folder
from keras_iterconv._support import files
from keras_iterconv._support.locking import LockedError, locked
from keras_iterconv.runs import RunFiles

from .history import format_history, parse_history
from .run_schemas import CONFIG
from .settings import Settings


class RunFolder(RunFiles):
    """The files of one run.

    A file is written elsewhere and then moved to its place, so that a kill or a full disk leaves
    the old one whole. What is read back is checked: anybody may have edited it.

    Args:
        path: The folder.
    """

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
        return as_user_error(super().open, path, option)

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
        return as_user_error(super().read_result)

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
