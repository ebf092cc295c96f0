"""When a net's answer is wrong, and how often a guess would be."""

import math

import numpy as np


def wrong_answers(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Say for each sample whether the answer is wrong.

    Args:
        logits: `[N, classes]`.
        labels: Class numbers, int `[N]`: the largest logit must be the class; or multi-hot
            `[N, classes]`: the n targets of a sample must have its n largest logits.

    Returns:
        bool `[N]`; a sample with a logit that is not finite is wrong.

    Raises:
        ValueError: The shapes do not fit.
    """
    logits, labels = np.asarray(logits), np.asarray(labels)
    if labels.shape == logits.shape:
        targets = labels.astype(bool)
        weakest = np.where(targets, logits, np.inf).min(axis=1)
        strongest_other = np.where(targets, -np.inf, logits).max(axis=1)
        wrong = ~(weakest > strongest_other)
    elif labels.shape in (logits.shape[:1], (*logits.shape[:1], 1)):
        wrong = np.argmax(logits, axis=1) != labels.reshape(-1)
    else:
        raise ValueError(
            "`labels` must be class numbers [N] or multi-hot [N, classes]. "
            f"Received: logits of shape {logits.shape}, labels of shape {labels.shape}"
        )
    return wrong | ~np.isfinite(logits).all(axis=1)


def chance_error(labels: np.ndarray, num_classes: int) -> float:
    """Return the error of a guess among all answers with as many targets as each sample has.

    Args:
        labels: As in `wrong_answers`.
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
