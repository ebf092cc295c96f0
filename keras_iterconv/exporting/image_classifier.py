"""What the file of an image classifier has beside its model: raw images in, probabilities out."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_iterconv._support.outputs import LINEAR, SIGMOID, SOFTMAX, output_activation
from keras_iterconv.preprocessing import Preprocessing
from keras_iterconv.tasks import Task

_ACTIVATIONS = {SOFTMAX: tf.nn.softmax, SIGMOID: tf.nn.sigmoid}
# Bounds of p and 1 - p: the logits of probabilities 0 and 1 are infinite.
_SMALLEST = float(np.finfo(np.float32).tiny)
_SMALLEST_REST = 2.0**-24


class ImageClassifier:
    """The input `image` in raw values, and the outputs `logits` and `probabilities`.

    Args:
        model: Model from standardised images to logits, or to probabilities by the activation of
            `task`. Probabilities are returned unchanged, and the logits are computed from them.
            For a task without probabilities, a model of any one output, which is `outputs`.
        preprocessing: Standardisation of raw pixel values.
        task: Task of the model.

    Raises:
        ValueError: The model has several inputs, or its outputs are neither logits nor such
            probabilities.
    """

    def __init__(self, model: keras.Model, preprocessing: Preprocessing, task: Task):
        self._activation = _check_activation(model, task)
        self._task, self.standardise = task, preprocessing

    @property
    def output_names(self) -> tuple[str, ...]:
        """The names of the outputs."""
        return self._task.output_names

    def input_of(self, inputs: Sequence[tf.TensorSpec]) -> tf.TensorSpec:
        """Return the input of the file for those of the model."""
        if len(inputs) != 1:
            raise ValueError(
                "`model` must have one input to be exported with `classes`, `mean` or `std`. "
                f"Received: a model of {[spec.name for spec in inputs]}"
            )
        return tf.TensorSpec(inputs[0].shape, tf.float32, "image")

    def predict(self, outputs: tf.Tensor) -> list[tf.Tensor]:
        """Return the tensors of `output_names`, for the outputs of the model."""
        if self._task.activation is None:
            return [outputs]
        if self._activation != LINEAR:
            return [as_logits(outputs, self._activation), outputs]
        return [outputs, _ACTIVATIONS[self._task.activation](outputs)]


def as_logits(outputs: tf.Tensor, activation: str | None) -> tf.Tensor:
    """Return the logits of a model's outputs, finite where the outputs are finite.

    Args:
        outputs: Outputs of the model, `[N, classes]`.
        activation: Activation of the outputs: `"linear"` for logits, `"softmax"` for
            probabilities whose logarithms are logits, or `"sigmoid"`.
    """
    if activation == LINEAR:
        return outputs
    logits = _log(outputs, _SMALLEST)
    return logits if activation == SOFTMAX else logits - _log(1 - outputs, _SMALLEST_REST)


def _log(values: tf.Tensor, smallest: float) -> tf.Tensor:
    # Not `maximum`, which may not propagate NaN.
    return tf.math.log(tf.where(values < smallest, smallest, values))


def _check_activation(model: Any, task: Task) -> str | None:
    activation, expected = output_activation(model), task.activation
    if expected is not None and activation not in (LINEAR, expected):
        ends = "in a layer of unknown outputs" if activation is None else f"in a {activation}"
        raise ValueError(
            f"`model` must end in logits or in a {expected}, as a Keras layer or activation, "
            f"because an exported file has both. Received: model={model.name!r}, which ends {ends}"
        )
    return activation
