"""How strongly two measures of images are related, beside what chance gives."""

from typing import NamedTuple

import numpy as np
from scipy import stats

DRAWS = 2000


class Relation(NamedTuple):
    """A relation of two measures, and its null by permutation.

    Attributes:
        value: The measured value.
        low: The smallest value of the central 95% of the permutations.
        high: The largest one.
        p: The share of permutations, the measured one included, with a value at least as large in
            magnitude.
    """

    value: float
    low: float
    high: float
    p: float


def rank_correlation(
    first: np.ndarray, second: np.ndarray, strata: np.ndarray, seed: int = 0
) -> Relation | None:
    """Return Spearman's correlation within strata, mean weighted by their sizes.

    Its null permutes within each stratum: what only the strata have in common is no relation.

    Args:
        first: A measure, `[N]`.
        second: Another one, `[N]`.
        strata: The stratum of each image, `[N]`.
        seed: Seed of the permutations.

    Returns:
        The relation; None if a measure is constant within each stratum.
    """
    order = np.argsort(strata, kind="stable")
    ends = np.flatnonzero(np.diff(strata[order])) + 1
    ours, theirs = (
        np.concatenate([_standard_ranks(part) for part in np.split(measure[order], ends)])
        for measure in (first, second)
    )
    if not (np.any(ours) and np.any(theirs)):
        return None
    rng = np.random.default_rng(seed)
    parts = np.split(theirs, ends)
    drawn = [
        np.mean(ours * np.concatenate([rng.permutation(part) for part in parts]))
        for _ in range(DRAWS)
    ]
    return _beside(float(np.mean(ours * theirs)), np.array(drawn))


def class_effect(measure: np.ndarray, labels: np.ndarray, seed: int = 0) -> Relation | None:
    """Return the share of the variance of a measure's ranks that lies between classes.

    Args:
        measure: The measure, `[N]`.
        labels: Class numbers, int `[N]`.
        seed: Seed of the permutations.

    Returns:
        The relation; None if the measure is constant.
    """
    ranks = _standard_ranks(measure)
    if not np.any(ranks):
        return None
    sizes = np.bincount(labels)

    def between(drawn):
        sums = np.bincount(labels, drawn)
        return float(np.sum(sums[sizes > 0] ** 2 / sizes[sizes > 0]) / len(drawn))

    rng = np.random.default_rng(seed)
    return _beside(
        between(ranks), np.array([between(rng.permutation(ranks)) for _ in range(DRAWS)])
    )


def _standard_ranks(values: np.ndarray) -> np.ndarray:
    """Return the ranks with mean 0 and variance 1; zeros for equal values."""
    ranks = stats.rankdata(values)
    deviation = ranks.std()
    return (ranks - ranks.mean()) / (deviation if deviation else 1)


def _beside(value: float, drawn: np.ndarray) -> Relation:
    low, high = np.quantile(drawn, [0.025, 0.975])
    # Rounding differs between permutations that are equal.
    extreme = int(np.sum(np.abs(drawn) >= abs(value) - 1e-12))
    return Relation(value, float(low), float(high), (1 + extreme) / (1 + len(drawn)))
