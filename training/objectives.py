"""What is minimised and what counts as right: for one class a picture, and for a set of classes."""

import math

import keras
import numpy as np


def make_loss(multi_label: bool) -> keras.losses.Loss:
    """Make the loss on logits.

    Args:
        multi_label: Whether a label is a set of classes, multi-hot [B, C], or one class, [B].

    Returns:
        The binary cross-entropy, a mean over classes, for sets; the sparse categorical
        cross-entropy for one class.
    """
    if multi_label:
        return keras.losses.BinaryCrossentropy(from_logits=True)
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def make_metrics(multi_label: bool) -> list:
    """Make the metrics to compile a model with: one, which is named `accuracy`.

    Args:
        multi_label: Whether a label is a set of classes.
    """
    return [ExactSetAccuracy()] if multi_label else ["accuracy"]


def mean_loss(labels: np.ndarray, logits: np.ndarray) -> float:
    """Compute the loss of `make_loss` over a part of a data set.

    Args:
        labels: int [N] or multi-hot [N, C].
        logits: float [N, C].
    """
    loss = (
        keras.losses.sparse_categorical_crossentropy
        if labels.ndim == 1
        else keras.losses.binary_crossentropy
    )
    return float(np.mean(loss(labels, logits, from_logits=True)))


def is_right(labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Say which predictions are right; one that is not finite never is.

    Args:
        labels: int [N], where the largest logit must be the class; or multi-hot [N, C], where the
            largest n must be the n classes.
        logits: float [N, C].

    Returns:
        bool [N].
    """
    if labels.ndim == 2:
        return keras.ops.convert_to_numpy(exact_set(labels, logits))
    # The largest of a row of NaNs is its first: such a row is never right.
    return (np.argmax(logits, axis=1) == labels) & np.isfinite(logits).all(axis=1)


def exact_set(y_true, y_pred):
    """Say whether the n largest outputs are exactly the n classes of the target.

    n is read from each row of the target. Where the n-th and the next output are equal, the n
    largest are no one set, and the prediction is not right; nor is one that is not finite.

    Args:
        y_true: Multi-hot [B, C].
        y_pred: Logits or probabilities [B, C].

    Returns:
        A tensor, bool [B].
    """
    y_pred = keras.ops.convert_to_tensor(y_pred)
    wanted = keras.ops.cast(y_true, "bool")
    lowest_wanted = keras.ops.min(keras.ops.where(wanted, y_pred, math.inf), axis=-1)
    highest_other = keras.ops.max(keras.ops.where(wanted, -math.inf, y_pred), axis=-1)
    finite = keras.ops.all(keras.ops.isfinite(y_pred), axis=-1)
    return keras.ops.logical_and(finite, lowest_wanted > highest_other)


@keras.saving.register_keras_serializable("training")
class ExactSetAccuracy(keras.metrics.MeanMetricWrapper):
    """The share of predictions whose n largest outputs are exactly the n classes of the target.

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


def chance_error(targets: int, classes: int = 10) -> float:
    """The share of wrong answers of a guesser who knows how many classes there are to find.

    Args:
        targets: n, the classes in a picture.
        classes: All classes.

    Returns:
        1 - 1/C(classes, n).

    Raises:
        ValueError: If n is not from 0 to the number of classes.
    """
    if not 0 <= targets <= classes:
        raise ValueError(f"`targets` must be from 0 to {classes}. Received: targets={targets}")
    return 1 - 1 / math.comb(classes, targets)
