"""Upper bounds of the operator norms of linear layers, in the 2-norm and the infinity norm."""

from collections.abc import Sequence
from typing import cast

import numpy as np
import tensorflow as tf

from keras_iterconv.spectral import conv_operator_norm
from keras_iterconv.spectral.power_iteration import TOLERANCE

NORMS = ("2", "infinity")


def matrix_norm(matrix: np.ndarray, norm: str) -> float:
    """Return the operator norm of x -> x W, with W `[inputs, outputs]`."""
    if not np.isfinite(matrix).all():
        return float("nan")
    return float(np.linalg.norm(matrix.T, 2 if norm == "2" else np.inf))


def conv_norm(
    kernel: np.ndarray | tf.Tensor,
    image: Sequence[int] | None,
    norm: str,
    strides: int | tuple[int, int] = 1,
    padding: str = "same",
) -> float:
    """Return an upper bound of the operator norm of a convolution `[kh, kw, channels, filters]`.

    The infinity norm is the largest sum of |taps| into a filter. On an image that is too small for
    all taps the norm is smaller.

    Args:
        kernel: The kernel, `[kh, kw, channels, filters]`.
        image: `(height, width)` of the inputs; None for the infinity norm, which needs no size.
        norm: `"2"` or `"infinity"`.
        strides: The strides.
        padding: `"same"` or `"valid"`.
    """
    if norm == "infinity":
        return float(np.abs(np.asarray(kernel, np.float64)).sum(axis=(0, 1, 2)).max())
    if not np.isfinite(kernel).all():
        return float("nan")
    # Power iteration converges from below, so its tolerance is added.
    found = conv_operator_norm(
        np.asarray(kernel, np.float32), cast(Sequence, image), strides, padding
    )
    return float(found) * (1 + TOLERANCE)
