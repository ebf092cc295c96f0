"""Projections that keep an update's weights where its convergence is certain.

As functions, and as Keras weight constraints, which every Keras optimizer applies after each
step. Every function also takes a stack of weights, with leading axes in front.

Reference:
    Ciccone et al. 2018, Algorithms 1 and 2, Theorems 2 and 3.
"""

import keras
import numpy as np
import tensorflow as tf

from keras_iterconv._support.checks import check_margins, check_shift


def center_mask(kernel_size: tuple[int, int], filters: int) -> np.ndarray:
    """Mark the taps from each channel's own centre to itself, bool `[kh, kw, filters, filters]`."""
    mask = np.zeros((*kernel_size, filters, filters), bool)
    mask[kernel_size[0] // 2, kernel_size[1] // 2] = np.eye(filters, dtype=bool)
    return mask


def write_center(kernel, delta):
    """Replace each channel's own centre tap by -1 - delta.

    Args:
        kernel: C, `[..., kh, kw, filters, filters]`.
        delta: `[..., filters]`, one number an output channel.

    Returns:
        The kernel, with gradients to `delta` at the centres and to `kernel` elsewhere.
    """
    kernel = tf.convert_to_tensor(kernel)
    mask = center_mask(tuple(kernel.shape[-4:-2]), kernel.shape[-1])
    center = -1.0 - tf.convert_to_tensor(delta)
    if kernel.shape.rank > 4:
        return tf.where(mask, center[..., None, None, None, :], kernel)
    # Scattered, where selecting takes several times as long: a tied block does it at each call.
    flat = tf.tensor_scatter_nd_update(
        tf.reshape(kernel, [-1]), np.flatnonzero(mask)[:, np.newaxis], center
    )
    return tf.reshape(flat, kernel.shape)


def project_dense(R, shift: float, bound: float | None = None):
    """Scale R so that the Frobenius norm of R'R is at most `bound` (Algorithm 1).

    With A = -R'R - shift I, every eigenvalue of A then lies in [-bound - shift, -shift], and an
    update x + h act(A x + ...) with 0 < h <= 1 is stable.

    Args:
        R: `[..., rank, units]`, any float dtype.
        shift: epsilon of Eq. 13, in (0, 0.5).
        bound: delta of Algorithm 1; `1 - 2 * shift` where none is given.

    Returns:
        R where the norm was small enough, and sqrt(bound / ||R'R||_F) R elsewhere.

    Raises:
        ValueError: `shift` or `bound` is out of its range.
    """
    shift, bound = check_shift(shift, bound)
    R = tf.convert_to_tensor(R)
    # Not `cast`, which takes a Python number through float32.
    bound = tf.constant(1 - 2 * shift if bound is None else bound, R.dtype)
    # Weights thrown far out by an optimizer step would overflow in the product.
    scale = tf.maximum(tf.reduce_max(tf.abs(R), axis=(-2, -1), keepdims=True), 1)
    scaled = R / scale
    # ||R'R||_F = ||RR'||_F, and RR' is the smaller of the two.
    gram = tf.matmul(scaled, scaled, transpose_b=True)
    norm = tf.sqrt(tf.reduce_sum(tf.square(gram), axis=(-2, -1), keepdims=True))
    outside = norm > bound / tf.square(scale)
    return tf.where(outside, tf.sqrt(bound / tf.where(outside, norm, 1)) * scaled, R)


def project_delta(delta, center_margin: float):
    """Clip delta, `[..., filters]`, to [-1 + eta, 1 - eta] (Algorithm 2's first step)."""
    return tf.clip_by_value(tf.convert_to_tensor(delta), center_margin - 1, 1 - center_margin)


def project_conv(kernel, delta, margin: float, center_margin: float):
    """Bound the infinity norm of a convolutional update's Jacobian (Algorithm 2).

    For slopes of one and a step of one the bound is 1 - margin; for smaller slopes it lies nearer
    to one, and an inactive ReLU leaves one itself.

    The centre tap from each channel to itself becomes -1 - delta. All other taps into an output
    channel, those between channels at the centre included, are scaled together where the sum of
    their absolute values passes 1 - margin - |delta|.

    Args:
        kernel: C, `[..., kh, kw, filters, filters]`, any float dtype.
        delta: `[..., filters]`; zero fixes the centre at -1.
        margin: epsilon of Algorithm 2, in (0, center_margin).
        center_margin: eta of Algorithm 2, in (margin, 1).

    Returns:
        The projected `(kernel, delta)`, the centre written into the kernel.

    Raises:
        ValueError: A margin is out of its range or order, or the kernel has no centre.
    """
    margin, center_margin = check_margins(margin, center_margin)
    kernel = tf.convert_to_tensor(kernel)
    height, width, channels, filters = kernel.shape[-4:]
    if height % 2 == 0 or width % 2 == 0 or channels != filters:
        raise ValueError(
            "`kernel` must have odd sides, so that it has a centre, and as many input as output "
            f"channels. Received: kernel of shape {tuple(kernel.shape)}"
        )
    # Where a block is built inside another layer's `call`, Keras hands out delta in the compute
    # dtype.
    delta = project_delta(tf.cast(delta, kernel.dtype), center_margin)
    mask = center_mask(tuple(kernel.shape[-4:-2]), kernel.shape[-1])
    others = tf.where(mask, tf.zeros([], kernel.dtype), kernel)
    # The largest tap is divided out first: the sum of taps thrown far out would overflow.
    scale = tf.reduce_max(tf.abs(others), axis=(-4, -3, -2), keepdims=True)
    scale = tf.maximum(scale, tf.ones([], kernel.dtype))
    others /= scale
    total = tf.reduce_sum(tf.abs(others), axis=(-4, -3, -2), keepdims=True)
    budget = (1 - margin - tf.abs(delta))[..., None, None, None, :]
    outside = total * scale > budget
    factor = tf.where(outside, budget / tf.where(outside, total, 1), scale)
    return write_center(others * factor, delta), delta


@keras.saving.register_keras_serializable("keras_iterconv")
class DenseProjection(keras.constraints.Constraint):
    """Algorithm 1 as a weight constraint of R; see `project_dense`."""

    def __init__(self, shift: float, bound: float | None = None):
        self.shift = shift
        self.bound = bound

    def __call__(self, value):
        return project_dense(value, self.shift, self.bound)

    def get_config(self):
        return {"shift": self.shift, "bound": self.bound}


@keras.saving.register_keras_serializable("keras_iterconv")
class DeltaProjection(keras.constraints.Constraint):
    """Algorithm 2's clip as a weight constraint of delta; see `project_delta`."""

    def __init__(self, center_margin: float):
        self.center_margin = center_margin

    def __call__(self, value):
        return project_delta(value, self.center_margin)

    def get_config(self):
        return {"center_margin": self.center_margin}


class ConvProjection(keras.constraints.Constraint):
    """Algorithm 2 as a weight constraint of C; see `project_conv`.

    Args:
        margin: epsilon of Algorithm 2.
        center_margin: eta of Algorithm 2.
        delta: The variable that is trained beside the kernel, or None for a fixed centre. The
            constraint reads it, so it cannot be serialized on its own: the layer that owns both
            builds it anew.
    """

    def __init__(self, margin: float, center_margin: float, delta=None):
        self.margin = margin
        self.center_margin = center_margin
        self.delta = delta

    def __call__(self, value):
        value = tf.convert_to_tensor(value)
        if self.delta is None:
            delta = tf.zeros([*value.shape[:-4], value.shape[-1]], value.dtype)
        else:
            delta = tf.convert_to_tensor(self.delta)
        kernel, _ = project_conv(value, delta, self.margin, self.center_margin)
        return kernel
