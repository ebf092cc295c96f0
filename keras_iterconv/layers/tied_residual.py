"""The update of a tied residual stage: one residual function f for all updates of a call.

In evaluation f normalises by the moving statistics. In training it normalises by the statistics of
the batch at the first update, for all updates of the call: f is then one function with one cap, so
that x + f(z) contracts in training too, samples stop apart, and a fixed point exists.

f is computed in the dtype of the states, float32 in mixed precision: rounded to half precision it
is no contraction, and the states of some samples would end in a cycle.
"""

import functools
from collections.abc import Callable

import tensorflow as tf

from keras_iterconv.layers.block_values import (
    BATCH_NORM_EPSILON,
    MOVING,
    BlockValues,
    FunctionWeights,
    apply_function,
)
from keras_iterconv.layers.normalization import batch_moments
from keras_iterconv.layers.ordered_gradients import copies_with_ordered_gradient
from keras_iterconv.unrolling import BoundUpdate, EulerUpdate
from keras_iterconv.unrolling.euler_update import IDENTITY


def tied_update(
    inputs: tf.Tensor,
    weights: FunctionWeights,
    skip_from: str,
    data_format: str = "NHWC",
) -> BoundUpdate:
    """Return the update z + f(z) or x + f(z) with its tensors.

    Args:
        inputs: x, in the dtype of the states, in which f is computed too.
        weights: The weights of f.
        skip_from: The stage's `skip_from`.
        data_format: The layout of x and the states.
    """
    update = EulerUpdate(_transfer(skip_from, data_format), IDENTITY, dtype=inputs.dtype)
    return update.bind(tuple(weights), (inputs,) if skip_from == "stage_input" else ())


# Cached, so that all stages have the same functions: `call_traced_once` then traces one graph.
@functools.cache
def _transfer(skip_from: str, data_format: str) -> Callable:
    """Return the change of the state as a function for an `EulerUpdate`."""

    def transfer(state, k, weights, drives):
        value = apply_function(state, FunctionWeights(*weights), data_format)
        if skip_from == "previous":
            return value
        (inputs,) = drives
        # Not `+` and `-`: for an unknown batch size their gradients include reductions for
        # broadcasting.
        return tf.add_n([inputs, value, tf.negative(state)])

    return transfer


def batch_weights(
    inputs: tf.Tensor,
    block: BlockValues,
    after_step: Callable[[BlockValues], BlockValues],
    synchronized: bool = False,
) -> tuple[FunctionWeights, BlockValues]:
    """Return the weights of f for the statistics of the batch at the first update.

    Gradients flow through the statistics, as through those of batch normalisation, but not from
    the divisor to the variances on which it depends: in evaluation the divisor is that of the
    moving variances, which no gradient reaches. So it is in the training of an untied block.

    Args:
        inputs: x, `[N, height, width, filters]`, in the dtype of the states.
        block: The values of the variables.
        after_step: A function from the block with the batch's statistics to the block after the
            training step, whose divisor caps f.
        synchronized: Whether the batch is that of all replicas together.

    Returns:
        The weights, and the block after the step.
    """
    seen, first = copies_with_ordered_gradient(inputs, 2)
    mean1, variance1 = _moments(seen, (block.mean1, block.variance1), synchronized)
    scale1 = block.gamma1 * tf.math.rsqrt(variance1 + BATCH_NORM_EPSILON)
    shift1 = block.beta1 - mean1 * scale1
    y = tf.nn.relu(first * tf.cast(scale1, first.dtype) + tf.cast(shift1, first.dtype))
    y = tf.nn.conv2d(y, tf.cast(block.kernel1, y.dtype), 1, "SAME")
    mean2, variance2 = _moments(y, (block.mean2, block.variance2), synchronized)
    scale2 = block.gamma2 * tf.math.rsqrt(variance2 + BATCH_NORM_EPSILON)
    statistics = zip(MOVING, (mean1, variance1, mean2, variance2), strict=True)
    batch = {name: tf.stop_gradient(value) for name, value in statistics}
    after = after_step(block._replace(**batch))
    weights = FunctionWeights(
        scale1,
        shift1,
        block.kernel1 * scale2,
        block.beta2 - mean2 * scale2,
        block.kernel2 if after.divisor is None else block.kernel2 / after.divisor,
    )
    return weights, after


def _moments(x: tf.Tensor, moving: tuple, synchronized: bool) -> list[tf.Tensor]:
    """Return mean and biased variance of the channels; the moving ones for an empty batch."""
    # Sums of half-precision numbers would be rounded or overflow.
    return batch_moments(tf.cast(x, moving[0].dtype), moving, synchronized)
