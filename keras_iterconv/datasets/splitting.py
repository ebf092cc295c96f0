"""Stratified splits that do not depend on the training seed."""

import numpy as np
from sklearn.model_selection import train_test_split

# Not the training seed: the validation accuracies of runs with different seeds can be compared only
# on one validation part.
CUT_SEED = 20180504
VALIDATION_SHARE = 0.1


def cut(labels: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Return a stratified split of images into two parts.

    Args:
        labels: Class numbers, int [N], or sets of classes, int [N, C]; each distinct set counts as
            a class.
        share: Share of the second part, in [0, 1); 0, or large enough for one image of each
            class.

    Returns:
        `(kept, cut_off)`: sorted image indices, int [N - M] and int [M], disjoint.
    """
    if share == 0:
        return np.arange(len(labels)), np.arange(0)
    kept, cut_off = train_test_split(
        np.arange(len(labels)), test_size=share, stratify=_strata(labels), random_state=CUT_SEED
    )
    return np.sort(kept), np.sort(cut_off)


def cut_each_class(labels: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Return a split of images into two parts, each with its share of every class.

    Of a class of at least two images each part has at least one; a single image stays in the first.

    Args:
        labels: Class numbers, int [N].
        share: Share of the second part, in [0, 1).

    Returns:
        `(kept, cut_off)`: sorted image indices, int [N - M] and int [M], disjoint.
    """
    if share == 0:
        return np.arange(len(labels)), np.arange(0)
    generator = np.random.default_rng(CUT_SEED)
    is_cut = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        images = generator.permutation(np.flatnonzero(labels == label))
        count = min(max(round(share * len(images)), 1), len(images) - 1)
        is_cut[images[:count]] = True
    return np.flatnonzero(~is_cut), np.flatnonzero(is_cut)


def stratified_subset(labels: np.ndarray, count: int) -> np.ndarray:
    """Return `count` image indices, stratified as far as whole images permit.

    scikit-learn rejects a part smaller than the number of classes, which the validation part of a
    short trial run can be. So the images are divided among the classes by largest remainder.

    Args:
        labels: Class numbers, int [N], or sets of classes, int [N, C]; each distinct set counts as
            a class.
        count: Number of images, at most N.

    Returns:
        Sorted image indices, int [count].
    """
    if count == 0:
        return np.arange(0)
    labels = _strata(labels)
    classes, sizes = np.unique(labels, return_counts=True)
    exact = sizes * count / len(labels)
    counts = np.floor(exact).astype(int)
    largest_first = np.argsort(counts - exact, kind="stable")
    counts[largest_first[: count - counts.sum()]] += 1

    generator = np.random.default_rng(CUT_SEED)
    chosen = [
        generator.permutation(np.flatnonzero(labels == label))[:class_count]
        for label, class_count in zip(classes, counts, strict=True)
    ]
    return np.sort(np.concatenate(chosen))


def _strata(labels: np.ndarray) -> np.ndarray:
    """Return the number of each image's distinct label, int [N]."""
    if labels.ndim == 1:
        return labels
    return np.unique(labels, axis=0, return_inverse=True)[1].reshape(-1)
