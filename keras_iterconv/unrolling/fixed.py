"""The loop of fixed depth: every sample makes the same number of updates."""

from collections.abc import Callable

import tensorflow as tf

from keras_iterconv.unrolling.result import Status, Unrolled, samples_finite


def unroll_fixed(
    increment: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    state: tf.Tensor,
    max_unroll: int,
) -> Unrolled:
    """Make exactly `max_unroll` updates x(k+1) = x(k) + increment(x(k), k).

    Args:
        increment: Maps a state `[N, ...]` and the update's number k, int32 from 0, to the change
            of the state, of the state's shape and dtype.
        state: The initial state x(0), `[N, ...]`.
        max_unroll: The number of updates, at least 1.

    Returns:
        An `Unrolled` with a depth of `max_unroll` for each sample.

    Reference:
        Ciccone et al. 2018, Eq. 2 (the step h is part of `increment`).
    """
    if max_unroll == 1:
        # A loop of one step would cost its bookkeeping and hide the update from the graph
        # optimizer.
        state = state + increment(state, tf.constant(0))
    else:
        _, state = tf.while_loop(
            lambda k, x: k < max_unroll,
            lambda k, x: (k + 1, x + increment(x, k)),
            (tf.constant(0), state),
            maximum_iterations=max_unroll,
        )
    finite = samples_finite(state)
    depth = tf.fill(tf.shape(finite), max_unroll)
    status = tf.where(finite, int(Status.MAX_UNROLL), int(Status.NOT_FINITE))
    return Unrolled(state, depth, status)
