"""The loop of a fixed depth."""

import tensorflow as tf

from keras_iterconv.unrolling.samples import batch_size, updates_of
from keras_iterconv.unrolling.trajectory import Trajectory, empty_arrays, write
from keras_iterconv.unrolling.update import BoundUpdate, State


def run_fixed(
    update: BoundUpdate, state: State, max_unroll: int | tf.Tensor, keep: bool = False
) -> Trajectory:
    """Make exactly `max_unroll` updates of all samples.

    Args:
        update: The update to repeat, its drives computed.
        state: x(0), a tensor `[N, ...]` or a structure of them.
        max_unroll: The number of updates, an int or an int32 scalar.
        keep: Whether to keep what a backward pass needs of each update.

    Returns:
        A `Trajectory`.
    """
    max_unroll = updates_of(state, max_unroll)

    def step(k, x, kept):
        _, tensors, complete = update.begin_step(x, k)
        if keep:
            kept = write(kept, k, tensors)
        return k + 1, complete(), kept

    _, end, kept = tf.while_loop(
        lambda k, x, kept: k < max_unroll,
        step,
        (tf.constant(0), state, empty_arrays(update, state, keep)),
    )
    max_unroll = tf.convert_to_tensor(max_unroll)
    depth = tf.fill([batch_size(state)], max_unroll)
    return Trajectory(state, end, depth, max_unroll, None, kept if keep else None, None)
