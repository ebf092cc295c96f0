"""The tasks that a net is trained for: loss, metrics, wrong predictions, exported outputs."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

import keras
import numpy as np

from keras_iterconv._support.outputs import SIGMOID, SOFTMAX
from keras_iterconv.losses import class_crossentropy
from keras_iterconv.metrics import AllPositionsAccuracy, ExactSetAccuracy, all_positions, exact_set


@dataclass(frozen=True, eq=False)
class Task:
    """What a net is trained for, and how its outputs are judged.

    Attributes:
        name: The name in `TASKS`.
        make_loss: A function that returns the loss for `compile`, of a net that returns logits or,
            for a regression, numbers. It accepts `reduction` and, but for a regression,
            `label_smoothing`.
        make_metrics: A function that returns the metrics for `compile`.
        is_wrong: A function `(outputs, labels)` that returns which predictions are wrong, bool
            `[N]`; a prediction with an output that is not finite is wrong. It raises `ValueError`
            for a regression, which has no accuracy.
        chance_error: A function `(labels, num_classes)` that returns the error rate of a uniformly
            random guess. It raises `ValueError` for a regression.
        activation: The activation that makes probabilities of logits, `"softmax"` or `"sigmoid"`;
            None for a task without probabilities.
        output_names: The names of the outputs of an exported file that hold the net's predictions.
    """

    name: str
    make_loss: Callable[..., keras.losses.Loss]
    make_metrics: Callable[[], list]
    is_wrong: Callable[[np.ndarray, np.ndarray], np.ndarray]
    chance_error: Callable[[np.ndarray, int], float]
    activation: str | None
    output_names: tuple[str, ...] = ("logits", "probabilities")

    def mean_loss(self, labels: np.ndarray, outputs: np.ndarray) -> float:
        """Return the mean of the loss over all samples, and over positions if there are several."""
        return float(np.mean(self.make_loss(reduction="none")(labels, outputs)))


def infer_task(output_shape: Sequence[int], labels: np.ndarray) -> Task:
    """Return the task of a net, from a batch of labels and the shape of the outputs for it.

    Args:
        output_shape: The shape of the outputs, `[N, classes]` or `[N, positions, classes]` with at
            least two classes; there can be several axes of positions.
        labels: Class numbers, `[N]` for `classes`, `[N, positions]` for `labels_per_position`; both
            can have a last axis of size 1. Zeros and ones of the outputs' shape `[N, classes]` for
            `label_sets`. Other numbers of the outputs' shape are those of a `regression`.

    Raises:
        ValueError: The shapes do not fit.
    """
    shape, labels = tuple(output_shape), np.asarray(labels)
    has_classes = len(shape) > 1 and shape[-1] > 1
    if has_classes and labels.shape in (shape[:-1], (*shape[:-1], 1)):
        _check_class_numbers(labels, shape[-1])
        return TASKS["classes" if len(shape) == 2 else "labels_per_position"]
    is_set = np.isin(labels, (0, 1)).all()
    if has_classes and len(shape) == 2 and labels.shape == shape and is_set:
        return TASKS["label_sets"]
    number_shapes = (shape, shape[:-1]) if shape[-1:] == (1,) else (shape,)
    if labels.shape in number_shapes and not is_set:
        return TASKS["regression"]
    if not has_classes:
        raise ValueError(
            "The outputs of `model` must have the shape [N, classes] or [N, positions, classes], "
            "with at least two classes: the class of the largest output is the prediction. "
            f"Received: outputs of shape {shape}"
        )
    raise ValueError(
        f"`labels` must be {_LABELS}. "
        f"Received: outputs of shape {shape}, labels of shape {labels.shape}"
    )


def _check_class_numbers(labels: np.ndarray, num_classes: int) -> None:
    if not (np.isin(labels, np.arange(num_classes))).all():
        raise ValueError(
            f"`labels` must be class numbers from 0 to {num_classes - 1}, for outputs of "
            f"{num_classes} classes. Received: labels from {labels.min()} to {labels.max()}"
        )


def is_wrong(outputs: Any, labels: Any) -> np.ndarray:
    """Return which predictions are wrong, for a task that is inferred from outputs and labels.

    Args:
        outputs: Logits or probabilities, `[N, classes]` or `[N, positions, classes]`, with at least
            two classes; or a list or dict of them.
        labels: Class numbers, int `[N]`: a prediction is right where the class has the largest
            output. Multi-hot, `[N, classes]`: it is right where the n classes of the label have the
            n largest outputs. Class numbers, int `[N, positions]`: it is right where it is right at
            all positions. For several outputs a list or dict of labels like theirs: a prediction
            is right where it is right in each output that has labels; those of others are None, or
            missing in a dict.

    Returns:
        A bool array `[N]`; a prediction with an output that is not finite is wrong.

    Raises:
        ValueError: The shapes or structures do not fit, or the labels are those of a regression.
    """
    # Nested lists of numbers are one output, lists of arrays several.
    of_arrays = isinstance(outputs, list | tuple) and all(hasattr(z, "shape") for z in outputs)
    if isinstance(outputs, dict) or of_arrays:
        pairs = _pairs(outputs, labels)
        return np.any([is_wrong(each, own) for each, own in pairs], axis=0)
    outputs, labels = np.asarray(outputs), np.asarray(labels)
    return infer_task(outputs.shape, labels).is_wrong(outputs, labels)


def _pairs(outputs: Any, labels: Any) -> list[tuple]:
    """Return the outputs that have labels, each with its labels."""
    alike = isinstance(labels, dict if isinstance(outputs, dict) else list | tuple)
    if alike and isinstance(outputs, dict):
        pairs = [(outputs.get(name), own) for name, own in labels.items()]
    else:
        pairs = list(zip(outputs, labels, strict=False)) if alike else []
    judged = [(each, own) for each, own in pairs if own is not None]
    fits = judged and all(each is not None for each, _ in judged)
    if not fits or (isinstance(outputs, list | tuple) and len(labels) != len(outputs)):
        names = list(outputs) if isinstance(outputs, dict) else f"a list of {len(outputs)}"
        got = list(labels) if isinstance(labels, dict) else type(labels).__name__
        raise ValueError(
            "`labels` must have the structure of the model's outputs, with labels for at least one "
            f"of them. Received: outputs {names}, labels {got}"
        )
    return judged


_LABELS = (
    "class numbers [N] or multi-hot [N, classes] for outputs [N, classes], or class numbers "
    "[N, positions] for outputs [N, positions, classes]"
)


def _is_wrong_class(outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    # `argmax` of NaNs is 0, which may be the label: predictions that are not finite are wrong.
    wrong = np.argmax(outputs, axis=1) != labels.reshape(-1)
    return wrong | ~np.isfinite(outputs).all(axis=1)


def _is_wrong_set(outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return ~keras.ops.convert_to_numpy(exact_set(labels, outputs))


def _is_wrong_somewhere(outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return ~keras.ops.convert_to_numpy(all_positions(labels, outputs))


def _chance_of_class(labels: np.ndarray, num_classes: int) -> float:
    return 1 - 1 / num_classes


def _chance_of_set(labels: np.ndarray, num_classes: int) -> float:
    """Return the error of guessing a set of as many classes as the label has."""
    counts = np.count_nonzero(labels, axis=1)
    return float(np.mean([1 - 1 / math.comb(num_classes, int(n)) for n in counts]))


def _chance_of_positions(labels: np.ndarray, num_classes: int) -> float:
    positions = labels[0].size
    return 1 - float(num_classes) ** -positions


def _refuse(labels: np.ndarray) -> NoReturn:
    raise ValueError(
        f"`labels` must be {_LABELS}. Other numbers are those of a regression, which has no "
        "accuracy; `model.evaluate` returns its loss. "
        f"Received: labels of shape {labels.shape}, from {labels.min()} to {labels.max()}"
    )


TASKS = {
    task.name: task
    for task in (
        Task(
            "classes",
            class_crossentropy,
            lambda: ["accuracy"],
            _is_wrong_class,
            _chance_of_class,
            SOFTMAX,
        ),
        Task(
            "label_sets",
            partial(keras.losses.BinaryCrossentropy, from_logits=True),
            lambda: [ExactSetAccuracy()],
            _is_wrong_set,
            _chance_of_set,
            SIGMOID,
        ),
        Task(
            "labels_per_position",
            class_crossentropy,
            lambda: [AllPositionsAccuracy()],
            _is_wrong_somewhere,
            _chance_of_positions,
            SOFTMAX,
        ),
        Task(
            "regression",
            keras.losses.MeanSquaredError,
            lambda: [keras.metrics.MeanAbsoluteError()],
            lambda outputs, labels: _refuse(labels),
            lambda labels, num_classes: _refuse(labels),
            None,
            ("outputs",),
        ),
    )
}
