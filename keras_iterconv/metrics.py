"""The correctness of predictions, the error of guessing, and the metric `ExactSetAccuracy`."""

import math

import keras
import numpy as np


def is_wrong(outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return which predictions are wrong, bool `[N]`.

    Args:
        outputs: Logits or probabilities, `[N, classes]` with at least two classes.
        labels: Class numbers, int `[N]`: a prediction is right where the class has the largest
            output. Or multi-hot, `[N, classes]`: a prediction is right where the n classes of the
            label have the n largest outputs.

    Returns:
        A bool array `[N]`; a prediction with an output that is not finite is wrong.

    Raises:
        ValueError: The shapes do not fit.
    """
    outputs, labels = np.asarray(outputs), np.asarray(labels)
    if outputs.ndim != 2 or outputs.shape[1] < 2:
        raise ValueError(
            "The outputs of `model` must have the shape [N, classes], with at least two classes: "
            "the class of the largest output is the prediction. "
            f"Received: outputs of shape {outputs.shape}"
        )
    if labels.shape == outputs.shape:
        return ~keras.ops.convert_to_numpy(exact_set(labels, outputs))
    if labels.shape not in (outputs.shape[:1], (*outputs.shape[:1], 1)):
        raise ValueError(
            "`labels` must be class numbers [N] or multi-hot [N, classes]. "
            f"Received: outputs of shape {outputs.shape}, labels of shape {labels.shape}"
        )
    # `argmax` of NaNs is 0, which may be the label: predictions that are not finite are wrong.
    wrong = np.argmax(outputs, axis=1) != labels.reshape(-1)
    return wrong | ~np.isfinite(outputs).all(axis=1)


def chance_error(labels: np.ndarray, num_classes: int) -> float:
    """Return the error rate of a uniformly random guess.

    A guess is a set of classes, as many as the sample's label has.

    Args:
        labels: As in `is_wrong`.
        num_classes: The number of classes.

    Returns:
        1 - 1 / num_classes for class numbers; for multi-hot labels the mean of
        1 - 1 / C(num_classes, n), where a label has n classes.
    """
    labels = np.asarray(labels)
    if labels.ndim < 2 or labels.shape[1] == 1:
        return 1 - 1 / num_classes
    counts = np.count_nonzero(labels, axis=1)
    return float(np.mean([1 - 1 / math.comb(num_classes, int(n)) for n in counts]))


def exact_set(y_true, y_pred):
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
