"""Checkpoints: `.keras` files that also hold the number of finished epochs."""

import json
import zipfile
from pathlib import Path

import keras

from iterconv.command_errors import TrainingDivergedError, UserError
from keras_iterconv._support.files import FileError, parse_json
from keras_iterconv._support.keras_files import ForeignModelError, checked_copy, save_model_file
from keras_iterconv.not_finite import find_not_finite_variable

from .run_folder import RunFolder
from .run_schemas import CHECKPOINT

# A member of the archive beside Keras's own. The epoch cannot be derived from the optimizer's
# step count, which does not count the steps that a loss scale skips.
MEMBER = "training.json"


def save_checkpoint(model: keras.Model, folder: RunFolder, file: Path, epochs: int) -> None:
    """Write model, optimizer and the number of epochs into one `.keras` file."""
    with folder.replacing(file) as partial:
        save_model_file(model, partial)
        with zipfile.ZipFile(partial, "a") as archive:
            archive.writestr(MEMBER, json.dumps({"epochs": epochs}))


def load_checkpoint(model: keras.Model, folder: RunFolder) -> int:
    """Load the last checkpoint into a compiled model of the same kind.

    Args:
        model: The compiled model, with its optimizer built.
        folder: The run's folder.

    Returns:
        The number of finished epochs.

    Raises:
        UserError: The file is damaged, belongs to another model, or holds code or a value that
            is not finite.
    """
    try:
        with checked_copy(folder.last) as file:
            with zipfile.ZipFile(file) as archive:
                state = parse_json(archive.read(MEMBER), CHECKPOINT, f"{MEMBER} in it")
                layers = json.loads(archive.read("config.json"))["config"]["layers"]
            differing = _find_differing(model, layers)
            if differing is None:
                model.load_weights(file)
                check_finite(model)
    except ForeignModelError as error:
        raise UserError(str(error)) from error
    except Exception as error:  # zip, HDF5 and Keras raise different ones for a damaged file
        told = isinstance(error, FileError | TrainingDivergedError)
        reason = str(error) if told else type(error).__name__
        raise UserError(
            f"{folder.last} is damaged and cannot be loaded ({reason}); the other "
            f"files of {folder.path} are unchanged: {folder.best.name}, if it exists, holds the "
            "best epoch"
        ) from error
    if differing is not None:
        raise UserError(
            f"{folder.last} holds another model than {model.name!r} of this version (its layer "
            f"{differing!r} differs): start a new run, or continue with the version "
            f"that {folder.config.name} names"
        )
    return state["epochs"]


def _find_differing(model: keras.Model, layers: list[dict]) -> str | None:
    """Return the first layer that differs in the file, by presence, class or step size.

    Returns None if no layer differs.
    """
    saved = {layer["config"]["name"]: layer for layer in layers}
    for layer in model.layers:
        # Layers with neither are skipped: Keras derives their names from a counter of the process.
        if not (layer.weights or hasattr(layer, "step_size")):
            continue
        found = saved.get(layer.name)
        # The step size is not a weight: a file with another one would load without an error.
        if (
            found is None
            or found["class_name"] != type(layer).__name__
            or found["config"].get("step_size") != getattr(layer, "step_size", None)
        ):
            return layer.name
    return None


def check_finite(model: keras.Model) -> None:
    """Raise an error if the model's state is not finite.

    Raises:
        TrainingDivergedError: A weight or a variable of the optimizer is not finite.
    """
    variable = find_not_finite_variable([*model.variables, *model.optimizer.variables])
    if variable is not None:
        raise TrainingDivergedError(f"{variable.path} is not finite")
