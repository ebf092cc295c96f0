"""The loop of a fixed depth."""

import tensorflow as tf

from keras_iterconv.unrolling.trajectory import Trajectory, kept_values
from keras_iterconv.unrolling.update import Update


def run_fixed(update: Update, state: tf.Tensor, max_unroll, keep: bool = False) -> Trajectory:
    """Make exactly `max_unroll` updates of all samples.

    Args:
        update: The update to repeat.
        state: x(0), `[N, ...]`.
        max_unroll: The number of updates, an int or an int32 scalar.
        keep: Whether to keep the values for a backward pass.

    Returns:
        A `Trajectory`.
    """

    def step(k, x, values):
        value = update.value(x, k)
        if keep:
            values = values.write(k, value)
        return k + 1, x + update.change(value, x.dtype), values

    _, end, values = tf.while_loop(
        lambda k, x, values: k < max_unroll,
        step,
        (tf.constant(0), state, kept_values(update, state, keep)),
    )
    max_unroll = tf.convert_to_tensor(max_unroll)
    depth = tf.fill(tf.shape(state)[:1], max_unroll)
    return Trajectory(state, end, depth, max_unroll, None, values if keep else None, None)
