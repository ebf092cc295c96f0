"""The gradient of the fixed point that the last state is near."""

import tensorflow as tf

from keras_iterconv.unrolling.gradients.mode import GradientMode
from keras_iterconv.unrolling.gradients.series import sum_series
from keras_iterconv.unrolling.samples import per_sample, sample_norms, samples_finite, select
from keras_iterconv.unrolling.trajectory import Trajectory
from keras_iterconv.unrolling.update import Update

# The series of `implicit` ends where a term is this share of the first, and after so many terms in
# any case. Half precision knows no smaller share of large samples than the second.
TOLERANCE = 1e-6
HALF_TOLERANCE = 1e-3
TERMS = 20_000


def implicit(update: Update, trajectory: Trajectory, g: tf.Tensor):
    """Return the gradients of the fixed point that the last state is near.

    Args:
        update: What the loop repeated; tied, so that there is a fixed point.
        trajectory: Its end.
        g: `[N, ...]`, in the state's dtype.

    Returns:
        `(state's, weights', drives')`: zeros, since a fixed point has forgotten its start, and two
        lists.
    """
    state = trajectory.state
    value = update.value(state, tf.constant(0))
    # At norm one each, so that small gradients stay within a half precision's range.
    # A state that is not finite has no series, and one sample must not hold up the others.
    g = select(samples_finite(state), g, tf.zeros_like(g))
    norm = sample_norms(g)
    scale = per_sample(tf.cast(tf.where(norm > 0, norm, 1), g.dtype), g)
    small = TOLERANCE if update.dtype.size >= 4 else HALF_TOLERANCE

    def lasts(j, v):
        return sample_norms(v) > small

    _, total = sum_series(update, state, value, g / scale, TERMS, lasts)
    _, weights, drives = update.vjp(state, tf.constant(0), value, total * scale)
    return tf.zeros_like(g), weights, drives


IMPLICIT = GradientMode(
    name="implicit",
    summary="that of the fixed point at the last state; exact there, and memory does not grow",
    exact=False,
    keeps_values=False,
    needs=("linear", "tied", "two_sided"),
    backward=lambda update, run, trajectory, g, live: implicit(update, trajectory, g),
)
