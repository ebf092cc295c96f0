"""The loop for updates that need the whole batch, such as those with batch statistics."""

from typing import Any, NamedTuple

import tensorflow as tf

from keras_iterconv.unrolling.samples import (
    batch_size,
    comparable_threshold,
    norm_dtype,
    select,
)
from keras_iterconv.unrolling.stopping import UPDATE_NORM, StoppingRule
from keras_iterconv.unrolling.trajectory import Trajectory, empty_arrays, write
from keras_iterconv.unrolling.update import BoundUpdate, State, masked


class _Batch(NamedTuple):
    """The variables of the loop.

    Attributes:
        k: The number of updates since the loop began.
        x: The states, a structure of tensors `[N, ...]`.
        active: Which samples have not stopped, bool `[N]`.
        depth: The numbers of updates of the samples, int32 `[N]`.
        values: What the stopping rule measured at their last updates, `[N]`.
        memory: What the stopping rule remembers, a structure of tensors `[N, ...]`.
        carried: As in `BoundUpdate`.
        kept: As in `Trajectory`; an empty tuple where nothing is kept.
    """

    k: tf.Tensor
    x: State
    active: tf.Tensor
    depth: tf.Tensor
    values: tf.Tensor
    memory: Any
    carried: tuple
    kept: Any


def run_whole_batch(
    update: BoundUpdate,
    state: State,
    max_unroll: int | tf.Tensor,
    threshold: float | tf.Tensor | None,
    keep: bool = False,
    rule: StoppingRule = UPDATE_NORM,
    min_unroll: int | tf.Tensor = 1,
) -> Trajectory:
    """Update all samples of the batch, and keep the states of those that have stopped.

    Stopped samples stay in the batch: the statistics of a batch include their last states.

    Args:
        update: The update to repeat, its drives computed.
        state: x(0), a tensor `[N, ...]` or a structure of them.
        max_unroll: The largest number of updates, an int or an int32 scalar.
        threshold: The stopping threshold; None for exactly `max_unroll` updates.
        keep: Whether to keep what a backward pass needs of each update.
        rule: The stopping rule.
        min_unroll: The smallest number of updates of a sample whose values are finite.

    Returns:
        A `Trajectory`.
    """
    dtype, samples = norm_dtype(state), batch_size(state)
    limit = None if threshold is None else comparable_threshold(threshold, dtype)

    def step(batch):
        k, x = batch.k, batch.x
        kept = write(batch.kept, k, update.update.kept_before(x)) if keep else batch.kept
        new, change, carried = update.step_carrying(x, k, batch.carried)
        if limit is None:
            return (batch._replace(k=k + 1, x=new, carried=carried, kept=kept),)
        new = masked(batch.active, new, x)
        change, measured = tf.nest.map_structure(tf.stop_gradient, (change, new))
        values, memory = rule.measure(change, measured, batch.memory, update.weights, update.drives)
        values = select(batch.active, values, batch.values)
        moving = rule.goes_on(values, limit) | (tf.math.is_finite(values) & (k + 1 < min_unroll))
        depth = batch.depth + tf.cast(batch.active, tf.int32)
        active = batch.active & moving
        return (_Batch(k + 1, new, active, depth, values, memory, carried, kept),)

    first = _Batch(
        tf.constant(0),
        state,
        tf.fill([samples], True),
        tf.zeros([samples], tf.int32),
        tf.zeros([samples], dtype),
        () if limit is None else rule.begin(state, update.weights, update.drives),
        update.carried,
        empty_arrays(update, state, keep),
    )
    (last,) = tf.while_loop(
        lambda batch: tf.reduce_any(batch.active) & (batch.k < max_unroll), step, (first,)
    )
    kept = last.kept if keep else None
    if limit is None:
        depth = tf.fill([samples], last.k)
        return Trajectory(state, last.x, depth, last.k, None, kept, None, last.carried)
    # One round: the batch was never compacted.
    starts = tf.constant([0])
    return Trajectory(state, last.x, last.depth, last.k, last.values, kept, starts, last.carried)
