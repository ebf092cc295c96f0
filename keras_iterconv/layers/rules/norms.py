"""Upper bounds of the operator norms of linear layers, in the 2-norm and the infinity norm."""

from typing import Any

import numpy as np

from keras_iterconv.spectral import TOLERANCE, conv_operator_norm

NORMS = ("2", "infinity")


def matrix_norm(matrix: np.ndarray, norm: str) -> float:
    """Return the operator norm of x -> x W, with W `[inputs, outputs]`."""
    if not np.isfinite(matrix).all():
        return float("nan")
    return float(np.linalg.norm(matrix.T, 2 if norm == "2" else np.inf))


def conv_norm(
    kernel: Any,
    image: Any,
    norm: str,
    strides: int | tuple[int, int] = 1,
    padding: str = "same",
) -> float:
    """Return an upper bound of the operator norm of a convolution `[kh, kw, channels, filters]`.

    The infinity norm is the largest sum of |taps| into a filter. On an image that is too small for
    all taps the norm is smaller.
    """
    if norm == "infinity":
        return float(np.abs(np.asarray(kernel, np.float64)).sum(axis=(0, 1, 2)).max())
    if not np.isfinite(kernel).all():
        return float("nan")
    # Power iteration converges from below, so its tolerance is added.
    found = conv_operator_norm(np.asarray(kernel, np.float32), image, strides, padding)
    return float(found) * (1 + TOLERANCE)
