"""The scales of a capped residual function: those of its normalisations, and its divisor."""

from typing import Any

import tensorflow as tf


def fold_scales(kernel: tf.Tensor, input_scale: tf.Tensor, output_scale: tf.Tensor) -> tf.Tensor:
    """Return a kernel with the scales of the normalisations before and after it folded in.

    The shifts of the normalisations do not change the norm. The fold is exact under zero padding,
    since the padding follows the first normalisation.

    Args:
        kernel: `[kh, kw, channels, filters]`.
        input_scale: `[channels]`, gamma / sqrt(variance + epsilon) of the normalisation before.
        output_scale: `[filters]`, the same of the one after.

    Returns:
        The kernel of the composed operator, of the same shape.

    Example:
        >>> kernel = tf.ones([1, 1, 2, 1])
        >>> folded = ki.spectral.fold_scales(kernel, tf.constant([2.0, 3.0]), tf.constant([0.5]))
        >>> folded.numpy().ravel().tolist()
        [1.0, 1.5]

    See also:
        `spectral.conv_operator_norm`; `ResidualBlock`, whose cap uses it.
    """
    return kernel * input_scale[:, None] * output_scale


def cap_divisor(bound: float | tf.Tensor, cap: Any) -> tf.Tensor:
    """Return c = max(L / mu, 1): the Lipschitz constant of f / c is at most mu.

    Lippl et al. print mu / L. Their text and the Lipschitz bound require L / mu.

    Args:
        bound: L, an upper bound of the Lipschitz constant of f.
        cap: mu, the Lipschitz cap.

    Returns:
        c, a scalar of at least 1.

    Example:
        >>> float(ki.spectral.cap_divisor(4.0, 0.5)), float(ki.spectral.cap_divisor(0.25, 0.5))
        (8.0, 1.0)

    Reference:
        Lippl et al. 2024, Eq. 3.

    See also:
        `ResidualBlock`; `spectral.conv_operator_norm`.
    """
    return tf.maximum(bound / cap, 1.0)
