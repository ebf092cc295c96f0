"""The values of the variables of one residual function, and f computed from them."""

from typing import Any, NamedTuple

import tensorflow as tf

from keras_iterconv._support.unfused import unfused
from keras_iterconv.spectral import fold_scales

KERNEL_SIZE = 3
# The moving statistics average over about ten steps, so that they are accurate after one epoch of
# a small data set too.
BATCH_NORM_MOMENTUM = 0.9
BATCH_NORM_EPSILON = 1e-3


class BlockValues(NamedTuple):
    """The values of one block's variables; the last three are None without a cap.

    Attributes:
        kernel1, kernel2: `[3, 3, filters, filters]`.
        gamma1, beta1, mean1, variance1: `[filters]`, of the normalisation before the first kernel.
        gamma2, beta2, mean2, variance2: `[filters]`, of the normalisation before the second one.
        vector1, vector2: `[height, width, filters]`, estimates of the first right singular vectors
            of BN2 . Conv1 . BN1 and of Conv2.
        divisor: c of Eq. 3 in evaluation, a scalar: for the moving statistics after
            `converge_cap`, for the last batch after a training step, and an upper bound of c
            for initial weights.
    """

    kernel1: tf.Tensor
    kernel2: tf.Tensor
    gamma1: tf.Tensor
    beta1: tf.Tensor
    mean1: tf.Tensor
    variance1: tf.Tensor
    gamma2: tf.Tensor
    beta2: tf.Tensor
    mean2: tf.Tensor
    variance2: tf.Tensor
    vector1: Any = None
    vector2: Any = None
    divisor: Any = None


# The variables that a training step changes without a gradient; with a cap, those of `CAPPING` too.
MOVING = ("mean1", "variance1", "mean2", "variance2")
VECTORS = ("vector1", "vector2")
CAPPING = (*VECTORS, "divisor")
# The variables on which L / c depends.
CAPPED = ("kernel1", "kernel2", "gamma1", "gamma2", "variance1", "variance2", "divisor")


class FunctionWeights(NamedTuple):
    """What f is computed with, for given statistics: normalisations and cap are folded.

    Attributes:
        scale1, shift1: The first normalisation, `[filters]` each.
        kernel1: Conv1 with the scale of the second normalisation, `[3, 3, filters, filters]`.
        shift2: The shift of the second normalisation, `[filters]`.
        kernel2: Conv2 over the divisor, `[3, 3, filters, filters]`.
    """

    scale1: tf.Tensor
    shift1: tf.Tensor
    kernel1: tf.Tensor
    shift2: tf.Tensor
    kernel2: tf.Tensor


def scales(block: BlockValues) -> tuple[tf.Tensor, ...]:
    """Return the factors gamma / sqrt(variance + epsilon) of both normalisations, `[filters]` each.

    Gradients flow to gamma only.
    """
    return tuple(
        gamma * tf.stop_gradient(tf.math.rsqrt(variance + BATCH_NORM_EPSILON))
        for gamma, variance in ((block.gamma1, block.variance1), (block.gamma2, block.variance2))
    )


def folded_kernel(block: BlockValues) -> tf.Tensor:
    """Return the kernel of BN2 . Conv1 . BN1."""
    return fold_scales(block.kernel1, *scales(block))


def function_weights(block: BlockValues) -> FunctionWeights:
    """Return the weights of f, capped, for the statistics of a block."""
    scale1, scale2 = scales(block)
    return FunctionWeights(
        scale1,
        block.beta1 - block.mean1 * scale1,
        # The second normalisation is folded into the kernel before it. The first one cannot be
        # folded into the kernel after it, since a ReLU lies between them.
        block.kernel1 * scale2,
        block.beta2 - block.mean2 * scale2,
        block.kernel2 if block.divisor is None else block.kernel2 / block.divisor,
    )


def apply_function(
    state: tf.Tensor, weights: FunctionWeights, data_format: str = "NHWC"
) -> tf.Tensor:
    """Return f(state), in the state's dtype.

    Args:
        state: `[N, height, width, filters]`, or `[N, filters, height, width]` for `"NCHW"`.
        weights: The weights of f.
        data_format: The layout of the state; `"NCHW"` for exporters.
    """
    scale1, shift1, kernel1, shift2, kernel2 = (tf.cast(w, state.dtype) for w in weights)
    if data_format == "NCHW":
        scale1, shift1 = (tf.reshape(w, [-1, 1, 1]) for w in (scale1, shift1))
    y = tf.nn.relu(state * scale1 + shift1)
    y = tf.nn.conv2d(y, kernel1, 1, "SAME", data_format=data_format)
    y = tf.nn.bias_add(y, shift2, data_format=data_format)
    y = tf.nn.relu(unfused(y))
    return tf.nn.conv2d(y, kernel2, 1, "SAME", data_format=data_format)
