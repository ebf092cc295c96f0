"""The loop that each sample ends by itself."""

from typing import NamedTuple

import tensorflow as tf

from keras_iterconv.unrolling.samples import any_size, comparable_threshold, put, sample_norms
from keras_iterconv.unrolling.trajectory import Trajectory, kept_values
from keras_iterconv.unrolling.update import Update

# Assumed cost of one compaction, in updates of the active samples: states and drives are gathered.
# `python -m benchmarks.inference` measures what comes of it.
COMPACTION_COST = 0.5


class _Stretch(NamedTuple):
    """The batch after a stretch of updates, which ends where a sample stops.

    Attributes:
        k: The updates made since the loop began.
        x: The states, `[n, ...]`.
        norms: The 2-norm of each sample's last update, `[n]`.
        values: As in `Trajectory`; an empty tuple where they are not kept.
    """

    k: tf.Tensor
    x: tf.Tensor
    norms: tf.Tensor
    values: tf.TensorArray | tuple


class _Batch(NamedTuple):
    """The samples that are still in the batch, n of N.

    Attributes:
        sample_indices: Their numbers in the whole batch, `[n]`.
        active: Which of them have not stopped, bool `[n]`.
        x: Their states, `[n, ...]`.
        drives: Their drives.
    """

    sample_indices: tf.Tensor
    active: tf.Tensor
    x: tf.Tensor
    drives: tuple


class _Ends(NamedTuple):
    """Where the samples of the whole batch stopped; of active ones yet without meaning.

    Attributes:
        x: The last states, `[N, ...]`.
        depth: int32 `[N]`.
        norms: The 2-norms of the last updates, `[N]`.
    """

    x: tf.Tensor
    depth: tf.Tensor
    norms: tf.Tensor


class _Rounds(NamedTuple):
    """The state of the loop over rounds, between which stopped samples may leave the batch.

    Attributes:
        k: The updates made.
        batch: A `_Batch`.
        ends: An `_Ends`.
        waste: The updates that stopped samples were carried along for, since one left.
        values: As in `_Stretch`.
        starts: As in `Trajectory`.
    """

    k: tf.Tensor
    batch: _Batch
    ends: _Ends
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

    Samples that have stopped keep their state, and leave the batch once carrying them along has
    cost as much as leaving them out does: whatever the others' depths are, that is never far
    worse than the better of never and at once.

    Args:
        update: What to repeat.
        state: x(0), `[N, ...]`.
        max_unroll: The largest number of updates, an int or an int32 scalar.
        threshold: A number or a scalar.
        keep: Whether to keep the values for a backward pass.
        compaction_cost: The cost of leaving samples out, in updates of the active ones.

    Returns:
        A `Trajectory`.
    """
    loop = _Loop(update, state, max_unroll, threshold, keep, compaction_cost)
    first = _Stretch(tf.constant(0), state, None, kept_values(update, state, keep))
    first = loop.until_one_stops(first, max_unroll, update.drives)
    active = loop.goes_on(first)
    # One sample alone, or all together, need no more than this.
    k, ends, values, starts = tf.cond(
        tf.reduce_any(active),
        lambda: loop.run_rounds(first, active),
        lambda: (first.k, loop.ends(first), first.values, tf.constant([0])),
    )
    end = tf.ensure_shape(ends.x, state.shape)
    return Trajectory(state, end, ends.depth, k, ends.norms, values if keep else None, starts)


class _Loop:
    """The parts of `run_adaptive`, whose arguments it takes."""

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
        """Return which samples are to make another update, bool `[n]`."""
        return self.moves(stretch.norms) & (stretch.k < self.max_unroll)

    def ends(self, stretch: _Stretch) -> _Ends:
        """Return the ends of samples that all stop here."""
        return _Ends(stretch.x, tf.fill(tf.shape(stretch.norms), stretch.k), stretch.norms)

    def until_one_stops(self, start: _Stretch, limit, drives, active=None) -> _Stretch:
        """Update all samples until an active one stops, at most until update `limit`.

        Args:
            start: The batch before; its norms do not matter.
            limit: An int or an int32 scalar.
            drives: Its drives.
            active: Which samples had not stopped, bool `[n]`; None for all.
        """
        update = self.update._replace(drives=drives)

        def step(stretch):
            k, x, _, values = stretch
            value = update.value(x, k)
            if self.keep:
                values = values.write(k, value)
            change = update.change(value, x.dtype)
            # Second derivatives would pass through them, and the square root has none at zero.
            norms = sample_norms(tf.stop_gradient(change))
            # The sum may then take the place of `change` in memory.
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
        """Go on with the active samples until all have stopped.

        Returns:
            `(k, ends, values, starts)`.
        """
        rounds = _Rounds(
            first.k,
            _Batch(tf.range(tf.shape(first.x)[0]), active, first.x, self.update.drives),
            # Active samples overwrite theirs.
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
        """Leave samples out where that pays, and update the others until one stops."""
        batch, waste, starts = self._leave_out(rounds)
        count = tf.reduce_sum(tf.cast(batch.active, tf.int32))
        idle = tf.size(batch.active) - count
        # As many updates as the rest of the cost allows; one of them is counted already.
        rest = self.compaction_cost * tf.cast(count, self.dtype) - tf.cast(waste, self.dtype)
        steps = tf.math.ceil(rest / tf.cast(tf.maximum(idle, 1), self.dtype))
        room = self.max_unroll - rounds.k
        # Clipped as a float: a large one has no integer.
        steps = tf.clip_by_value(1 + steps, 1, tf.cast(room, self.dtype))
        limit = rounds.k + tf.where(idle > 0, tf.cast(steps, tf.int32), room)
        start = _Stretch(rounds.k, batch.x, None, rounds.values)
        after = self.until_one_stops(start, limit, batch.drives, batch.active)
        active = batch.active & self.goes_on(after)
        stopped = tf.where(batch.active & ~active)[:, 0]
        sample_indices = tf.gather(batch.sample_indices, stopped)
        return _Rounds(
            after.k,
            batch._replace(active=active, x=after.x),
            _Ends(
                put(rounds.ends.x, sample_indices, tf.gather(after.x, stopped)),
                put(
                    rounds.ends.depth,
                    sample_indices,
                    tf.fill(tf.shape(sample_indices), after.k),
                ),
                put(rounds.ends.norms, sample_indices, tf.gather(after.norms, stopped)),
            ),
            waste + (after.k - rounds.k - 1) * idle,
            after.values,
            starts,
        )

    def _leave_out(self, rounds: _Rounds):
        """Return the batch without its stopped samples where that pays, the waste, the starts."""
        batch = rounds.batch
        left = tf.where(batch.active)[:, 0]
        size, count = tf.size(batch.active), tf.size(left)
        waste = rounds.waste + size - count
        cost = self.compaction_cost * tf.cast(count, self.dtype)
        pays = tf.cast(waste, self.dtype) >= cost
        return tf.cond(
            pays & (count < size) & (count > 0),
            lambda: (
                tf.nest.map_structure(lambda z: tf.gather(z, left), batch),
                tf.constant(0),
                tf.concat([rounds.starts, [rounds.k]], axis=0),
            ),
            lambda: (batch, waste, rounds.starts),
        )
