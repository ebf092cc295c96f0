"""The implicit gradient: that of the fixed point which the last state approximates."""

from typing import cast

import tensorflow as tf

from keras_iterconv.unrolling.euler_update import EulerUpdate
from keras_iterconv.unrolling.gradients.mode import GradientMode
from keras_iterconv.unrolling.gradients.series import sum_series
from keras_iterconv.unrolling.samples import per_sample, sample_norms, samples_finite, select
from keras_iterconv.unrolling.trajectory import Trajectory
from keras_iterconv.unrolling.update import BoundUpdate

# The series of `implicit` ends where the norm of a term is at most this fraction of the first
# term's. In half precision, rounding keeps the terms of large samples above smaller fractions than
# `HALF_TOLERANCE`.
TOLERANCE = 1e-6
HALF_TOLERANCE = 1e-3


def implicit(
    update: BoundUpdate, trajectory: Trajectory, g: tf.Tensor, terms: int
) -> tuple[tf.Tensor, list, list]:
    """Return the gradients of the fixed point which the last state approximates.

    Args:
        update: The `EulerUpdate` that the loop repeated, bound to its tensors; tied, so that a
            fixed point exists.
        trajectory: The end of the loop; only its last state is read.
        g: The upstream gradient, `[N, ...]`, in the state's dtype.
        terms: The largest number of terms of the series.

    Returns:
        `(state's, weights', drives')`: zeros, since the fixed point does not depend on the first
        state, and two lists.
    """
    state, euler = trajectory.state, cast(EulerUpdate, update.update)
    value = euler.value(state, tf.constant(0), update.weights, update.drives)
    # The series of a state that is not finite need not converge: the loop would then run for all
    # `terms`.
    g = select(samples_finite(state), g, tf.zeros_like(g))
    # Each sample's g is scaled to norm one, so that small gradients do not underflow in half
    # precision.
    norm = sample_norms(g)
    scale = per_sample(tf.cast(tf.where(norm > 0, norm, 1), g.dtype), g)
    tolerance = TOLERANCE if euler.dtype.size >= 4 else HALF_TOLERANCE

    def has_term(j, v):
        return sample_norms(v) > tolerance

    _, total = sum_series(update, state, value, g / scale, terms, has_term)
    _, weights, drives = euler.change_vjp(
        state, tf.constant(0), value, total * scale, update.weights, update.drives
    )
    return tf.zeros_like(g), weights, drives


def implicit_mode(terms: int = 20_000) -> GradientMode:
    """Return the mode whose series ends after at most `terms` terms."""
    return GradientMode(
        name="implicit",
        exact=False,
        keeps_tensors=False,
        needs=("linear", "tied", "two_sided", "without_settling"),
        backward=lambda update, run, trajectory, g, live: implicit(update, trajectory, g, terms),
    )


IMPLICIT = implicit_mode()
