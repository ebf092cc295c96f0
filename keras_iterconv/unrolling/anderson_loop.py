"""The loop of Anderson acceleration, without its fallback."""

from typing import NamedTuple

import tensorflow as tf

from keras_iterconv.unrolling.samples import (
    any_size,
    comparable_threshold,
    sample_norms,
    samples_finite,
    select,
)
from keras_iterconv.unrolling.trajectory import Ends
from keras_iterconv.unrolling.update import BoundUpdate

# Number of differences of states, and of their updates, to which a step is fitted.
HISTORY = 5
# Added to the diagonal of the products of differences of norm one. Rounding errors of these
# products are about 1e-7 in float32.
REGULARIZATION = 1e-6


class _Active(NamedTuple):
    """The samples in the batch, all of them active: n of N.

    Attributes:
        sample_indices: The samples' indices in the whole batch, `[n]`.
        drives: The samples' drives, `[n, ...]` each.
        x: The last accepted states, `[n, ...]`.
        f: The updates at these states, `[n, ...]`.
        norm: The 2-norms of these updates, `[n]`.
        accepted: Whether the last state was accepted, bool `[n]`.
        x_differences: Differences of successive states, `[n, HISTORY, size]`.
        f_differences: Differences of the updates at these states, of the same shape.
    """

    sample_indices: tf.Tensor
    drives: tuple
    x: tf.Tensor
    f: tf.Tensor
    norm: tf.Tensor
    accepted: tf.Tensor
    x_differences: tf.Tensor
    f_differences: tf.Tensor


class _Search(NamedTuple):
    """The variables of the loop.

    Attributes:
        k: The number of evaluations.
        ends: The results of the stopped samples.
        active: The samples in the batch.
        trial: The states to evaluate next, `[n, ...]`.
        accelerated: Which of them are accelerated ones, bool `[n]`.
    """

    k: tf.Tensor
    ends: Ends
    active: _Active
    trial: tf.Tensor
    accelerated: tf.Tensor


def run_anderson(
    update: BoundUpdate, state: tf.Tensor, max_unroll: int | tf.Tensor, threshold: float | tf.Tensor
) -> Ends:
    """Run the accelerated loop without its fallback.

    A sample stops where the norm of its update falls below the threshold or is not finite, and
    after `max_unroll` evaluations.

    Args:
        update: The update to repeat.
        state: x(0), `[N, ...]`.
        max_unroll: The largest number of evaluations, an int or an int32 scalar.
        threshold: The stopping threshold, a scalar tensor.

    Returns:
        Each sample's state after its last update, the number of its evaluations, and the 2-norm of
        its last update.
    """
    dtype = tf.float64 if state.dtype == tf.float64 else tf.float32
    threshold = comparable_threshold(threshold, dtype)
    search = _start(update, state, dtype)
    (search,) = tf.while_loop(
        lambda search: tf.size(search.active.sample_indices) > 0,
        lambda search: (_step(update, search, max_unroll, threshold),),
        (search,),
        (tf.nest.map_structure(any_size, search),),
    )
    return search.ends._replace(x=tf.ensure_shape(search.ends.x, state.shape))


def _start(update: BoundUpdate, state: tf.Tensor, dtype: tf.DType) -> _Search:
    samples = tf.shape(state)[0]
    flat = tf.reshape(state, [samples, 1, tf.reduce_prod(tf.shape(state)[1:])])
    no_differences = tf.zeros_like(tf.repeat(flat, HISTORY, axis=1))
    norms = tf.zeros([samples], dtype)
    active = _Active(
        tf.range(samples),
        update.drives,
        state,
        tf.zeros_like(state),
        norms,
        tf.zeros([samples], tf.bool),
        no_differences,
        no_differences,
    )
    ends = Ends(state, tf.zeros([samples], tf.int32), norms)
    return _Search(tf.constant(0), ends, active, state, tf.zeros([samples], tf.bool))


