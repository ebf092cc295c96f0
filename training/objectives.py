"""The loss and the accuracy, for images with one class and for images with a set of classes."""

import keras
import numpy as np

import keras_iterconv as ki


def make_loss(multi_label: bool) -> keras.losses.Loss:
    """Return the loss on logits.

    Args:
        multi_label: Whether a label is a set of classes, multi-hot `[N, C]`, or one class, `[N]`.

    Returns:
        The binary cross-entropy, averaged over classes, for sets of classes; the sparse
        categorical cross-entropy for one class.
    """
    if multi_label:
        return keras.losses.BinaryCrossentropy(from_logits=True)
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def make_metrics(multi_label: bool) -> list:
    """Return the metrics for `compile`: one metric, named `accuracy`.

    Args:
        multi_label: Whether a label is a set of classes.
    """
    return [ki.ExactSetAccuracy()] if multi_label else ["accuracy"]


def mean_loss(labels: np.ndarray, logits: np.ndarray) -> float:
    """Return the mean of the loss of `make_loss` over a part of a data set.

    Args:
        labels: Labels, int `[N]` or multi-hot `[N, C]`.
        logits: Logits, float `[N, C]`.
    """
    loss = (
        keras.losses.sparse_categorical_crossentropy
        if labels.ndim == 1
        else keras.losses.binary_crossentropy
    )
    return float(np.mean(loss(labels, logits, from_logits=True)))
