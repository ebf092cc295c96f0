"""The norm of a convolution on zero-padded images, and two norms to check it."""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from keras_iterconv._support.checks import check_between, check_choice, check_positive_int
from keras_iterconv.spectral.conv_operator import ConvOperator, check_image, float_kernel
from keras_iterconv.spectral.power_iteration import ITERATIONS, TOLERANCE, converged_norm

PADDINGS = ("same", "valid")


def conv_operator_norm(
    kernel: np.ndarray | tf.Tensor | keras.Variable,
    image_shape: Sequence[int],
    strides: int | Sequence[int] = 1,
    padding: str = "same",
    iterations: int = ITERATIONS,
    tolerance: float = TOLERANCE,
) -> tf.Tensor:
    """Return the operator norm of a convolution, by power iteration.

    The norm is the largest factor by which the convolution can increase the 2-norm of an image.
    The estimate approaches the norm from below; at the default tolerance its relative error is
    about 1e-4. Its gradient is that of the norm.

    Args:
        kernel: `[kh, kw, channels, filters]`, a float tensor, array or variable.
        image_shape: The shape of the images, `(height, width)` or `(height, width, channels)`.
        strides: One number, or `(vertical, horizontal)`.
        padding: `"same"`, with zeros, or `"valid"`.
        iterations: The largest number of steps.
        tolerance: The residual, relative to the norm's square, at which to stop.

    Returns:
        A scalar, float32, or float64 for a float64 kernel.

    Raises:
        ValueError: An argument is out of its range, or the shapes do not fit.

    Example:
        >>> kernel = tf.ones([3, 3, 1, 1])
        >>> round(float(ki.spectral.conv_operator_norm(kernel, (8, 8))), 2)
        8.29
        >>> round(float(ki.spectral.conv_operator_norm(kernel, (32, 32))), 2)
        8.95

    Reference:
        Lippl et al. 2024, "Upper bound on the Lipschitz constant".

    See also:
        `spectral.circular_conv_norm` and `spectral.reshaped_norm_bound`, to check it;
        `spectral.cap_divisor`; `ResidualBlock`.
    """
    kernel = float_kernel(kernel)
    image_shape = check_image(image_shape, kernel)
    pair = tuple(strides) if isinstance(strides, Sequence) else (strides, strides)
    if len(pair) != 2:
        raise ValueError(f"`strides` must be one number or two. Received: strides={strides!r}")
    vertical, horizontal = (check_positive_int("strides", stride) for stride in pair)
    padding = check_choice("padding", padding, PADDINGS)
    iterations = check_positive_int("iterations", iterations)
    tolerance = check_between("tolerance", tolerance, 0, 1)
    if padding == "valid" and any(
        side > size for side, size in zip(kernel.shape[:2], image_shape[:2], strict=True)
    ):
        raise ValueError(
            'With `padding="valid"` the images must be at least as large as the kernel. '
            f"Received: kernel of shape {tuple(kernel.shape)}, image_shape={image_shape}"
        )
    operator = ConvOperator(kernel, image_shape, (vertical, horizontal), padding)
    return converged_norm(operator, iterations, tolerance)[0]


def reshaped_norm_bound(kernel: np.ndarray | tf.Tensor | keras.Variable) -> tf.Tensor:
    """Return the spectral norm of the reshaped kernel times sqrt(kh * kw).

    It is an upper bound of `conv_operator_norm` at stride 1, for images of any size, zero-padded or
    circular, and serves as a cross-check. Without the factor it is not a bound.

    Args:
        kernel: `[kh, kw, channels, filters]`.

    Returns:
        A scalar of at least the operator's norm.

    Raises:
        ValueError: The kernel has another rank.

    Example:
        >>> kernel = tf.ones([3, 3, 1, 1])
        >>> round(float(ki.spectral.reshaped_norm_bound(kernel)), 2)
        9.0
        >>> round(float(ki.spectral.conv_operator_norm(kernel, (8, 8))), 2)
        8.29

    See also:
        `spectral.conv_operator_norm`; `spectral.circular_conv_norm`.
    """
    kernel = float_kernel(kernel)
    height, width, _, filters = kernel.shape
    matrix = tf.reshape(kernel, [-1, filters])
    return tf.linalg.svd(matrix, compute_uv=False)[0] * (height * width) ** 0.5


def circular_conv_norm(
    kernel: np.ndarray | tf.Tensor | keras.Variable, image_shape: Sequence[int]
) -> tf.Tensor:
    """Return the exact norm of a convolution with circular padding and stride 1, by FFT and SVD.

    It serves as a cross-check of `conv_operator_norm`. On a torus, the operator decomposes into one
    matrix for each frequency.

    Args:
        kernel: `[kh, kw, channels, filters]`.
        image_shape: `(height, width)` or `(height, width, channels)`, at least the kernel's size.

    Returns:
        A scalar.

    Raises:
        ValueError: The shapes do not fit.

    Example:
        >>> kernel = tf.ones([3, 3, 1, 1])
        >>> round(float(ki.spectral.circular_conv_norm(kernel, (8, 8))), 2)  # no padding reduces it
        9.0
        >>> round(float(ki.spectral.conv_operator_norm(kernel, (8, 8))), 2)
        8.29

    Reference:
        Sedghi, Gupta, Long 2019, "The singular values of convolutional layers", Theorem 6.

    See also:
        `spectral.conv_operator_norm`; `spectral.reshaped_norm_bound`.
    """
    kernel = float_kernel(kernel)
    height, width, _ = check_image(image_shape, kernel)
    kh, kw = kernel.shape[:2]
    if kh > height or kw > width:
        raise ValueError(
            "The images must be at least as large as the kernel. "
            f"Received: kernel of shape {tuple(kernel.shape)}, image_shape={tuple(image_shape)}"
        )
    padded = tf.pad(kernel, [[0, height - kh], [0, width - kw], [0, 0], [0, 0]])
    dtype = tf.complex128 if kernel.dtype == tf.float64 else tf.complex64
    spectrum = tf.signal.fft2d(tf.cast(tf.transpose(padded, (2, 3, 0, 1)), dtype))
    values = tf.linalg.svd(tf.transpose(spectrum, (2, 3, 0, 1)), compute_uv=False)
    return tf.reduce_max(tf.cast(values, kernel.dtype))
