"""When a net's answer is right or wrong, and how often a guess would be wrong."""

import math

import keras
import numpy as np


def is_wrong(outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Say for each sample whether the answer is wrong.

    Args:
        outputs: Logits or probabilities, `[N, classes]` with at least two classes.
        labels: Class numbers, int `[N]`: the largest output must be the class; or multi-hot
            `[N, classes]`: the n targets of a sample must have its n largest outputs.

    Returns:
        bool `[N]`; a sample with an output that is not finite is wrong.

    Raises:
        ValueError: The shapes do not fit.
    """
    outputs, labels = np.asarray(outputs), np.asarray(labels)
    if outputs.ndim != 2 or outputs.shape[1] < 2:
        raise ValueError(
            "`model` must answer with [N, classes], two classes at least: the largest output is "
            f"its answer. Received: outputs of shape {outputs.shape}"
        )
    if labels.shape == outputs.shape:
        return ~keras.ops.convert_to_numpy(exact_set(labels, outputs))
    if labels.shape not in (outputs.shape[:1], (*outputs.shape[:1], 1)):
        raise ValueError(
            "`labels` must be class numbers [N] or multi-hot [N, classes]. "
            f"Received: outputs of shape {outputs.shape}, labels of shape {labels.shape}"
        )
    # The largest of a row of NaNs is its first: such a row is never right.
    wrong = np.argmax(outputs, axis=1) != labels.reshape(-1)
    return wrong | ~np.isfinite(outputs).all(axis=1)


def chance_error(labels: np.ndarray, num_classes: int) -> float:
    """Return the error of a guess among all answers with as many targets as each sample has.

    Args:
        labels: As in `is_wrong`.
        num_classes: The number of classes.

    Returns:
        1 - 1 / num_classes for class numbers; the mean of 1 - 1 / C(num_classes, n) for multi-hot
        labels with n targets.
    """
    labels = np.asarray(labels)
    if labels.ndim < 2 or labels.shape[1] == 1:
        return 1 - 1 / num_classes
    counts = np.count_nonzero(labels, axis=1)
    return float(np.mean([1 - 1 / math.comb(num_classes, int(n)) for n in counts]))


def exact_set(y_true, y_pred):
    """Say whether the n largest outputs are exactly the n classes of the target.

    n is read from each row of the target. Ties at the n-th place count as wrong, and so does an
    answer that is not finite. Probabilities tie sooner than the logits that they are made of:
    in float32 the sigmoids of all logits from 17 on are 1.

    Args:
        y_true: Multi-hot, `[B, classes]`.
        y_pred: Logits or probabilities, `[B, classes]`.

    Returns:
        A tensor, bool `[B]`.
    """
    y_pred = keras.ops.convert_to_tensor(y_pred)
    wanted = keras.ops.cast(y_true, "bool")
    lowest_wanted = keras.ops.min(keras.ops.where(wanted, y_pred, math.inf), axis=-1)
    highest_other = keras.ops.max(keras.ops.where(wanted, -math.inf, y_pred), axis=-1)
    finite = keras.ops.all(keras.ops.isfinite(y_pred), axis=-1)
    return keras.ops.logical_and(finite, lowest_wanted > highest_other)


@keras.saving.register_keras_serializable("keras_iterconv")
class ExactSetAccuracy(keras.metrics.MeanMetricWrapper):
    """The share of answers whose n largest outputs are exactly the n classes of the target.

    Args:
        name: What the logs call it.
        dtype: Of its sums; None for Keras's default.

    Example:
        >>> accuracy = ExactSetAccuracy()
        >>> accuracy.update_state([[1, 0, 1], [1, 1, 0]], [[2.0, -1.0, 1.0], [2.0, -1.0, 1.0]])
        >>> float(accuracy.result())
        0.5

    Reference:
        Spoerer, McClure and Kriegeskorte 2017.
    """

    def __init__(self, name: str = "accuracy", dtype=None):
        super().__init__(fn=exact_set, name=name, dtype=dtype)

    def get_config(self):
        return {"name": self.name, "dtype": self.dtype}
