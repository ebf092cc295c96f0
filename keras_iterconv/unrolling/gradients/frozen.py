"""The gradient of a loop whose slopes are taken to be the same at all updates."""

import tensorflow as tf

from keras_iterconv.unrolling.gradients.mode import GradientMode
from keras_iterconv.unrolling.gradients.series import sum_series
from keras_iterconv.unrolling.samples import select
from keras_iterconv.unrolling.trajectory import Trajectory
from keras_iterconv.unrolling.update import Update


def frozen(update: Update, trajectory: Trajectory, g: tf.Tensor):
    """Return the gradients of a loop whose slopes are the same at all updates.

    Those of tanh are the last state's. Those of ReLU are 1 where the unroll has moved the state at
    all: the last state's say little, since the units fall silent as it settles (with them alone
    the cosine between this gradient and the exact one was about 0.2 in a NAIS-Net on digits, and
    0.92 to 0.96 with those used). As many terms as the sample made updates.

    Args:
        update: What the loop repeated.
        trajectory: Its ends.
        g: `[N, ...]`, in the state's dtype.

    Returns:
        `(state's, weights', drives')`: a tensor and two lists.
    """
    state = trajectory.state
    depth = None if trajectory.starts is None else trajectory.depth

    def value(k):
        if update.activation.one_sided:
            return tf.cast(state > trajectory.start, update.dtype)
        return update.value(state, k)

    if not update.tied:
        return _frozen_untied(update, state, value, depth, trajectory.updates, g)
    common = value(tf.constant(0))
    lasts = None if depth is None else lambda j, v: depth > j
    v, total = sum_series(update, state, common, g, trajectory.updates, lasts)
    _, weights, drives = update.vjp(state, tf.constant(0), common, total)
    return v, weights, drives


def _frozen_untied(update, state, value, depth, updates, g):
    """Walk back over updates of different weights, all at the last state."""

    def step(k, g, weights, drives):
        k -= 1
        upstream = g if depth is None else select(depth > k, g, tf.zeros_like(g))
        dx, *parts = update.vjp(state, k, value(k), upstream)
        weights, drives = (
            [total + tf.cast(z, total.dtype) for total, z in zip(totals, part, strict=True)]
            for totals, part in zip((weights, drives), parts, strict=True)
        )
        return k, g + dx, weights, drives

    weights = [tf.zeros_like(weight) for weight in update.weights]
    # Summed in the state's dtype, which may be wider.
    drives = [tf.zeros(tf.shape(drive), g.dtype) for drive in update.drives]
    _, g, weights, drives = tf.while_loop(
        lambda k, *others: k > 0, step, (updates, g, weights, drives)
    )
    drives = [tf.cast(z, own.dtype) for z, own in zip(drives, update.drives, strict=True)]
    return g, weights, drives


FROZEN = GradientMode(
    name="frozen",
    summary="one slope of each unit for all updates; the fastest, biased",
    exact=False,
    keeps_values=False,
    needs=("linear",),
    backward=lambda update, run, trajectory, g, live: frozen(update, trajectory, g),
)
