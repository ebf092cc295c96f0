"""The implicit gradient of any update that contracts."""

import functools

import tensorflow as tf

from keras_iterconv.unrolling.gradients.implicit import TOLERANCE
from keras_iterconv.unrolling.gradients.mode import GradientMode
from keras_iterconv.unrolling.samples import per_sample, sample_norms, samples_finite, select
from keras_iterconv.unrolling.trajectory import Trajectory
from keras_iterconv.unrolling.update import BoundUpdate, State

# The terms of a contraction shrink in some norm; in the 2-norm they can grow at first.
LARGEST_TERM = 100.0


# Cached, so that equal modes share a graph.
@functools.cache
def fixed_point_mode(block: str, terms: int = 20_000) -> GradientMode:
    """Return the mode whose gradient is that of the fixed point which the last state approximates.

    With J the Jacobian of the update in the state, the gradient in the fixed point x* of g . x* is
    the sum of J'^j g over all j, which converges where the update contracts. A sample's sum ends
    where a term is small beside the first.

    Args:
        block: The name of the block, for the message where the terms grow.
        terms: The largest number of terms.
    """
    return GradientMode(
        name="implicit",
        exact=False,
        keeps_tensors=False,
        needs=("tied", "without_settling"),
        backward=lambda update, run, trajectory, g, live: _fixed_point(
            update, trajectory, g, block, terms
        ),
    )


def _fixed_point(
    update: BoundUpdate, trajectory: Trajectory, g: State, block: str, terms: int
) -> tuple[State, list, list]:
    state, k = trajectory.state, tf.constant(0)
    # The series of a state that is not finite need not converge.
    g = _selected(samples_finite(state), g)
    # Each sample's g is scaled to norm one, so that one tolerance fits all.
    norm = sample_norms(g)
    scale = tf.where(norm > 0, norm, tf.ones_like(norm))
    first = _scaled(g, 1 / scale)

    def vjp(v):
        return update.update.step_vjp(state, k, v, update.weights, update.drives)

    def step(j, v, total, size):
        earlier, _, _ = vjp(v)
        # The terms of a sample whose sum has ended are zero.
        earlier = _selected(sample_norms(earlier) > TOLERANCE, earlier)
        total = tf.nest.map_structure(tf.add, total, earlier)
        return j + 1, earlier, total, tf.reduce_max(sample_norms(earlier))

    # Not for an empty batch, whose largest norm is that of no sample.
    size = tf.reduce_max(tf.concat([sample_norms(first), [0]], axis=0))
    _, _, total, size = tf.while_loop(
        lambda j, v, total, size: (j < terms) & (size > 0) & (size <= LARGEST_TERM),
        step,
        (k, first, first, size),
    )
    shrinks = tf.debugging.Assert(
        # All terms have become zero; NaN fails too.
        size <= 0,
        [
            f"The terms of the implicit gradient of {block!r} grow or do not end: its update does "
            "not contract, "
            'as `gradient="implicit"` takes for granted. Use "unroll", "recompute" or "truncated".'
        ],
    )
    with tf.control_dependencies([] if shrinks is None else [shrinks]):
        total = tf.nest.map_structure(tf.identity, _scaled(total, scale))
    _, weights, drives = vjp(total)
    return tf.nest.map_structure(tf.zeros_like, g), weights, drives


def _scaled(state: State, factors: tf.Tensor) -> State:
    """Return a structure with each sample multiplied by a factor, `[N]`."""
    return tf.nest.map_structure(lambda z: z * tf.cast(per_sample(factors, z), z.dtype), state)


def _selected(condition: tf.Tensor, state: State) -> State:
    """Return a structure that is zero for the samples where the condition, bool `[N]`, fails."""
    return tf.nest.map_structure(lambda z: select(condition, z, tf.zeros_like(z)), state)
