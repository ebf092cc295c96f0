"""The loop of adaptive depth, in which each sample stops on its own."""

from typing import NamedTuple

import tensorflow as tf

from keras_iterconv.unrolling.samples import any_size, comparable_threshold, sample_norms
from keras_iterconv.unrolling.trajectory import Ends, Trajectory, kept_values
from keras_iterconv.unrolling.update import Update

# Assumed cost of one compaction, which gathers states and drives, in updates of the active samples.
# `python -m benchmarks.inference` measures the loop with this value.
COMPACTION_COST = 0.5


class _Stretch(NamedTuple):
    """The batch after a stretch of updates.

    Attributes:
        k: The number of updates since the loop began.
        x: The states, `[n, ...]`.
        norms: The 2-norm of each sample's last update, `[n]`.
        values: As in `Trajectory`; an empty tuple where the values are not kept.
    """

    k: tf.Tensor
    x: tf.Tensor
    norms: tf.Tensor
    values: tf.TensorArray | tuple


class _Batch(NamedTuple):
    """The batch after the last compaction: n of the N samples, active and stopped.

    Attributes:
        sample_indices: The samples' indices in the whole batch, `[n]`.
        active: Which samples have not stopped, bool `[n]`.
        x: The samples' states, `[n, ...]`.
        drives: The samples' drives, `[n, ...]` each.
    """

    sample_indices: tf.Tensor
    active: tf.Tensor
    x: tf.Tensor
    drives: tuple


class _Rounds(NamedTuple):
    """The variables of the loop over rounds. A round may begin with a compaction.

    Attributes:
        k: The number of updates since the loop began.
        batch: The samples in the batch.
        ends: The results of the stopped samples.
        waste: The number of updates computed for stopped samples since the last compaction, summed
            over these samples, int32.
        values: As in `_Stretch`.
        starts: As in `Trajectory`.
    """

    k: tf.Tensor
    batch: _Batch
    ends: Ends
    waste: tf.Tensor
    values: tf.TensorArray | tuple
    starts: tf.Tensor


def run_adaptive(
    update: Update,
    state: tf.Tensor,
    max_unroll,
    threshold,
    keep: bool = False,
    compaction_cost: float = COMPACTION_COST,
) -> Trajectory:
    """Update each sample until the 2-norm of its update falls below a threshold, or is not finite.

    A stopped sample keeps its state. Compaction removes the stopped samples from the batch once
    the updates wasted on them have cost as much as the compaction. This rule needs no knowledge of
    the depths to come, and is never far worse than the better of two others: to compact never, and
    to compact whenever a sample stops.

    Args:
        update: The update to repeat.
        state: x(0), `[N, ...]`.
        max_unroll: The largest number of updates, an int or an int32 scalar.
        threshold: The stopping threshold, a number or a scalar tensor.
        keep: Whether to keep the values for a backward pass.
        compaction_cost: The cost of one compaction, in updates of the active samples.

    Returns:
        A `Trajectory`.
    """
    loop = _Loop(update, state, max_unroll, threshold, keep, compaction_cost)
    first = _Stretch(tf.constant(0), state, None, kept_values(update, state, keep))
    first = loop.until_one_stops(first, max_unroll, update.drives)
    active = loop.goes_on(first)
    # Where all samples stop at the same update, as a single sample does, there are no rounds.
    k, ends, values, starts = tf.cond(
        tf.reduce_any(active),
        lambda: loop.run_rounds(first, active),
        lambda: (first.k, loop.ends(first), first.values, tf.constant([0])),
    )
    end = tf.ensure_shape(ends.x, state.shape)
    return Trajectory(state, end, ends.depth, k, ends.norms, values if keep else None, starts)


