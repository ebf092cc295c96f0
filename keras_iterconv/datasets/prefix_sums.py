"""Prefix sums: sequences of bits, and for each position the parity of all bits up to it.

A sequence is harder the longer it is, so that a net can be trained on short sequences and tested on
longer ones.

Reference:
    Schwarzschild et al. 2021, "Can you learn an algorithm? Generalizing from easy to hard problems
    with recurrent networks".
"""

import numpy as np

# Length of the sequences of the data set, as in the reference.
BITS = 24
AVAILABLE = 10_000
_SIZES = {"train": AVAILABLE, "validation": 1_000, "test": 2_000}
_SEED = 24


def draw_prefix_sums(
    count: int, bits: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return random sequences of bits and their prefix sums modulo 2.

    Args:
        count: Number of sequences.
        bits: Length of a sequence.
        rng: The random numbers.

    Returns:
        `(images, labels)`: uint8 `[count, bits, 1, 1]` of zeros and ones, and int32 `[count,
        bits]`.
    """
    drawn = rng.integers(0, 2, (count, bits), dtype=np.uint8)
    labels = np.cumsum(drawn, axis=1, dtype=np.int32) % 2
    return drawn[..., np.newaxis, np.newaxis], labels


def make_prefix_sums(limit_train: int | None = None) -> tuple[dict, tuple[str, ...]]:
    """Return the parts of the data set and the names of the classes, always the same.

    Args:
        limit_train: Number of training sequences, the first ones; None for all. The validation part
            then has a tenth as many.
    """
    parts = {}
    for number, (part, size) in enumerate(_SIZES.items()):
        images, labels = draw_prefix_sums(size, BITS, np.random.default_rng((_SEED, number)))
        if limit_train is not None and part != "test":
            kept = limit_train if part == "train" else max(1, limit_train // 10)
            images, labels = images[:kept], labels[:kept]
        parts[part] = images, labels
    return parts, ("even", "odd")
