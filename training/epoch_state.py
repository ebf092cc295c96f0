"""The state within an epoch: all variables that the rest of the epoch depends on, bit for bit.

The state is not a model: Lipschitz caps hold for the moving statistics only at the end of an epoch,
and converging them within the epoch would change its result. The checkpoint of the last whole epoch
is kept beside it.
"""

import json
import zipfile
from typing import NamedTuple

import keras
import numpy as np

from iterconv.command_errors import UserError
from keras_iterconv._support.files import FileError, open_regular, parse_json

from .checkpoint import MEMBER
from .run_folder import RunFolder
from .run_schemas import EPOCH_STATE

# Limit of bytes: the header of an array in NumPy's format takes 128 bytes or a little more.
_HEADER = 1024


class EpochState(NamedTuple):
    """The state of a run within an epoch.

    Attributes:
        steps: The number of finished steps of the epoch.
        seconds: The time that they took, in seconds.
        values: One array for each of `stateful_variables`.
    """

    steps: int
    seconds: float
    values: list[np.ndarray]

    def restore(self, model: keras.Model) -> None:
        """Assign the state to a model's variables, after Keras has begun the epoch."""
        for variable, value in zip(stateful_variables(model), self.values, strict=True):
            variable.assign(value)


def stateful_variables(model: keras.Model) -> list[keras.Variable]:
    """Return the variables of the model, of its optimizer and of its metrics."""
    metrics = [variable for metric in model.metrics for variable in metric.variables]
    return [*model.variables, *model.optimizer.variables, *metrics]


def save_epoch_state(
    model: keras.Model, folder: RunFolder, epochs: int, steps: int, seconds: float
) -> None:
    """Write the state within an epoch.

    Args:
        model: The model.
        folder: The run's folder.
        epochs: The number of finished epochs.
        steps: The number of finished steps of this epoch.
        seconds: The time that they took, in seconds.
    """
    arrays = {f"{i}": variable.numpy() for i, variable in enumerate(stateful_variables(model))}
    header = {"epochs": epochs, "steps": steps, "seconds": seconds}
    with folder.replacing(folder.within_epoch) as partial:
        np.savez(partial, **arrays)
        with zipfile.ZipFile(partial, "a") as archive:
            archive.writestr(MEMBER, json.dumps(header))


def load_epoch_state(
    model: keras.Model, folder: RunFolder, epochs: int, steps_per_epoch: int
) -> EpochState | None:
    """Return the state within the epoch that follows `epochs` finished ones.

    Args:
        model: A model of the same kind with built optimizer and metrics; it is not changed.
        folder: The run's folder.
        epochs: The number of epochs of the last checkpoint.
        steps_per_epoch: The number of steps of an epoch.

    Returns:
        The state; None if there is no file, or if its epoch has been finished since.

    Raises:
        UserError: The file is damaged, belongs to another model, or holds a value that is not
            finite.
    """
    if not folder.within_epoch.exists():
        return None
    try:
        return _read(model, folder, epochs, steps_per_epoch)
    except Exception as error:  # zip and NumPy raise different ones for a damaged file
        reason = str(error) if isinstance(error, FileError) else type(error).__name__
        raise UserError(
            f"{folder.within_epoch} is damaged and cannot be loaded ({reason}); delete it to "
            "continue from the last whole epoch"
        ) from error


def _read(
    model: keras.Model, folder: RunFolder, epochs: int, steps_per_epoch: int
) -> EpochState | None:
    variables = stateful_variables(model)
    with open_regular(folder.within_epoch) as stream, zipfile.ZipFile(stream) as archive:
        header = parse_json(_read_member(archive, MEMBER, _HEADER), EPOCH_STATE, MEMBER)
        if header["epochs"] != epochs:
            return None
        if header["steps"] >= steps_per_epoch:
            raise FileError(f"it has {header['steps']} steps of {steps_per_epoch}")
        values = []
        for i, variable in enumerate(variables):
            wanted = np.zeros(variable.shape, variable.dtype)
            info = archive.getinfo(f"{i}.npy")
            if info.file_size > wanted.nbytes + _HEADER:
                raise FileError(f"{info.filename} in it is too large")
            with archive.open(info) as member:
                value = np.lib.format.read_array(member, allow_pickle=False)
            if (value.shape, value.dtype) != (wanted.shape, wanted.dtype):
                raise FileError(f"{variable.path} has another shape or type")
            if not np.all(np.isfinite(value)):
                raise FileError(f"{variable.path} is not finite")
            values.append(value)
        if f"{len(variables)}.npy" in archive.namelist():
            raise FileError("it belongs to another model")
    return EpochState(header["steps"], header["seconds"], values)


def _read_member(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    if archive.getinfo(name).file_size > limit:
        raise FileError(f"{name} in it is too large")
    return archive.read(name)
