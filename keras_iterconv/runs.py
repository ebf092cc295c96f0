"""The folder of a training run: the layout of its files, and how a finished one is read."""

import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from keras_iterconv._support import files


class RunError(ValueError):
    """A folder holds no run, or none that is finished; the message says what to do."""


def json_object(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the schema of an object, from those of its members."""
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
    }


def json_list(items: dict[str, Any], least: int = 0) -> dict[str, Any]:
    """Return the schema of a list of at least so many items."""
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
    }
)

# Of the settings, which `training.settings` describes, what every reader needs.
_SETTINGS = {
    **json_object({"model": _TEXT, "dataset": _TEXT, "epochs": POSITIVE}),
    "additionalProperties": {"type": ["string", "number", "boolean", "null"]},
}


def config_schema(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of `config.json`, with that of its settings."""
    return json_object(
        {
            "settings": settings,
            "data": _DATA,
            "versions": {"type": "object", "additionalProperties": _TEXT},
        },
        # The epochs that the run was first started for, and those done when it was given more.
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
        # Missing in runs of the first version.
        "command": _TEXT,
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
    """The files of one run.

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
    def open(cls, path: str | os.PathLike, option: str) -> Self:
        """Return the files of a run that is there.

        Args:
            path: The folder.
            option: What the user gave it as.

        Raises:
            RunError: The folder holds no run, or something else in the place of one of its files.
        """
        folder = cls(path)
        for file in folder.files:
            kind = _kind(file)
            if kind is not None and not stat.S_ISREG(kind):
                raise RunError(f"{file} is no regular file; move it away to use this run")
        for place in (folder.tensorboard, *map(folder.tensorboard.joinpath, ("train", "depth"))):
            kind = _kind(place)
            if kind is not None and not stat.S_ISDIR(kind):
                raise RunError(f"{place} is no folder of logs; move it away to use this run")
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
            raise RunError(f"{option} {self.path} is no folder; name that of a run")
        # Not "delete it": the folder may be anybody's.
        advice = (
            f"; nothing else is in it: start one by iterconv fit --output {self.path}"
            if left
            else ""
        )
        raise RunError(f"{option} {self.path} holds no run: {self.config.name} is missing{advice}")

    def _held(self) -> set[str]:
        """Return the names of what the folder holds beside what a killed run leaves."""
        if not self.path.is_dir():
            return set()
        ours = {self.lock, *files.find_staged(self.path, self._names())}
        return {file.name for file in set(self.path.iterdir()) - ours}

    def _names(self) -> list[str]:
        return [file.name for file in self.files]

    def read_result(self) -> dict[str, Any] | None:
        """Return what `result.json` says; None where there is none.

        Raises:
            FileError: It is not what a run of this version writes.
        """
        if _kind(self.result) is None:
            return None
        return files.read_json(self.result, RESULT)


class FinishedRun(NamedTuple):
    """What a run that is finished has left.

    Attributes:
        settings: What it was trained with: the options of `training.fit` by name.
        data: The description of its data set in `config.json`.
        versions: Of the packages.
        result: What it measured.
        files: Where its model and its figure of loss and accuracy are.
        command: What trains it.
    """

    settings: dict[str, Any]
    data: dict[str, Any]
    versions: dict[str, str]
    result: dict[str, Any]
    files: RunFiles
    command: str


def read_finished_run(path: str | os.PathLike) -> FinishedRun:
    """Read the folder of a finished run.

    Raises:
        RunError: It holds no run, or none that is finished.
        FileError: A file is not what a run writes.
    """
    found = RunFiles.open(path, "RUN")
    config = files.read_json(found.config, config_schema(_SETTINGS))
    settings, result = config["settings"], found.read_result()
    for file in (found.result, found.last, found.curves):
        if not file.exists():
            raise RunError(f"{path} holds no finished run: {file.name} is missing")
    if result["epochs"] < settings["epochs"]:
        raise RunError(
            f"{path} holds no finished run: it has a result of {result['epochs']} epochs and is to "
            f"have {settings['epochs']}; go on with it by iterconv fit --resume {path}"
        )
    # Runs of the first version did not write it: then with every setting.
    command = result.pop("command", None)
    command = command or training_command(settings, config.get("extensions", ()))
    return FinishedRun(settings, config["data"], config["versions"], result, found, command)


def training_command(
    settings: Mapping[str, Any],
    extensions: Sequence[Mapping[str, int]] = (),
    default: Mapping[str, Any] | None = None,
) -> str:
    """Return the command that trains with these settings.

    Args:
        settings: The settings in the end, by name.
        extensions: Where the run was given more epochs: what it was to have before, and how many
            were done.
        default: What settings are that the command does not name; None to name all.
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
        options += [f"--{flag}"] if value is True else [f"--{flag}", str(value)]
    parts = [" ".join(["python -m training.fit", *options])]
    planned = [*(extension["epochs"] for extension in extensions), settings["epochs"]]
    for extension, epochs in zip(extensions, planned[1:], strict=True):
        parts.append(f"after {extension['done']} epochs --resume RUN --epochs {epochs}")
    return "; ".join(parts)


def _kind(path: Path) -> int | None:
    """Return the mode of what is at a path, a link not followed; None where there is nothing.

    Raises:
        RunError: The system does not say.
    """
    try:
        return path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RunError(f"{path} cannot be used: {reason}") from error
