"""Projections of an update's weights onto sets in which the update is stable.

Each projection is a function, and a Keras weight constraint, which every Keras optimizer applies
after each step. The functions also take stacked weights, with leading axes.

Reference:
    Ciccone et al. 2018, Algorithms 1 and 2, Theorems 2 and 3.
"""

import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_iterconv._support.checks import check_margins, check_shift
from keras_iterconv._support.graph_function import graph_function, shared_functions


def center_mask(kernel_size: tuple[int, int], filters: int) -> np.ndarray:
    """Return a mask of the centre taps from each channel to itself.

    Args:
        kernel_size: The sides of the kernel, `(kh, kw)`, both odd.
        filters: The number of channels of the state.

    Returns:
        A bool array `[kh, kw, filters, filters]`.

    Example:
        >>> mask = ki.projections.center_mask((3, 3), 2)
        >>> mask[1, 1].tolist(), int(mask.sum())
        ([[True, False], [False, True]], 2)

    See also:
        `projections.write_center`; `projections.project_conv`.
    """
    mask = np.zeros((*kernel_size, filters, filters), bool)
    mask[kernel_size[0] // 2, kernel_size[1] // 2] = np.eye(filters, dtype=bool)
    return mask


def write_center(
    kernel: tf.Tensor | keras.Variable, delta: tf.Tensor | keras.Variable
) -> tf.Tensor:
    """Return a kernel whose centre tap from each channel to itself is -1 - delta.

    Args:
        kernel: C, `[..., kh, kw, filters, filters]`.
        delta: One number for each output channel, `[..., filters]`.

    Returns:
        The kernel, with gradients to `delta` at the centres and to `kernel` elsewhere.

    Example:
        >>> kernel = ki.projections.write_center(tf.ones([3, 3, 2, 2]), tf.constant([0.0, 0.5]))
        >>> kernel[1, 1].numpy().tolist()
        [[-1.0, 1.0], [1.0, -1.5]]

    See also:
        `projections.project_conv`; `NAISConv2D.state_kernel`.
    """
    kernel = tf.convert_to_tensor(kernel)
    mask = center_mask(tuple(kernel.shape[-4:-2]), kernel.shape[-1])
    center = -1.0 - tf.convert_to_tensor(delta)
    if kernel.shape.rank > 4:
        return tf.where(mask, center[..., None, None, None, :], kernel)
    # A tied block runs this at each call, and `tf.where` takes several times as long.
    flat = tf.tensor_scatter_nd_update(
        tf.reshape(kernel, [-1]), np.flatnonzero(mask)[:, np.newaxis], center
    )
    return tf.reshape(flat, kernel.shape)


def project_dense(
    R: tf.Tensor | keras.Variable, shift: float, bound: float | None = None
) -> tf.Tensor:
    """Return R scaled so that the Frobenius norm of R'R is at most `bound` (Algorithm 1).

    Every eigenvalue of A = -R'R - shift I then lies in [-bound - shift, -shift], and an update
    x + h sigma(A x + ...) with 0 < h <= 1 is stable.

    Args:
        R: `[..., rank, units]`, any float dtype.
        shift: epsilon of Eq. 13, in (0, 0.5).
        bound: delta of Algorithm 1; `1 - 2 * shift` where none is given.

    Returns:
        R where the norm is at most `bound`, and sqrt(bound / ||R'R||_F) R elsewhere.

    Raises:
        ValueError: `shift` or `bound` is out of its range.

    Example:
        >>> R = ki.projections.project_dense(tf.eye(2) * 3, shift=0.01)
        >>> round(float(tf.norm(tf.transpose(R) @ R)), 2)  # 1 - 2 * shift
        0.98

    See also:
        `projections.DenseProjection`, the same as a constraint; `NAISDense`;
        `projections.project_conv`.
    """
    shift, bound = check_shift(shift, bound)
    R = tf.convert_to_tensor(R)
    # Not `tf.cast`, which converts a Python number to float32 first.
    bound = tf.constant(1 - 2 * shift if bound is None else bound, R.dtype)
    # The product of very large weights, as an optimizer step may cause, would overflow.
    scale = tf.maximum(tf.reduce_max(tf.abs(R), axis=(-2, -1), keepdims=True), 1)
    scaled = R / scale
    # ||R'R||_F = ||RR'||_F, and RR' is the smaller of the two.
    gram = tf.matmul(scaled, scaled, transpose_b=True)
    norm = tf.sqrt(tf.reduce_sum(tf.square(gram), axis=(-2, -1), keepdims=True))
    outside = norm > bound / tf.square(scale)
    return tf.where(outside, tf.sqrt(bound / tf.where(outside, norm, 1)) * scaled, R)


def project_delta(delta: tf.Tensor | keras.Variable, center_margin: float) -> tf.Tensor:
    """Return delta, `[..., filters]`, clipped to [-1 + eta, 1 - eta] (first step of Algorithm 2).

    Args:
        delta: The weight delta, any float dtype.
        center_margin: eta of Algorithm 2.

    Example:
        >>> delta = ki.projections.project_delta(tf.constant([-2.0, 0.5]), center_margin=0.25)
        >>> delta.numpy().tolist()
        [-0.75, 0.5]

    See also:
        `projections.DeltaProjection`, the same as a constraint; `projections.project_conv`.
    """
    return tf.clip_by_value(tf.convert_to_tensor(delta), center_margin - 1, 1 - center_margin)


def project_conv(
    kernel: tf.Tensor | keras.Variable,
    delta: tf.Tensor | keras.Variable,
    margin: float,
    center_margin: float,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return a kernel that bounds the infinity norm of the update's Jacobian (Algorithm 2).

    The bound is 1 - margin where all slopes of the activation and the step size are one. For
    smaller slopes it is closer to one, and for an inactive ReLU it is one.

    The centre tap from each channel to itself becomes -1 - delta. All other taps into an output
    channel, including the centre taps from other channels, are scaled by one factor where the sum
    of their absolute values exceeds 1 - margin - |delta|.

    Args:
        kernel: C, `[..., kh, kw, filters, filters]`, any float dtype.
        delta: `[..., filters]`; zero fixes the centre at -1.
        margin: epsilon of Algorithm 2, in (0, center_margin).
        center_margin: eta of Algorithm 2, in (margin, 1).

    Returns:
        The projected `(kernel, delta)`; the kernel's centre taps are -1 - delta.

    Raises:
        ValueError: A margin is out of its range, or the kernel has an even side or different
            numbers of input and output channels.

    Example:
        >>> kernel, delta = ki.projections.project_conv(
        ...     tf.ones([3, 3, 1, 1]), tf.constant([0.5]), margin=0.25, center_margin=0.5
        ... )
        >>> float(kernel[1, 1, 0, 0])  # -1 - delta
        -1.5
        >>> float(tf.reduce_sum(kernel)) + 1.5  # the other eight taps: 1 - margin - |delta|
        0.25

    See also:
        `projections.ConvProjection`, the same as a constraint; `NAISConv2D`;
        `projections.project_dense`.
    """
    margin, center_margin = check_margins(margin, center_margin)
    kernel = tf.convert_to_tensor(kernel)
    height, width, channels, filters = kernel.shape[-4:]
    if height % 2 == 0 or width % 2 == 0 or channels != filters:
        raise ValueError(
            "`kernel` must have odd sides, so that it has a centre, and as many input as output "
            f"channels. Received: kernel of shape {tuple(kernel.shape)}"
        )
    # If a block is built inside the `call` of another layer, Keras returns delta in the compute
    # dtype.
    delta = project_delta(tf.cast(delta, kernel.dtype), center_margin)
    mask = center_mask(tuple(kernel.shape[-4:-2]), kernel.shape[-1])
    others = tf.where(mask, tf.zeros([], kernel.dtype), kernel)
    # Divided by the largest tap, since the sum of very large taps would overflow.
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
    """The weight constraint of R, Algorithm 1; see `project_dense`.

    Args:
        shift: epsilon of Eq. 13, in (0, 0.5).
        bound: delta of Algorithm 1; `1 - 2 * shift` where none is given.

    Raises:
        ValueError: `shift` or `bound` is out of its range; raised by its call.

    Example:
        >>> project = ki.projections.DenseProjection(shift=0.01)
        >>> layer = keras.layers.Dense(2, use_bias=False, kernel_constraint=project)
        >>> project(tf.eye(2) * 0.5).numpy().tolist()  # inside the set already
        [[0.5, 0.0], [0.0, 0.5]]

    See also:
        `projections.project_dense`; `NAISDense`, whose weight has it.
    """

    def __init__(self, shift: float, bound: float | None = None):
        self.shift = shift
        self.bound = bound

    def __call__(self, value):
        return project_dense(value, self.shift, self.bound)

    def get_config(self) -> dict[str, Any]:
        return {"shift": self.shift, "bound": self.bound}


@keras.saving.register_keras_serializable("keras_iterconv")
class DeltaProjection(keras.constraints.Constraint):
    """The weight constraint of delta, the clipping of Algorithm 2; see `project_delta`.

    Args:
        center_margin: eta of Algorithm 2, in (0, 1).

    Example:
        >>> project = ki.projections.DeltaProjection(center_margin=0.25)
        >>> project(tf.constant([-2.0, 0.5])).numpy().tolist()
        [-0.75, 0.5]

    See also:
        `projections.project_delta`; `NAISConv2D`, whose weight has it.
    """

    def __init__(self, center_margin: float):
        self.center_margin = center_margin

    def __call__(self, value):
        return project_delta(value, self.center_margin)

    def get_config(self) -> dict[str, Any]:
        return {"center_margin": self.center_margin}


class ConvProjection(keras.constraints.Constraint):
    """The weight constraint of C, Algorithm 2; see `project_conv`.

    The constraint reads the variable delta, so that it cannot be serialized without it. The layer
    that owns both creates it again when the layer is loaded.

    Args:
        margin: epsilon of Algorithm 2.
        center_margin: eta of Algorithm 2.
        delta: The trained variable delta of the same layer, or None for a fixed centre.

    Raises:
        ValueError: A margin is out of its range, or the kernel does not fit; raised by its call.

    Example:
        >>> project = ki.projections.ConvProjection(margin=0.25, center_margin=0.5)
        >>> kernel = project(tf.ones([3, 3, 1, 1]))
        >>> float(kernel[1, 1, 0, 0]), float(kernel[0, 0, 0, 0])  # -1 and 0.75 / 8
        (-1.0, 0.09375)

    See also:
        `projections.project_conv`; `NAISConv2D`, whose weight has it.
    """

    def __init__(self, margin: float, center_margin: float, delta: Any = None):
        self.margin = margin
        self.center_margin = center_margin
        self.delta = delta

    def __call__(self, value):
        value = tf.convert_to_tensor(value)
        if self.delta is None:
            delta = tf.zeros([*value.shape[:-4], value.shape[-1]], value.dtype)
        else:
            delta = tf.convert_to_tensor(self.delta)
        if tf.executing_eagerly():
            return _projected_kernel(value, delta, self.margin, self.center_margin)
        with shared_functions():
            return _graph_projection(self.margin, self.center_margin)(value, delta)


def _projected_kernel(kernel, delta, margin, center_margin):
    return project_conv(kernel, delta, margin, center_margin)[0]


# The graph of a training step projects the kernels of all blocks.
@functools.cache
def _graph_projection(margin: float, center_margin: float) -> Callable:
    """Return the projection of a kernel as a function that all blocks share in a graph."""
    return graph_function(
        functools.partial(_projected_kernel, margin=margin, center_margin=center_margin)
    )
