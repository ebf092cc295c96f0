"""The folder of a run: what lies in it, and how it is written so that nothing is lost."""

import csv
import itertools
import json
import os
from pathlib import Path
from typing import Any

from .errors import UserError

HISTORY_FIELDS = (
    "epoch",
    "loss",
    "accuracy",
    "val_loss",
    "val_accuracy",
    "learning_rate",
    "seconds",
    "images_per_second",
)


# Empty in a run without a validation part.
VALIDATION_FIELDS = ("val_loss", "val_accuracy")


class RunFolder:
    """The files of one run.

    A file is written under another name and then moved to its own, so that a kill or a full disk
    leaves the old one whole.

    Args:
        path: The folder.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self.config = self.path / "config.json"
        self.history = self.path / "history.csv"
        self.last = self.path / "last.keras"
        self.best = self.path / "best.keras"
        self.curves = self.path / "curves.png"
        self.indices = self.path / "indices.png"
        self.result = self.path / "result.json"
        self.tensorboard = self.path / "tensorboard"

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
        """Raise `UserError` where a new run cannot have this folder."""
        folder = cls(path)
        if not os.fspath(path):
            raise UserError("--output must name a folder")
        if folder.config.exists():
            raise UserError(
                f"--output {path} already holds a run; go on with it by --resume {path}, or name "
                "another folder"
            )
        if folder.path.exists() and not folder.path.is_dir():
            raise UserError(f"--output {path} cannot be used: it is no folder")
        if folder.path.is_dir() and any(folder.path.iterdir()):
            raise UserError(f"--output {path} is not empty; name a new or an empty folder")

    @classmethod
    def open(cls, path: str | os.PathLike) -> "RunFolder":
        """Open the folder of a run to go on with it.

        Raises:
            UserError: The folder holds no run, or a run that is finished.
        """
        folder = cls(path)
        for file in (folder.config, folder.last):
            if not file.is_file():
                raise UserError(
                    f"--resume {path} holds no run that could go on: {file.name} is missing"
                )
        if folder.result.exists():
            raise UserError(f"--resume {path} is finished; its result is in {folder.result}")
        return folder

    def write(self, file: Path, text: str) -> None:
        """Write a text file whole."""
        with self.replacing(file) as partial:
            partial.write_text(text, encoding="utf-8")

    def write_json(self, file: Path, content: dict[str, Any]) -> None:
        """Write a JSON file whole."""
        self.write(file, json.dumps(content, indent=2) + "\n")

    def read_config(self) -> dict[str, Any]:
        """Return what `config.json` says.

        Raises:
            UserError: It is no JSON.
        """
        try:
            return json.loads(self.config.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{self.config} is not JSON ({error}); the run cannot go on") from error

    def write_history(self, rows: list[dict[str, float]]) -> None:
        """Write a row for each epoch; what a row does not have is left empty."""
        with self.replacing(self.history) as partial, partial.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, HISTORY_FIELDS)
            writer.writeheader()
            writer.writerows(rows)

    def read_history(self, epochs: int) -> list[dict[str, float]]:
        """Return the rows of the first `epochs` epochs.

        A later row belongs to an epoch that a kill cut off before its checkpoint was written.

        Raises:
            UserError: A row is missing or damaged.
        """
        if epochs == 0:
            return []
        try:
            with self.history.open(newline="") as stream:
                rows = [_parse_row(row) for row in csv.DictReader(stream)][:epochs]
            complete = [row["epoch"] for row in rows] == list(range(1, epochs + 1))
        except (OSError, KeyError, TypeError, ValueError):
            complete = False
        if not complete:
            raise UserError(
                f"{self.history} does not hold the {epochs} epochs that {self.last.name} has seen; "
                "put the whole file back to go on"
            )
        return rows

    def replacing(self, file: Path) -> "_Replacing":
        """Return a context that gives a path to write to and moves it to `file` at the end."""
        return _Replacing(file)


def _parse_row(row: dict[str, str]) -> dict[str, float]:
    """Return an epoch's numbers, without those that an epoch without validation leaves empty."""
    fields = [key for key in HISTORY_FIELDS if row[key] or key not in VALIDATION_FIELDS]
    return {**{key: float(row[key]) for key in fields}, "epoch": int(row["epoch"])}


def _make_numbered(folder: Path, name: str) -> Path:
    """Make and return the first of `NAME-1`, `NAME-2` and on that is free."""
    for number in itertools.count(1):
        path = folder / f"{name}-{number}"
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        return path


class _Replacing:
    def __init__(self, file: Path):
        self.file = file
        # The suffix stays: it tells Keras and Matplotlib the format.
        self.partial = file.with_name(f".partial-{file.name}")

    def __enter__(self) -> Path:
        return self.partial

    def __exit__(self, kind, error, traceback) -> None:
        try:
            if kind is None:
                with self.partial.open("rb+") as stream:
                    os.fsync(stream.fileno())
                os.replace(self.partial, self.file)
            elif issubclass(kind, OSError):
                raise UserError(
                    f"{self.file} could not be written: {error}; what was there is kept"
                ) from error
        finally:
            self.partial.unlink(missing_ok=True)
