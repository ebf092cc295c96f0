"""Stratified cuts, the same for every training seed."""

import numpy as np
from sklearn.model_selection import train_test_split

# Not the training seed: runs that differ in their seed must share one validation part, or their
# accuracies could not be compared.
CUT_SEED = 20180504
VALIDATION_SHARE = 0.1


def cut(labels: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Cut off a share of the samples, with every class in proportion.

    Args:
        labels: int [N], or int [N, C] for sets of classes, each distinct set counting as a class.
        share: How much to cut off, in [0, 1); of more than 0 at least a sample of each class.

    Returns:
        `(kept, cut_off)`: sorted sample numbers, int [N - M] and int [M], disjoint.
    """
    if share == 0:
        return np.arange(len(labels)), np.arange(0)
    kept, cut_off = train_test_split(
        np.arange(len(labels)), test_size=share, stratify=_strata(labels), random_state=CUT_SEED
    )
    return np.sort(kept), np.sort(cut_off)


def stratified_subset(labels: np.ndarray, count: int) -> np.ndarray:
    """Choose `count` samples with every class in proportion, as far as whole samples permit.

    scikit-learn refuses a part smaller than the number of classes; a validation part of a short
    trial run is just that, so the places are dealt out by largest remainder instead.

    Args:
        labels: int [N], or int [N, C] for sets of classes, each distinct set counting as a class.
        count: How many to choose, at most N.

    Returns:
        Sorted sample numbers, int [count].
    """
    if count == 0:
        return np.arange(0)
    labels = _strata(labels)
    classes, sizes = np.unique(labels, return_counts=True)
    exact = sizes * count / len(labels)
    places = np.floor(exact).astype(int)
    largest_first = np.argsort(places - exact, kind="stable")
    places[largest_first[: count - places.sum()]] += 1

    generator = np.random.default_rng(CUT_SEED)
    chosen = [
        generator.permutation(np.flatnonzero(labels == label))[:place]
        for label, place in zip(classes, places, strict=True)
    ]
    return np.sort(np.concatenate(chosen))


def _strata(labels: np.ndarray) -> np.ndarray:
    """Number the distinct labels: int [N]."""
    if labels.ndim == 1:
        return labels
    return np.unique(labels, axis=0, return_inverse=True)[1].reshape(-1)
