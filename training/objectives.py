"""What is minimised and what counts as right: for one class a picture, and for a set of classes."""

import keras
import numpy as np

import keras_iterconv as ki


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
    return [ki.ExactSetAccuracy()] if multi_label else ["accuracy"]


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
