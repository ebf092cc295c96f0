"""Operator norms of convolutions, the folding of batch normalisation, and the Lipschitz cap.

The norm is that of the convolution as a linear operator on padded images. The norm of the kernel,
reshaped to a matrix, is not a bound of it.

Reference:
    Lippl et al. 2024, Eq. 3 and "Upper bound on the Lipschitz constant".
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_iterconv._support.checks import check_between, check_choice, check_positive_int

PADDINGS = ("same", "valid")
ITERATIONS = 5_000
TOLERANCE = 1e-4
# Number of power steps in one cycle of `_converge`.
KRYLOV = 16
# Norm of the random vector that `converged_norm` adds to an estimate of norm one.
NOISE = 0.1


class ConvOperator(NamedTuple):
    """A convolution without bias as a linear operator from images to images.

    Attributes:
        kernel: `[kh, kw, channels, filters]`.
        image_shape: `(height, width, channels)` of the images that it is applied to.
        strides: `(vertical, horizontal)`.
        padding: `"same"` (with zeros) or `"valid"`.
    """

    kernel: tf.Tensor
    image_shape: tuple[int, int, int]
    strides: tuple[int, int] = (1, 1)
    padding: str = "same"

    def apply(self, images: tf.Tensor) -> tf.Tensor:
        """Map `[N, height, width, channels]` to `[N, out height, out width, filters]`."""
        return tf.nn.conv2d(images, self.kernel, self.strides, self.padding.upper())

    def adjoint(self, images: tf.Tensor) -> tf.Tensor:
        """Map `[N, out height, out width, filters]` to `[N, height, width, channels]`."""
        return tf.nn.conv2d_transpose(
            images,
            self.kernel,
            (images.shape[0], *self.image_shape),
            self.strides,
            self.padding.upper(),
        )


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
    """
    return kernel * input_scale[:, None] * output_scale


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
        >>> float(conv_operator_norm(tf.ones([1, 1, 1, 1]) * 3, (8, 8)))
        3.0

    Reference:
        Lippl et al. 2024, "Upper bound on the Lipschitz constant".
    """
    kernel = _float_kernel(kernel)
    image_shape = _check_image(image_shape, kernel)
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
    """
    vectors = tf.random.stateless_normal((count, *image_shape), (0, 0), dtype=dtype)
    return tf.math.l2_normalize(vectors, axis=(1, 2, 3))


def reshaped_norm_bound(kernel: np.ndarray | tf.Tensor | keras.Variable) -> tf.Tensor:
    """Return the spectral norm of the reshaped kernel times sqrt(kh * kw).

    It is an upper bound of `conv_operator_norm` at stride 1, for images of any size, zero-padded or
    circular, and serves as a cross-check. Without the factor it is not a bound.

    Args:
        kernel: `[kh, kw, channels, filters]`.

    Returns:
        A scalar of at least the operator's norm.
    """
    kernel = _float_kernel(kernel)
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

    Reference:
        Sedghi, Gupta, Long 2019, "The singular values of convolutional layers", Theorem 6.
    """
    kernel = _float_kernel(kernel)
    height, width, _ = _check_image(image_shape, kernel)
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


def cap_divisor(bound: float | tf.Tensor, cap: Any) -> tf.Tensor:
    """Return c = max(L / mu, 1): the Lipschitz constant of f / c is at most mu.

    Lippl et al. print mu / L. Their text and the Lipschitz bound require L / mu.

    Args:
        bound: L, an upper bound of the Lipschitz constant of f.
        cap: mu, the Lipschitz cap.

    Reference:
        Lippl et al. 2024, Eq. 3.
    """
    return tf.maximum(bound / cap, 1.0)


def _float_kernel(kernel: Any) -> tf.Tensor:
    kernel = tf.convert_to_tensor(kernel)
    if kernel.dtype != tf.float64:
        kernel = tf.cast(kernel, tf.float32)
    if kernel.shape.rank != 4:
        raise ValueError(
            "`kernel` must have the shape [kh, kw, channels, filters]. "
            f"Received: kernel of shape {tuple(kernel.shape)}"
        )
    return kernel


def _check_image(image_shape: Sequence[int], kernel: Any) -> tuple[int, int, int]:
    channels = kernel.shape[2]
    sizes = tuple(image_shape) if isinstance(image_shape, Sequence) else (image_shape,)
    if len(sizes) not in (2, 3) or (len(sizes) == 3 and sizes[2] != channels):
        raise ValueError(
            f"`image_shape` must be (height, width) or (height, width, {channels}), with the "
            f"kernel's channels. Received: image_shape={image_shape!r}"
        )
    height, width = (check_positive_int("image_shape", size) for size in sizes[:2])
    return height, width, channels
