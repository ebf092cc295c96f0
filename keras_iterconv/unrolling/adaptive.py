"""The loop of adaptive depth, in which each sample stops on its own."""

from typing import Any, NamedTuple

import tensorflow as tf

from keras_iterconv.unrolling.samples import (
    any_size,
    batch_size,
    comparable_threshold,
    gather_samples,
    norm_dtype,
    updates_of,
    with_shapes_of,
)
from keras_iterconv.unrolling.stopping import UPDATE_NORM, StoppingRule
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
        values: What the stopping rule measured at the last update, `[n]`.
        memory: What the stopping rule remembers, a structure of tensors `[n, ...]`.
        kept: As in `Trajectory`; an empty tuple where nothing is kept.
    """

    k: tf.Tensor
    x: State
    values: tf.Tensor
    memory: Any
    kept: Any


class _Batch(NamedTuple):
    """The batch after the last compaction: n of the N samples, active and stopped.

    Attributes:
        sample_indices: The samples' indices in the whole batch, `[n]`.
        active: Which samples have not stopped, bool `[n]`.
        x: The samples' states, a structure of tensors `[n, ...]`.
        drives: The samples' drives, `[n, ...]` each.
        memory: As in `_Stretch`.
    """

    sample_indices: tf.Tensor
    active: tf.Tensor
    x: State
    drives: tuple
    memory: Any


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
    rule: StoppingRule = UPDATE_NORM,
    min_unroll: int | tf.Tensor = 1,
) -> Trajectory:
    """Update each sample until its stopping rule is met, or what it measures is not finite.

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
        rule: The stopping rule.
        min_unroll: The smallest number of updates of a sample whose values are finite.

    Returns:
        A `Trajectory`.
    """
    max_unroll = updates_of(state, max_unroll)
    loop = _Loop(
        update,
        max_unroll,
        min_unroll,
        comparable_threshold(threshold, norm_dtype(state)),
        keep,
        compaction_cost,
        rule,
    )
    memory = rule.begin(state, update.weights, update.drives)
    first = _Stretch(tf.constant(0), state, None, memory, empty_arrays(update, state, keep))
    first = loop.until_one_stops(first, max_unroll, update.drives)
    active = loop.goes_on(first)
    # Where all samples stop at the same update, as a single sample does, there are no rounds.
    k, ends, kept, starts = tf.cond(
        tf.reduce_any(active),
        lambda: loop.run_rounds(first, active),
        lambda: (first.k, loop.ends(first), first.kept, tf.constant([0])),
    )
    end = with_shapes_of(ends.x, state)
    return Trajectory(state, end, ends.depth, k, ends.values, kept if keep else None, starts)


def measured_step(
    update: BoundUpdate, rule: StoppingRule, x: State, k: tf.Tensor, memory: Any
) -> tuple[State, tf.Tensor, Any, Any]:
    """Make one update, and measure what the stopping rule compares with its threshold.

    Args:
        update: The update, its drives computed.
        rule: The stopping rule.
        x: The states, a structure of tensors `[n, ...]`.
        k: The number of the update.
        memory: What the rule remembers, a structure of tensors `[n, ...]`.

    Returns:
        `(state, values, memory, kept)`: the new states, the measured values `[n]`, the rule's new
        memory, and what the exact backward pass keeps of this update.
    """
    change, kept, complete = update.begin_step(x, k)
    # A rule without `reads_state` does not see this placeholder.
    new = complete() if rule.reads_state else ()
    # Else second derivatives would pass through the norm, whose square root has no derivative at
    # zero.
    change, measured = tf.nest.map_structure(tf.stop_gradient, (change, new))
    values, memory = rule.measure(change, measured, memory, update.weights, update.drives)
    if not rule.reads_state:
        # TensorFlow can then write x + change into the memory of `change`.
        with tf.control_dependencies([values]):
            new = complete()
    return new, values, memory, kept


class _Loop(NamedTuple):
    """The steps of `run_adaptive`, with its arguments as attributes."""

    update: BoundUpdate
    max_unroll: int | tf.Tensor
    min_unroll: int | tf.Tensor
    threshold: tf.Tensor
    keep: bool
    compaction_cost: float
    rule: StoppingRule

    def moves(self, stretch: _Stretch) -> tf.Tensor:
        """Return which samples have not met the stopping rule, bool `[n]`."""
        moving = self.rule.goes_on(stretch.values, self.threshold)
        if isinstance(self.min_unroll, int) and self.min_unroll <= 1:
            return moving
        early = tf.math.is_finite(stretch.values) & (stretch.k < self.min_unroll)
        return moving | early

    def goes_on(self, stretch: _Stretch) -> tf.Tensor:
        """Return which samples stay active, bool `[n]`."""
        return self.moves(stretch) & (stretch.k < self.max_unroll)

    def ends(self, stretch: _Stretch) -> Ends:
        """Return the results of a batch whose samples all stop after this stretch."""
        return Ends(stretch.x, tf.fill(tf.shape(stretch.values), stretch.k), stretch.values)

    def until_one_stops(
        self,
        start: _Stretch,
        limit: int | tf.Tensor,
        drives: tuple,
        active: tf.Tensor | None = None,
    ) -> _Stretch:
        """Update all samples until an active sample stops, or until `limit` updates were made.

        Args:
            start: The batch before the stretch; its values are not read.
            limit: The largest k, an int or an int32 scalar.
            drives: The drives of the batch.
            active: Which samples are active before the stretch, bool `[n]`; None for all.
        """

        def all_move(stretch):
            moving = self.moves(stretch)
            if active is not None:
                moving |= ~active
            return tf.reduce_all(moving) & (stretch.k < limit)

        unmet = self.rule.unmet_value(self.threshold)
        start = start._replace(values=tf.fill([batch_size(start.x)], unmet))
        return tf.while_loop(all_move, lambda stretch: (self._step(stretch, drives),), (start,))[0]

    def _step(self, stretch: _Stretch, drives: tuple) -> _Stretch:
        """Make one update of all samples in the batch."""
        k, kept = stretch.k, stretch.kept
        update = self.update._replace(drives=drives)
        new, values, memory, tensors = measured_step(
            update, self.rule, stretch.x, k, stretch.memory
        )
        if self.keep:
            kept = write(kept, k, tensors)
        return _Stretch(k + 1, new, values, memory, kept)

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
            _Batch(
                tf.range(batch_size(first.x)), active, first.x, self.update.drives, first.memory
            ),
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
        dtype = self.threshold.dtype
        allowed = self.compaction_cost * tf.cast(count, dtype) - tf.cast(waste, dtype)
        steps = tf.math.ceil(allowed / tf.cast(tf.maximum(idle, 1), dtype))
        remaining = self.max_unroll - rounds.k
        # Clipped before the cast, since a large float overflows an int32.
        steps = tf.clip_by_value(1 + steps, 1, tf.cast(remaining, dtype))
        limit = rounds.k + tf.where(idle > 0, tf.cast(steps, tf.int32), remaining)
        start = _Stretch(rounds.k, batch.x, None, batch.memory, rounds.kept)
        after = self.until_one_stops(start, limit, batch.drives, batch.active)
        active = batch.active & self.goes_on(after)
        stopped = tf.where(batch.active & ~active)[:, 0]
        sample_indices = tf.gather(batch.sample_indices, stopped)
        return _Rounds(
            after.k,
            batch._replace(active=active, x=after.x, memory=after.memory),
            rounds.ends.with_stopped(
                sample_indices,
                gather_samples(after.x, stopped),
                after.k,
                tf.gather(after.values, stopped),
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
        dtype = self.threshold.dtype
        pays = tf.cast(waste, dtype) >= self.compaction_cost * tf.cast(count, dtype)
        return tf.cond(
            pays & (count < size) & (count > 0),
            lambda: (
                tf.nest.map_structure(lambda z: tf.gather(z, active_indices), batch),
                tf.constant(0),
                tf.concat([rounds.starts, [rounds.k]], axis=0),
            ),
            lambda: (batch, waste, rounds.starts),
        )
