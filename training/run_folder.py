"""The folder of a run: creating, locking, writing and reading its files."""

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

    Each file is written under another name and then renamed, so that after a kill or on a full
    disk the old file is still complete. Files are checked when they are read, since a user may
    have edited them.

    Args:
        path: The folder.
    """

    @classmethod
    def create(cls, path: str | os.PathLike | None, name: str) -> "RunFolder":
        """Create the folder of a new run.

        Args:
            path: The folder; None for the first of `runs/NAME-1`, `runs/NAME-2`, ... that is free.
            name: NAME in the folder of a run without a path.

        Raises:
            UserError: The folder is not empty, or cannot be created.
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
        """Raise `UserError` if the folder cannot hold a new run.

        Temporary files of a run that was killed before its first file was complete are ignored.
        """
        check_folder("--output", path)
        folder = cls(path)
        try:
            if folder.path.exists() and not folder.path.is_dir():
                raise UserError(f"--output {path} cannot be used: it is not a folder")
            held = folder.contents()
        except OSError as error:
            raise UserError(f"--output {path} cannot be used: {error.strerror}") from error
        if folder.config.name in held:
            raise UserError(
                f"--output {path} already holds a run; continue it with --resume {path}, or name "
                "another folder"
            )
        if held:
            raise UserError(f"--output {path} is not empty; name a new or an empty folder")

    @classmethod
    def open(cls, path: str | os.PathLike, option: str = "--resume") -> "RunFolder":
        """Open the folder of a run, to continue or to read it.

        Args:
            path: The folder.
            option: The command-line option that named the folder, for messages.

        Raises:
            UserError: The folder holds no run, or one of its files is not a regular file.
        """
        check_folder(option, path)
        return as_user_error(super().open, path, option)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Lock the run against other processes, and remove the temporary files of killed ones.

        Raises:
            UserError: Another process trains the run, or the folder cannot be written.
        """
        try:
            with contextlib.ExitStack() as stack:
                try:
                    stack.enter_context(locked(self.lock, wait=False))
                except OSError as error:
                    raise UserError(f"{self.path} cannot be used: {error.strerror}") from error
                files.sweep(self.path, self.file_names)
                yield
        except LockedError as error:
            raise UserError(f"{self.path} is being trained by another process") from error

    @contextlib.contextmanager
    def replacing(self, file: Path) -> Iterator[Path]:
        """Yield a temporary path to write to, and rename it to `file` at the end.

        Raises:
            UserError: The file cannot be written.
        """
        try:
            with files.replacing(file) as partial:
                yield partial
        except OSError as error:
            reason = error.strerror or str(error)
            raise UserError(
                f"{file} cannot be written: {reason}; its previous content is kept"
            ) from error

    def write_json(self, file: Path, content: dict[str, Any]) -> None:
        """Write a JSON file, completely or not at all.

        Raises:
            UserError: The file cannot be written, or a number is not finite.
        """
        try:
            files.write_json(file, content)
        except (OSError, ValueError) as error:
            raise UserError(
                f"{file} cannot be written: {error}; its previous content is kept"
            ) from error

    def read_config(self) -> dict[str, Any]:
        """Return the content of `config.json`, with its `"settings"` as `Settings`.

        Raises:
            UserError: The file does not have the format of this version.
        """
        config = as_user_error(files.read_json, self.config, CONFIG)
        try:
            settings = Settings(**config["settings"])
        except UserError as error:
            raise UserError(f"{self.config} is not as expected: {error}") from error
        return {**config, "settings": settings}

    def read_result(self) -> dict[str, Any] | None:
        """Return the content of `result.json`; None if the file does not exist.

        Raises:
            UserError: The file does not have the format of this version.
        """
        return as_user_error(super().read_result)

    def write_history(self, rows: list[dict[str, float]]) -> None:
        """Write `history.csv` with one row for each epoch."""
        with self.replacing(self.history) as partial:
            partial.write_text(format_history(rows), encoding="utf-8", newline="")

    def read_history(self, epochs: int) -> list[dict[str, float]]:
        """Return the rows of the first `epochs` epochs.

        Later rows are dropped: their epoch was killed before its checkpoint was written.

        Raises:
            UserError: A row is missing or damaged.
        """
        if epochs == 0:
            return []
        try:
            return parse_history(files.read_text(self.history), epochs)
        except ValueError as error:
            raise UserError(
                f"{self.history} must hold the {epochs} epochs of {self.last.name} "
                f"({error}); restore the file to continue"
            ) from error


def _make_numbered(folder: Path, name: str) -> Path:
    """Create and return the first of the folders `NAME-1`, `NAME-2`, ... that is free."""
    # Outside of the loop: if `folder` is a dangling link, `mkdir` raises FileExistsError, which the
    # loop would take for a number in use.
    folder.mkdir(exist_ok=True)
    for number in itertools.count(1):
        path = folder / f"{name}-{number}"
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path
    raise AssertionError  # The count has no end.
