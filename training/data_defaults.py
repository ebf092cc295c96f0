"""Which data sets fit to a model."""

from typing import Any

from iterconv.command_errors import UserError
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
