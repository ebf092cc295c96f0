"""Gradients from both ends of an unroll alone: sums over powers of one Jacobian.

With the Jacobian J of one update, v(j) = J'^j g is the gradient in the state j updates earlier,
were the slopes of the activation the same there, and what the weights get is the pull-back of the
sum of all v(j): one for all updates.
"""

import tensorflow as tf

from keras_iterconv.unrolling.loops import Trajectory, select
from keras_iterconv.unrolling.result import per_sample, sample_norms, samples_finite
from keras_iterconv.unrolling.update import Update

# The series of `implicit` ends where a term is this share of the first, and after so many terms in
# any case. Half precision knows no smaller share of large samples than the second.
TOLERANCE = 1e-6
HALF_TOLERANCE = 1e-3
TERMS = 20_000


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
    v, total = _series(update, state, common, g, trajectory.updates, lasts)
    _, weights, drives = update.pull_back(state, tf.constant(0), common, total)
    return v, weights, drives


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
    _, total = _series(update, state, value, g / scale, TERMS, lambda j, v: sample_norms(v) > small)
    _, weights, drives = update.pull_back(state, tf.constant(0), value, total * scale)
    return tf.zeros_like(g), weights, drives


def _series(update, state, value, g, terms, lasts):
    """Sum v(j) = J'^j g over j < terms, each sample's as long as `lasts(j, v)`, bool `[N]`, holds.

    Returns:
        `(v, sum)`: the first term left out, and the sum.
    """

    def step(j, v, total, more):
        earlier = v + update.pull_back(state, tf.constant(0), value, v)[0]
        longer = total + v
        if lasts is None:
            return j + 1, earlier, longer, more
        with_term = lasts(j, v)
        v, total = select(with_term, earlier, v), select(with_term, longer, total)
        return j + 1, v, total, tf.reduce_any(with_term)

    _, v, total, _ = tf.while_loop(
        lambda j, v, total, more: (j < terms) & more,
        step,
        (tf.constant(0), g, tf.zeros_like(g), tf.constant(True)),
    )
    return v, total


def _frozen_untied(update, state, value, depth, updates, g):
    """Walk back over updates of different weights, all at the last state."""

    def step(k, g, weights, drives):
        k -= 1
        upstream = g if depth is None else select(depth > k, g, tf.zeros_like(g))
        dx, *parts = update.pull_back(state, k, value(k), upstream)
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
