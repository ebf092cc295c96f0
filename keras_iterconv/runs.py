"""The folder of a training run: the layout of its files, and reading a finished run."""

import os
import re
import shlex
import stat
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from keras_iterconv._support import files
from keras_iterconv._support.errors import CorrectableError


class RunError(CorrectableError, ValueError):
    """The error for a folder without a run, or without a finished run."""


def json_object(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the JSON schema of an object, from the schemas of its members."""
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
    }


def json_list(items: dict[str, Any], least: int = 0) -> dict[str, Any]:
    """Return the JSON schema of a list of at least `least` items."""
    return {"type": "array", "items": items, "minItems": least}


COUNT = {"type": "integer", "minimum": 0}
POSITIVE = {"type": "integer", "minimum": 1}
AMOUNT = {"type": "number", "minimum": 0}
_SHARE = {"type": "number", "minimum": 0, "maximum": 1}
_NULLABLE_SHARE = {"type": ["number", "null"], "minimum": 0, "maximum": 1}
_TEXT = {"type": "string"}

_DATA = json_object(
    {
        "input_shape": {**json_list(POSITIVE, 3), "maxItems": 3},
        "classes": json_list(_TEXT, 1),
        "scale": {"type": "number", "exclusiveMinimum": 0},
        "mean": json_list({"type": "number"}, 1),
        "std": json_list(AMOUNT, 1),
        "images": json_object({"train": COUNT, "validation": COUNT, "test": COUNT}),
    },
    # Of the pictures in a folder, or of the records of a set of TFDS that is not in the catalogue.
    {"sha256": _TEXT},
)

# The settings that every reader needs; `training.settings` describes all settings.
_SETTINGS = {
    **json_object({"model": _TEXT, "dataset": _TEXT, "epochs": POSITIVE}),
    "additionalProperties": {"type": ["string", "number", "boolean", "null"]},
}


def config_schema(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON schema of `config.json`, with a given schema of the settings."""
    return json_object(
        {
            "settings": settings,
            "data": _DATA,
            "versions": {"type": "object", "additionalProperties": _TEXT},
        },
        # One entry for each `--resume` with more epochs: the number of epochs before, and how many
        # of them were done.
        {"extensions": json_list(json_object({"epochs": POSITIVE, "done": COUNT}))},
    )


RESULT = json_object(
    {
        "model": _TEXT,
        "dataset": _TEXT,
        "epochs": POSITIVE,
        "parameters": COUNT,
        "train_accuracy": _SHARE,
        "validation_accuracy": _NULLABLE_SHARE,
        "test_accuracy": _SHARE,
        "generalization_gap": {"type": "number"},
        "processing_depth": POSITIVE,
        "mean_depth": AMOUNT,
        "min_depth": COUNT,
        "max_depth": COUNT,
        "share_at_limit": _SHARE,
        "share_not_finite": _SHARE,
        "images_per_second": AMOUNT,
        "seconds": AMOUNT,
        "seed": COUNT,
        "machine": _TEXT,
    },
    {
        # Runs of the first version do not have these.
        "command": _TEXT,
        # What `--accuracy-loss` or `--mean-updates` led to, as a sentence and as a `DepthReport`.
        "calibrated": _TEXT,
        "calibration": {"type": "object"},
        "indices": json_object(
            {
                "mean": {
                    "type": "object",
                    "additionalProperties": {"type": ["number", "null"]},
                }
            }
        ),
    },
)


class RunFiles:
    """The paths of the files of one training run.

    Args:
        path: The folder of the run.
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
        """The paths of all files that a run writes, except the TensorBoard logs."""
        return [path for path in vars(self).values() if path not in (self.path, self.tensorboard)]

    @classmethod
    def open(cls, path: str | os.PathLike, option: str) -> Self:
        """Return the files of an existing run.

        Args:
            path: The folder of the run.
            option: The name of the option that gave the folder, for error messages.

        Raises:
            RunError: The folder holds no run, or one of the paths of a run's files is not a regular
                file.
        """
        folder = cls(path)
        for file in folder.files:
            kind = _kind(file)
            if kind is not None and not stat.S_ISREG(kind):
                raise RunError(f"{file} is not a regular file; move it away to use this run")
        for logs in (folder.tensorboard, *map(folder.tensorboard.joinpath, ("train", "depth"))):
            kind = _kind(logs)
            if kind is not None and not stat.S_ISDIR(kind):
                raise RunError(f"{logs} is not a folder of logs; move it away to use this run")
        if _kind(folder.config) is None:
            folder._refuse_without_config(option)
        return folder

    def _refuse_without_config(self, option: str) -> None:
        try:
            exists = self.path.is_dir()
            empty = exists and not self.contents()
        except OSError:
            exists, empty = True, False
        if not exists:
            raise RunError(f"{option} {self.path} is not a folder; name the folder of a run")
        # No advice to delete a folder that is not empty: its files may be the user's.
        advice = (
            f"; the folder holds nothing else: start a run with iterconv fit --output {self.path}"
            if empty
            else ""
        )
        raise RunError(f"{option} {self.path} holds no run: {self.config.name} is missing{advice}")

    def contents(self) -> set[str]:
        """Return the names of the folder's files, without those that a killed run leaves behind."""
        if not self.path.is_dir():
            return set()
        ours = {self.lock, *files.find_staged(self.path, self.file_names)}
        return {file.name for file in set(self.path.iterdir()) - ours}

    @property
    def file_names(self) -> list[str]:
        """The names of all files that a run writes, except the TensorBoard logs."""
        return [file.name for file in self.files]

    def read_result(self) -> dict[str, Any] | None:
        """Return the contents of `result.json`; None where the file does not exist.

        Raises:
            FileError: The file does not fit the schema `RESULT`.
        """
        if _kind(self.result) is None:
            return None
        return files.read_json(self.result, RESULT)


class FinishedRun(NamedTuple):
    """The contents of the folder of a finished run.

    Attributes:
        settings: The settings of the training, the options of `training.fit` by name.
        data: The description of the data set, from `config.json`.
        versions: The versions of the packages by name.
        result: The contents of `result.json`, the measurements.
        files: The paths of the run's files, such as its model and its figure of the curves.
        command: The command that trains this model.
    """

    settings: dict[str, Any]
    data: dict[str, Any]
    versions: dict[str, str]
    result: dict[str, Any]
    files: RunFiles
    command: str


def read_finished_run(path: str | os.PathLike) -> FinishedRun:
    """Return the contents of the folder of a finished run.

    Raises:
        RunError: The folder holds no run, or the run is not finished.
        FileError: A file does not fit its schema.
    """
    found = RunFiles.open(path, "RUN")
    config = files.read_json(found.config, config_schema(_SETTINGS))
    settings, result = config["settings"], found.read_result()
    missing = [file for file in (found.last, found.curves) if not file.exists()]
    if result is None or missing:
        file = found.result if result is None else missing[0]
        raise RunError(f"{path} holds no finished run: {file.name} is missing")
    if result["epochs"] < settings["epochs"]:
        raise RunError(
            f"{path} holds no finished run: its result is of {result['epochs']} of "
            f"{settings['epochs']} epochs; continue it with iterconv fit --resume {path}"
        )
    # Runs of the first version have no command in the result; it then names all settings.
    command = result.pop("command", None)
    command = command or training_command(settings, config.get("extensions", ()))
    return FinishedRun(settings, config["data"], config["versions"], result, found, command)


def plain_name(model: str, dataset: str, separator: str) -> str:
    """Return a name of a model and its data set for files: of a-z, 0-9, - and _.

    Args:
        model: Name of the model.
        dataset: Name of the data set, which may be that of a folder with any characters.
        separator: What separates the two.
    """
    letters = unicodedata.normalize("NFKD", dataset.rpartition(":")[2])
    ascii_letters = letters.encode("ascii", "ignore").decode().lower()
    short = re.sub("[^a-z0-9_-]+", "_", ascii_letters).strip("_-") or "pictures"
    return f"{model}{separator}{short}"


def training_command(
    settings: Mapping[str, Any],
    extensions: Sequence[Mapping[str, int]] = (),
    default: Mapping[str, Any] | None = None,
) -> str:
    """Return the command that trains with the given settings.

    Args:
        settings: The final settings, by name.
        extensions: One entry for each `--resume` with more epochs: `epochs`, the number of epochs
            before, and `done`, how many of them were done.
        default: The default settings, which the command omits; None to include all settings.
    """
    first = dict(settings)
    if extensions:
        first["epochs"] = extensions[0]["epochs"]
    options = ["--model", first.pop("model")]
    for field, value in first.items():
        if value is None or (default is not None and value == default[field]):
            continue
        flag = field.replace("_", "-")
        if field == "shared_initialization" and not value:
            flag, value = "independent-initialization", True
        if value is False:
            continue
        options += [f"--{flag}"] if value is True else [f"--{flag}", shlex.quote(str(value))]
    commands = [" ".join(["python -m training.fit", *options])]
    planned = [*(extension["epochs"] for extension in extensions), settings["epochs"]]
    for extension, epochs in zip(extensions, planned[1:], strict=True):
        commands.append(f"after {extension['done']} epochs --resume RUN --epochs {epochs}")
    return "; ".join(commands)


def _kind(path: Path) -> int | None:
    """Return the `st_mode` of a path, without following links; None where nothing exists there.

    Raises:
        RunError: The system call fails for another reason.
    """
    try:
        return path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RunError(f"{path} cannot be used: {reason}") from error
