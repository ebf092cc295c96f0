"""The loop of adaptive depth, in which each sample stops on its own."""

from typing import Any, NamedTuple

import tensorflow as tf

from keras_iterconv.unrolling.samples import (
    any_size,
    batch_size,
    comparable_threshold,
    gather_samples,
    norm_dtype,
    sample_norms,
    with_shapes_of,
)
from keras_iterconv.unrolling.trajectory import Ends, Trajectory, empty_arrays, write
from keras_iterconv.unrolling.update import BoundUpdate, State

# Assumed cost of one compaction, which gathers states and drives, in updates of the active samples.
# `python -m benchmarks.inference` measures the loop with this value.
COMPACTION_COST = 0.5


class _Stretch(NamedTuple):
    """The batch after a stretch of updates.

    Attributes:
        k: The number of updates since the loop began.
        x: The states, a structure of tensors `[n, ...]`.
        norms: The 2-norm of each sample's last update, `[n]`.
        kept: As in `Trajectory`; an empty tuple where nothing is kept.
    """

    k: tf.Tensor
    x: State
    norms: tf.Tensor
    kept: Any


class _Batch(NamedTuple):
    """The batch after the last compaction: n of the N samples, active and stopped.

    Attributes:
        sample_indices: The samples' indices in the whole batch, `[n]`.
        active: Which samples have not stopped, bool `[n]`.
        x: The samples' states, a structure of tensors `[n, ...]`.
        drives: The samples' drives, `[n, ...]` each.
    """

    sample_indices: tf.Tensor
    active: tf.Tensor
    x: State
    drives: tuple


class _Rounds(NamedTuple):
    """The variables of the loop over rounds. A round may begin with a compaction.

    Attributes:
        k: The number of updates since the loop began.
        batch: The samples in the batch.
        ends: The results of the stopped samples.
        waste: The number of updates computed for stopped samples since the last compaction, summed
            over these samples, int32.
        kept: As in `_Stretch`.
        starts: As in `Trajectory`.
    """

    k: tf.Tensor
    batch: _Batch
    ends: Ends
    waste: tf.Tensor
    kept: Any
    starts: tf.Tensor


def run_adaptive(
    update: BoundUpdate,
    state: State,
    max_unroll: int | tf.Tensor,
    threshold: float | tf.Tensor,
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
        state: x(0), a tensor `[N, ...]` or a structure of them.
        max_unroll: The largest number of updates, an int or an int32 scalar.
        threshold: The stopping threshold, a number or a scalar tensor.
        keep: Whether to keep what a backward pass needs of each update.
        compaction_cost: The cost of one compaction, in updates of the active samples.

    Returns:
        A `Trajectory`.
    """
    loop = _Loop(update, state, max_unroll, threshold, keep, compaction_cost)
    first = _Stretch(tf.constant(0), state, None, empty_arrays(update, state, keep))
    first = loop.until_one_stops(first, max_unroll, update.drives)
    active = loop.goes_on(first)
    # Where all samples stop at the same update, as a single sample does, there are no rounds.
    k, ends, kept, starts = tf.cond(
        tf.reduce_any(active),
        lambda: loop.run_rounds(first, active),
        lambda: (first.k, loop.ends(first), first.kept, tf.constant([0])),
    )
    end = with_shapes_of(ends.x, state)
    return Trajectory(state, end, ends.depth, k, ends.norms, kept if keep else None, starts)


class _Loop:
    """The steps of `run_adaptive`, with its arguments as attributes."""

    def __init__(self, update, state, max_unroll, threshold, keep, compaction_cost):
        self.update, self.max_unroll, self.keep = update, max_unroll, keep
        self.dtype = norm_dtype(state)
        self.threshold = comparable_threshold(threshold, self.dtype)
        self.compaction_cost = compaction_cost

    def moves(self, norms):
        """Return which samples' updates are finite and not below the threshold, bool `[n]`."""
        # NaN fails both comparisons.
        return (norms >= self.threshold) & (norms <= self.dtype.max)

    def goes_on(self, stretch: _Stretch) -> tf.Tensor:
        """Return which samples stay active, bool `[n]`."""
        return self.moves(stretch.norms) & (stretch.k < self.max_unroll)

    def ends(self, stretch: _Stretch) -> Ends:
        """Return the results of a batch whose samples all stop after this stretch."""
        return Ends(stretch.x, tf.fill(tf.shape(stretch.norms), stretch.k), stretch.norms)

    def until_one_stops(
        self,
        start: _Stretch,
        limit: int | tf.Tensor,
        drives: tuple,
        active: tf.Tensor | None = None,
    ) -> _Stretch:
        """Update all samples until an active sample stops, or until `limit` updates were made.

        Args:
            start: The batch before the stretch; its norms are not read.
            limit: The largest k, an int or an int32 scalar.
            drives: The drives of the batch.
            active: Which samples are active before the stretch, bool `[n]`; None for all.
        """
        update = self.update._replace(drives=drives)

        def step(stretch):
            k, x, _, kept = stretch
            change, tensors, complete = update.begin_step(x, k)
            if self.keep:
                kept = write(kept, k, tensors)
            # Else second derivatives would pass through the norm, whose square root has no
            # derivative at zero.
            norms = sample_norms(tf.nest.map_structure(tf.stop_gradient, change))
            # TensorFlow can then write x + change into the memory of `change`.
            with tf.control_dependencies([norms]):
                x = complete()
            return (_Stretch(k + 1, x, norms, kept),)

        def all_move(stretch):
            moving = self.moves(stretch.norms)
            if active is not None:
                moving |= ~active
            return tf.reduce_all(moving) & (stretch.k < limit)

        start = start._replace(norms=tf.fill([batch_size(start.x)], self.threshold))
        return tf.while_loop(all_move, step, (start,))[0]

    def run_rounds(self, first: _Stretch, active: tf.Tensor) -> tuple:
        """Update the active samples until all have stopped.

        Args:
            first: The batch after the stretch in which the first samples stopped.
            active: Which samples are still active, bool `[N]`.

        Returns:
            `(k, ends, kept, starts)`, as in `_Rounds`.
        """
        rounds = _Rounds(
            first.k,
            _Batch(tf.range(batch_size(first.x)), active, first.x, self.update.drives),
            # The entries of active samples are overwritten when they stop.
            self.ends(first),
            tf.constant(0),
            first.kept,
            tf.constant([0]),
        )
        (rounds,) = tf.while_loop(
            lambda rounds: tf.reduce_any(rounds.batch.active),
            lambda rounds: (self._run_round(rounds),),
            (rounds,),
            (tf.nest.map_structure(any_size, rounds),),
        )
        return rounds.k, rounds.ends, rounds.kept, rounds.starts

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
        start = _Stretch(rounds.k, batch.x, None, rounds.kept)
        after = self.until_one_stops(start, limit, batch.drives, batch.active)
        active = batch.active & self.goes_on(after)
        stopped = tf.where(batch.active & ~active)[:, 0]
        sample_indices = tf.gather(batch.sample_indices, stopped)
        return _Rounds(
            after.k,
            batch._replace(active=active, x=after.x),
            rounds.ends.with_stopped(
                sample_indices,
                gather_samples(after.x, stopped),
                after.k,
                tf.gather(after.norms, stopped),
            ),
            waste + (after.k - rounds.k - 1) * idle,
            after.kept,
            starts,
        )

    def _compacted(self, rounds: _Rounds) -> tuple:
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