class _Loop:
    """The steps of `run_adaptive`, with its arguments as attributes."""

    def __init__(self, update, state, max_unroll, threshold, keep, compaction_cost):
        self.update, self.max_unroll, self.keep = update, max_unroll, keep
        self.dtype = tf.float64 if state.dtype == tf.float64 else tf.float32
        self.threshold = comparable_threshold(threshold, self.dtype)
        self.compaction_cost = compaction_cost

    def moves(self, norms):
        """Return which samples' updates are finite and not below the threshold, bool `[n]`."""
        # NaN fails both comparisons.
        return (norms >= self.threshold) & (norms <= self.dtype.max)

    def goes_on(self, stretch: _Stretch):
        """Return which samples stay active, bool `[n]`."""
        return self.moves(stretch.norms) & (stretch.k < self.max_unroll)

    def ends(self, stretch: _Stretch) -> Ends:
        """Return the results of a batch whose samples all stop after this stretch."""
        return Ends(stretch.x, tf.fill(tf.shape(stretch.norms), stretch.k), stretch.norms)

    def until_one_stops(self, start: _Stretch, limit, drives, active=None) -> _Stretch:
        """Update all samples until an active sample stops, or until `limit` updates were made.

        Args:
            start: The batch before the stretch; its norms are not read.
            limit: The largest k, an int or an int32 scalar.
            drives: The drives of the batch.
            active: Which samples are active before the stretch, bool `[n]`; None for all.
        """
        update = self.update._replace(drives=drives)

        def step(stretch):
            k, x, _, values = stretch
            value = update.value(x, k)
            if self.keep:
                values = values.write(k, value)
            change = update.change(value, x.dtype)
            # Else second derivatives would pass through the norm, whose square root has no
            # derivative at zero.
            norms = sample_norms(tf.stop_gradient(change))
            # TensorFlow can then write the sum into the memory of `change`.
            with tf.control_dependencies([norms]):
                x = x + change
            return (_Stretch(k + 1, x, norms, values),)

        def all_move(stretch):
            moving = self.moves(stretch.norms)
            if active is not None:
                moving |= ~active
            return tf.reduce_all(moving) & (stretch.k < limit)

        start = start._replace(norms=tf.fill(tf.shape(start.x)[:1], self.threshold))
        return tf.while_loop(all_move, step, (start,))[0]

    def run_rounds(self, first: _Stretch, active):
        """Update the active samples until all have stopped.

        Args:
            first: The batch after the stretch in which the first samples stopped.
            active: Which samples are still active, bool `[N]`.

        Returns:
            `(k, ends, values, starts)`, as in `_Rounds`.
        """
        rounds = _Rounds(
            first.k,
            _Batch(tf.range(tf.shape(first.x)[0]), active, first.x, self.update.drives),
            # The entries of active samples are overwritten when they stop.
            self.ends(first),
            tf.constant(0),
            first.values,
            tf.constant([0]),
        )
        (rounds,) = tf.while_loop(
            lambda rounds: tf.reduce_any(rounds.batch.active),
            lambda rounds: (self._run_round(rounds),),
            (rounds,),
            (tf.nest.map_structure(any_size, rounds),),
        )
        return rounds.k, rounds.ends, rounds.values, rounds.starts

    def _run_round(self, rounds: _Rounds) -> _Rounds:
        """Compact the batch where that saves time, and update it until an active sample stops."""
        batch, waste, starts = self._compacted(rounds)
        count = tf.reduce_sum(tf.cast(batch.active, tf.int32))
        idle = tf.size(batch.active) - count
        # The round ends where the waste reaches the cost of a compaction. The waste of its first
        # update is counted already.
        allowed = self.compaction_cost * tf.cast(count, self.dtype) - tf.cast(waste, self.dtype)
        steps = tf.math.ceil(allowed / tf.cast(tf.maximum(idle, 1), self.dtype))
        remaining = self.max_unroll - rounds.k
        # Clipped before the cast, since a large float overflows an int32.
        steps = tf.clip_by_value(1 + steps, 1, tf.cast(remaining, self.dtype))
        limit = rounds.k + tf.where(idle > 0, tf.cast(steps, tf.int32), remaining)
        start = _Stretch(rounds.k, batch.x, None, rounds.values)
        after = self.until_one_stops(start, limit, batch.drives, batch.active)
        active = batch.active & self.goes_on(after)
        stopped = tf.where(batch.active & ~active)[:, 0]
        sample_indices = tf.gather(batch.sample_indices, stopped)
        return _Rounds(
            after.k,
            batch._replace(active=active, x=after.x),
            rounds.ends.with_stopped(
                sample_indices,
                tf.gather(after.x, stopped),
                after.k,
                tf.gather(after.norms, stopped),
            ),
            waste + (after.k - rounds.k - 1) * idle,
            after.values,
            starts,
        )

    def _compacted(self, rounds: _Rounds):
        """Return `(batch, waste, starts)` of a round, compacted where the waste has paid for it."""
        batch = rounds.batch
        active_indices = tf.where(batch.active)[:, 0]
        size, count = tf.size(batch.active), tf.size(active_indices)
        waste = rounds.waste + size - count
        cost = self.compaction_cost * tf.cast(count, self.dtype)
        pays = tf.cast(waste, self.dtype) >= cost
        return tf.cond(
            pays & (count < size) & (count > 0),
            lambda: (
                tf.nest.map_structure(lambda z: tf.gather(z, active_indices), batch),
                tf.constant(0),
                tf.concat([rounds.starts, [rounds.k]], axis=0),
            ),
            lambda: (batch, waste, rounds.starts),
        )
