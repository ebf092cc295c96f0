"""Accuracies of predictions of several classes: sets of classes, and one class a position."""

import math
from typing import Any

import keras
import tensorflow as tf

from keras_iterconv._support.private_keras import mask_of


def exact_set(y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
    """Return whether the n largest outputs are those of exactly the n classes of the label.

    Each label has its own n. Ties at the n-th place count as wrong, and so do outputs that are not
    finite. Probabilities tie more often than logits: in float32, the sigmoids of all logits from 17
    on are 1.

    Args:
        y_true: Labels, multi-hot, `[N, classes]`.
        y_pred: Logits or probabilities, `[N, classes]`.

    Returns:
        A bool tensor `[N]`.
    """
    y_pred = keras.ops.convert_to_tensor(y_pred)
    wanted = keras.ops.cast(y_true, "bool")
    lowest_wanted = keras.ops.min(keras.ops.where(wanted, y_pred, math.inf), axis=-1)
    highest_other = keras.ops.max(keras.ops.where(wanted, -math.inf, y_pred), axis=-1)
    finite = keras.ops.all(keras.ops.isfinite(y_pred), axis=-1)
    return keras.ops.logical_and(finite, lowest_wanted > highest_other)


@keras.saving.register_keras_serializable("keras_iterconv")
class ExactSetAccuracy(keras.metrics.MeanMetricWrapper):
    """The share of samples whose n largest outputs are those of exactly the n classes of the label.

    Args:
        name: The name of the metric in logs.
        dtype: The dtype of the metric's sums; None for Keras's default.

    Example:
        >>> accuracy = ki.ExactSetAccuracy()
        >>> accuracy.update_state([[1, 0, 1], [1, 1, 0]], [[2.0, -1.0, 1.0], [2.0, -1.0, 1.0]])
        >>> float(accuracy.result())
        0.5

    Reference:
        Spoerer, McClure and Kriegeskorte 2017.

    See also:
        `AllPositionsAccuracy`, for one class at each position; `accuracy_by_depth`.
    """

    def __init__(self, name: str = "accuracy", dtype: str | None = None):
        super().__init__(fn=exact_set, name=name, dtype=dtype)

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "dtype": self.dtype}


def all_positions(y_true: tf.Tensor, y_pred: tf.Tensor, mask: tf.Tensor | None = None) -> tf.Tensor:
    """Return whether the class of the largest output is that of the label at all positions.

    A sample with an output that is not finite is wrong.

    Args:
        y_true: Class numbers, `[N, positions]`; there can be several axes of positions, and a last
            axis of size 1.
        y_pred: Logits or probabilities, `[N, positions, classes]`.
        mask: Which positions count, bool `[N, positions]`; None for all.

    Returns:
        A bool tensor `[N]`.
    """
    y_pred = keras.ops.convert_to_tensor(y_pred)
    predicted = keras.ops.argmax(y_pred, axis=-1)
    wanted = keras.ops.cast(keras.ops.reshape(y_true, keras.ops.shape(predicted)), predicted.dtype)
    finite = keras.ops.all(keras.ops.isfinite(y_pred), axis=-1)
    right = keras.ops.logical_and(finite, predicted == wanted)
    if mask is not None:
        right = keras.ops.logical_or(right, keras.ops.logical_not(mask))
    return keras.ops.all(right, axis=tuple(range(1, right.ndim)))


@keras.saving.register_keras_serializable("keras_iterconv")
class AllPositionsAccuracy(keras.metrics.MeanMetricWrapper):
    """The share of samples whose largest output is that of the label at each position.

    Positions that the Keras mask of the outputs leaves out do not count.

    Args:
        name: The name of the metric in logs.
        dtype: The dtype of the metric's sums; None for Keras's default.

    Example:
        >>> accuracy = ki.AllPositionsAccuracy()
        >>> scores = [[[2.0, -1.0], [0.5, 1.0]], [[2.0, -1.0], [0.5, 1.0]]]
        >>> accuracy.update_state([[0, 1], [0, 0]], scores)  # one wrong position
        >>> float(accuracy.result())
        0.5

    See also:
        `ExactSetAccuracy`, for samples of several classes; `accuracy_by_depth`.
    """

    def __init__(self, name: str = "accuracy", dtype: str | None = None):
        super().__init__(fn=all_positions, name=name, dtype=dtype)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        # Keras would give each position a weight, and there is one value for each sample.
        values = all_positions(y_true, y_pred, mask_of(y_pred))
        return keras.metrics.Mean.update_state(self, values, sample_weight)

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "dtype": self.dtype}
