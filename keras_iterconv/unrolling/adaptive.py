"""The loop of adaptive depth: each sample stops when its own state stops moving."""

from collections.abc import Callable

import tensorflow as tf

from keras_iterconv.unrolling.result import (
    Status,
    Unrolled,
    per_sample,
    sample_norms,
    samples_finite,
)


def unroll_adaptive(
    increment: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    state: tf.Tensor,
    max_unroll: int,
    threshold: float,
) -> Unrolled:
    """Update each sample until its own update is small, at most `max_unroll` times.

    A sample stops after the first update whose 2-norm, over the sample's whole state, is below
    `threshold`; that update is made and counted. A sample that has stopped keeps its state while
    the others go on, so its result does not depend on them. A sample whose update has no finite
    norm stops too: it would never converge.

    Args:
        increment: Maps a state `[N, ...]` and the update's number k, int32 from 0, to the change
            of the state, of the state's shape and dtype.
        state: The initial state x(0), `[N, ...]`.
        max_unroll: The largest number of updates, at least 1.
        threshold: The norm under which a sample counts as settled, in units of the state.

    Returns:
        An `Unrolled`. Gradients flow through the updates that were made; the depth is constant
        to them.

    Reference:
        Ciccone et al. 2018, section 5.3.
    """
    samples = tf.shape(state)[:1]

    def update(k, x, active, depth, status):
        change = increment(x, k)
        norm = sample_norms(change)
        # `where` and not a product: a NaN of one kind must not leak through a factor of zero.
        x = tf.where(per_sample(active, x), x + change, x)
        depth += tf.cast(active, tf.int32)
        small = norm < threshold
        endless = ~tf.math.is_finite(norm)
        status = tf.where(active & small, int(Status.CONVERGED), status)
        status = tf.where(active & endless, int(Status.NOT_FINITE), status)
        active &= ~(small | endless)
        return k + 1, x, active, depth, status

    _, state, _, depth, status = tf.while_loop(
        lambda k, x, active, depth, status: (k < max_unroll) & tf.reduce_any(active),
        update,
        (
            tf.constant(0),
            state,
            tf.fill(samples, True),
            tf.fill(samples, 0),
            tf.fill(samples, int(Status.MAX_UNROLL)),
        ),
        maximum_iterations=max_unroll,
    )
    status = tf.where(samples_finite(state), status, int(Status.NOT_FINITE))
    return Unrolled(state, depth, status)