def _step(
    update: BoundUpdate, search: _Search, max_unroll: int | tf.Tensor, threshold: tf.Tensor
) -> _Search:
    """Evaluate the update at the trial states, and choose the next ones."""
    k, ends, active, trial, accelerated = search
    trial_f, _, _ = update._replace(drives=active.drives).begin_step(trial, k)
    trial_norm = sample_norms(trial_f)
    finite = tf.math.is_finite(trial_norm)
    accepted = (trial_norm < active.norm) | ~accelerated
    stops = (trial_norm < threshold) | ~(finite | accelerated) | (k + 1 >= max_unroll)

    stopped = tf.where(stops)[:, 0]
    ends = ends.with_stopped(
        tf.gather(active.sample_indices, stopped),
        tf.gather(trial + trial_f, stopped),
        k + 1,
        tf.gather(trial_norm, stopped),
    )
    # Rejected states also enter the history. The first state has no difference yet.
    has_difference = finite & (k > 0)
    active = active._replace(
        x=select(accepted, trial, active.x),
        f=select(accepted, trial_f, active.f),
        norm=tf.where(accepted, trial_norm, active.norm),
        accepted=accepted,
        x_differences=_with_newest(active.x_differences, has_difference, trial - active.x),
        f_differences=_with_newest(active.f_differences, has_difference, trial_f - active.f),
    )
    # Compacted whenever a sample stops: a step costs several times as much as a compaction.
    going_on = tf.where(~stops)[:, 0]
    active = tf.cond(
        tf.size(stopped) > 0,
        lambda: tf.nest.map_structure(lambda z: tf.gather(z, going_on), active),
        lambda: active,
    )
    trial, accelerated = _accelerated_state(
        active.x, active.f, active.x_differences, active.f_differences
    )
    # A rejected state is followed by a plain step.
    accelerated &= active.accepted
    trial = select(accelerated, trial, active.x + active.f)
    return _Search(k + 1, ends, active, trial, accelerated)


def _accelerated_state(x, f, x_differences, f_differences):
    """Return the accelerated states, and which of them can be used, bool `[n]`.

    A state cannot be used where it is not finite, and where it is the plain one, for want of
    differences.

    Args:
        x: The states, `[n, ...]`.
        f: The updates at these states, `[n, ...]`.
        x_differences: Differences of successive states, `[n, HISTORY, size]`.
        f_differences: Differences of the updates at these states, of the same shape.
    """
    lengths = tf.norm(f_differences, axis=2, keepdims=True)
    nonzero = lengths > 0
    lengths = tf.where(nonzero, lengths, 1)
    f_differences, x_differences = f_differences / lengths, x_differences / lengths
    flat = tf.reshape(f, [tf.shape(f)[0], tf.shape(f_differences)[2], 1])
    products = tf.matmul(f_differences, f_differences, transpose_b=True)
    products += REGULARIZATION * tf.eye(HISTORY, dtype=f.dtype)
    weights = _solve(products, tf.matmul(f_differences, flat))
    step = flat - tf.matmul(x_differences + f_differences, weights, transpose_a=True)
    trial = x + tf.reshape(step, tf.shape(f))
    return trial, samples_finite(trial) & tf.reduce_any(nonzero, axis=[1, 2])


def _solve(matrices, values):
    """Return the solutions `[n, m, 1]` of positive definite systems `[n, m, m]`, by elimination.

    `tf.linalg.solve` raises an error for the whole batch where one matrix is singular. Here only
    the solution for that matrix is not finite.
    """
    rows = tf.concat([matrices, values], axis=2)
    for i in range(matrices.shape[1]):
        pivot = rows[:, i : i + 1] / rows[:, i : i + 1, i : i + 1]
        others = rows - rows[:, :, i : i + 1] * pivot
        rows = tf.concat([others[:, :i], pivot, others[:, i + 1 :]], axis=1)
    return rows[:, :, -1:]


def _with_newest(history, has_difference, difference):
    """Return the history with a difference as its first entry, and without its last entry.

    Args:
        history: Earlier differences, `[n, HISTORY, size]`.
        has_difference: Which samples have a difference, bool `[n]`; the others get zeros.
        difference: The newest difference, `[n, ...]`.
    """
    difference = select(has_difference, difference, tf.zeros_like(difference))
    newest = tf.reshape(difference, tf.shape(history[:, :1]))
    return tf.concat([newest, history[:, :-1]], axis=1)
