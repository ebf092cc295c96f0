"""The data sets that fit to a model, and the default settings for both."""

from typing import Any

from iterconv.command_errors import UserError
from keras_iterconv._support.architecture_kinds import (
    CONVOLUTIONAL,
    FULLY_CONNECTED,
    RECURRENT,
)
from keras_iterconv.datasets import CATALOGUE
from keras_iterconv.models.registry import ARCHITECTURES


def default_dataset(model: str) -> str:
    """Return the name of the data set that a model is trained on by default."""
    per_position = model in ARCHITECTURES and ARCHITECTURES[model].per_position
    return "prefix_sums" if per_position else "digits"


def check_task(model: str, architecture: Any, dataset: str, data: Any) -> None:
    """Raise `UserError` where a model does not predict what a data set asks for."""
    if architecture.per_position == (data.task == "labels_per_position"):
        return
    fitting = [
        name
        for name, other in ARCHITECTURES.items()
        if other.per_position == (data.task == "labels_per_position")
    ]
    what = {True: "a class for each position", False: "one prediction an image"}
    raise UserError(
        f"--model {model} makes {what[architecture.per_position]}, and --dataset {dataset} asks "
        f"for {what[not architecture.per_position]}; models for it are {', '.join(fitting)}"
    )


# Chosen by measurements on two cores; `docs/training.md` has the results.
_DEFAULTS: dict[str, dict[str, Any]] = {
    CONVOLUTIONAL: {"batch_size": 64, "learning_rate": 0.05},
    FULLY_CONNECTED: {"batch_size": 128, "learning_rate": 0.02},
    RECURRENT: {"optimizer": "adam", "batch_size": 200, "learning_rate": 1e-3, "clip_norm": 1.0},
}


def settings_for(model: str, dataset: str) -> dict[str, Any]:
    """Return the default settings of a model and a data set.

    Raises:
        UserError: The model does not predict what the data set asks for.
    """
    # An unknown name is refused later, by the function that builds the model or reads the data.
    architecture = ARCHITECTURES.get(model, ARCHITECTURES["nais10"])
    # Other data sets are taken for photographs.
    data = CATALOGUE.get(dataset, CATALOGUE["cifar10"])
    kind = architecture.kind
    check_task(model, architecture, dataset, data)
    epochs = data.epochs[kind]
    if "threshold" in architecture.settings:
        epochs = data.adaptive_epochs or epochs
    augment = "standard" if data.augmented and kind == CONVOLUTIONAL else "none"
    return {**_DEFAULTS[kind], "epochs": epochs, "augment": augment}
