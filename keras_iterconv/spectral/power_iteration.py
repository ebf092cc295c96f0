"""The norm of an operator and its first singular vector, by power iteration."""

import math
from collections.abc import Sequence

import tensorflow as tf

from keras_iterconv.spectral.conv_operator import ConvOperator

ITERATIONS = 5_000
TOLERANCE = 1e-4
# Number of power steps in one cycle of `_converge`.
KRYLOV = 16
# Norm of the random vector that `converged_norm` adds to an estimate of norm one.
NOISE = 0.1


def power_step(operator: ConvOperator, vector: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the estimates of norm and first singular vector after one step of power iteration.

    Args:
        operator: A, a linear operator on images.
        vector: v, the estimate of the first right singular vector, of norm one,
            `[1, height, width, channels]`.

    Returns:
        `(norm, vector)`. The norm is u'Av with u = Av / ||Av||, at most the norm of A. Its gradient
        in the kernel treats u and v as constants; at convergence it is the gradient of the norm of
        A. The vector is the next v, A'u normalised, without a gradient.

    Example:
        >>> operator = ki.spectral.ConvOperator(tf.ones([3, 3, 1, 1]), (8, 8, 1))
        >>> vector = ki.spectral.start_vectors(1, (8, 8, 1))
        >>> for _ in range(50):
        ...     norm, vector = ki.spectral.power_step(operator, vector)
        >>> round(float(norm), 2)
        8.29

    See also:
        `spectral.converged_norm`; `spectral.start_vectors`.
    """
    vector = tf.stop_gradient(vector)
    image = operator.apply(vector)
    left = tf.stop_gradient(_unit(image))
    # Not `tf.norm(image)`, whose derivative at zero is not finite.
    norm = tf.reduce_sum(left * image)
    # For a kernel that is zero or not finite, the vector must remain usable.
    following = _unit(tf.stop_gradient(operator.adjoint(left)), otherwise=vector)
    return norm, following


def _unit(vector, otherwise=None):
    """Return a vector scaled to norm one.

    Where its norm is zero or not finite, return `otherwise` or, for None, the vector itself.
    """
    norm = tf.norm(vector)
    has_unit = (norm > 0) & (norm < norm.dtype.max)
    unit = vector / tf.where(has_unit, norm, 1)
    return unit if otherwise is None else tf.where(has_unit, unit, otherwise)


@tf.function
def _converge(kernel, image_shape, strides, padding, iterations, tolerance, start):
    """Return the first right singular vector, by the restarted Lanczos method.

    A cycle makes `KRYLOV` power steps, and selects the Ritz vector of the largest value in the
    space that they span. Plain power iteration can stay for hundreds of steps near a singular
    vector that is not the first, since neighbouring frequencies have nearly equal singular values.

    Args:
        kernel: `[kh, kw, channels, filters]`, float32 or float64.
        image_shape: `(height, width, channels)`.
        strides: `(vertical, horizontal)`.
        padding: `"same"` or `"valid"`.
        iterations: The largest number of power steps, up to the length of a cycle, an int32 tensor.
        tolerance: The iteration stops where ||A'Av - s^2 v|| is at most this fraction of s^2. Then
            s differs from a singular value by at most half this fraction. A tensor of the kernel's
            dtype.
        start: The first vector, `[1, height, width, channels]`, in the kernel's dtype.

    Returns:
        The vector, of norm one, `[1, height, width, channels]`.
    """
    # The singular vectors do not depend on the kernel's scale; at this scale no square overflows.
    # A kernel that is not finite has no singular vectors, and `eigh` would raise an error.
    kernel = tf.where(tf.reduce_all(tf.math.is_finite(kernel)), kernel, 0)
    kernel /= _scale(kernel)
    operator = ConvOperator(kernel, image_shape, strides, padding)
    steps = min(KRYLOV, math.prod(image_shape))

    def cycle(k, start, moving):
        basis: list[tf.Tensor] = []
        images: list[tf.Tensor] = []
        following = start
        for _ in range(steps):
            following = _orthogonal(following, basis)
            image = operator.apply(following)
            basis.append(following)
            images.append(image)
            following = operator.adjoint(image)
        u = tf.reshape(tf.stack(images), (steps, -1))
        _, rotation = tf.linalg.eigh(tf.matmul(u, u, transpose_b=True))
        best = _unit(tf.tensordot(rotation[:, -1], tf.stack(basis), axes=1), otherwise=start)
        image = operator.apply(best)
        square = tf.reduce_sum(tf.square(image))
        residual = tf.norm(operator.adjoint(image) - square * best)
        return k + steps + 1, best, residual > tolerance * square

    _, vector, _ = tf.while_loop(
        lambda k, vector, moving: (k < iterations) & moving,
        cycle,
        (tf.constant(0), start, tf.constant(True)),
    )
    return vector


def _orthogonal(vector: tf.Tensor, basis: list) -> tf.Tensor:
    """Return the part of a vector orthogonal to an orthonormal basis, scaled to norm one."""
    vector = _unit(vector)
    if basis:
        basis_rows = tf.reshape(tf.stack(basis), (len(basis), -1))
        flat = tf.reshape(vector, (-1, 1))
        # If the vector lies in the span of the basis, the first pass leaves rounding errors only.
        # The later passes make these orthogonal to the basis too.
        for _ in range(3):
            flat -= tf.matmul(basis_rows, tf.matmul(basis_rows, flat), transpose_a=True)
            flat = _unit(flat)
        vector = tf.reshape(flat, vector.shape)
    return vector


def converged_norm(
    operator: ConvOperator,
    iterations: int = ITERATIONS,
    tolerance: float = TOLERANCE,
    estimate: tf.Tensor | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the norm of an operator and its first right singular vector.

    Args:
        operator: The operator, with a kernel in float32 or float64.
        iterations: The largest number of power steps, up to the length of a cycle.
        tolerance: The residual, relative to the norm's square, at which to stop.
        estimate: An estimate of the vector, `[1, height, width, channels]`, which saves steps; None
            to start from a fixed random vector.

    Returns:
        `(norm, vector)`: the norm is a scalar, with its gradient in the kernel; the vector has norm
        one and the shape `[1, height, width, channels]`, and no gradient.

    Example:
        >>> operator = ki.spectral.ConvOperator(tf.ones([3, 3, 1, 1]), (8, 8, 1))
        >>> norm, vector = ki.spectral.converged_norm(operator)
        >>> round(float(norm), 2), vector.shape
        (8.29, TensorShape([1, 8, 8, 1]))

    See also:
        `spectral.conv_operator_norm`, for a kernel; `spectral.power_step`, one step of it.
    """
    kernel, image_shape, strides, padding = operator
    start = start_vectors(1, image_shape, kernel.dtype)
    if estimate is not None:
        # The estimate alone may be a singular vector other than the first.
        start = tf.stop_gradient(estimate) + NOISE * start
    vector = _converge(
        tf.stop_gradient(kernel),
        # With a `TensorShape`, `tf.function` would trace a new graph at each call.
        tuple(image_shape),
        strides,
        padding,
        tf.constant(iterations),
        tf.constant(tolerance, kernel.dtype),
        start,
    )
    # Computed at the scale at which no square overflows, as in `_converge`.
    scale = _scale(kernel)
    norm, _ = power_step(operator._replace(kernel=kernel / scale), vector)
    return norm * scale, vector


def _scale(kernel):
    """Return the largest absolute value of a kernel, or 1 where it is zero or not finite."""
    largest = tf.stop_gradient(tf.reduce_max(tf.abs(kernel)))
    return tf.where((largest > 0) & (largest < largest.dtype.max), largest, 1)


def start_vectors(
    count: int, image_shape: Sequence[int], dtype: str | tf.DType = "float32"
) -> tf.Tensor:
    """Return start vectors for power iteration: fixed normal draws, scaled to norm one.

    Args:
        count: The number of vectors.
        image_shape: The shape of a vector, `(height, width, channels)`.
        dtype: The dtype of the vectors.

    Returns:
        `[count, height, width, channels]`.

    Example:
        >>> vectors = ki.spectral.start_vectors(2, (8, 8, 1))
        >>> [round(float(tf.norm(vector)), 3) for vector in vectors]
        [1.0, 1.0]

    See also:
        `spectral.power_step`.
    """
    vectors = tf.random.stateless_normal((count, *image_shape), (0, 0), dtype=dtype)
    return tf.math.l2_normalize(vectors, axis=(1, 2, 3))
