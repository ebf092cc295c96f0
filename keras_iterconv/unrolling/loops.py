"""The two loops, forwards: a fixed number of updates, and one that each sample ends by itself."""

from typing import NamedTuple

import tensorflow as tf

from keras_iterconv.unrolling.result import comparable_threshold, sample_norms
from keras_iterconv.unrolling.update import Update

# What leaving stopped samples out is taken to cost, in updates of the samples that go on: states
# and drives are gathered. `python -m benchmarks.inference` measures what comes of it.
COMPACTION_COST = 0.5


class Trajectory(NamedTuple):
    """The end of a loop, and what its backward pass needs.

    Attributes:
        start: The first state, `[N, ...]`.
        state: The last state, `[N, ...]`.
        depth: The updates made, int32 `[N]`.
        updates: How many the sample of the most made, an int32 scalar.
        norm: The 2-norm of each sample's last update, `[N]`; None for a fixed depth.
        values: A `tf.TensorArray` of sigma(...) by update, each `[n, ...]` for the n samples that
            the batch held then; None where they were not kept.
        starts: int32 `[rounds]`, the updates at which stopped samples left the batch, from 0; None
            for a fixed depth.
    """

    start: tf.Tensor
    state: tf.Tensor
    depth: tf.Tensor
    updates: tf.Tensor
    norm: tf.Tensor | None
    values: tf.TensorArray | None
    starts: tf.Tensor | None


def run_fixed(update: Update, state: tf.Tensor, max_unroll, keep: bool = False) -> Trajectory:
    """Make exactly `max_unroll` updates of all samples, an int or an int32 scalar."""

    def step(k, x, values):
        value = update.value(x, k)
        if keep:
            values = values.write(k, value)
        return k + 1, x + update.change(value, x.dtype), values

    _, end, values = tf.while_loop(
        lambda k, x, values: k < max_unroll,
        step,
        (tf.constant(0), state, _array(update, state, keep)),
    )
    max_unroll = tf.convert_to_tensor(max_unroll)
    depth = tf.fill(tf.shape(state)[:1], max_unroll)
    return Trajectory(state, end, depth, max_unroll, None, values if keep else None, None)


def run_adaptive(
    update: Update,
    state: tf.Tensor,
    max_unroll,
    threshold,
    keep: bool = False,
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

    Returns:
        A `Trajectory`.
    """
    dtype = tf.float64 if state.dtype == tf.float64 else tf.float32
    threshold = comparable_threshold(threshold, dtype)

    def moves(norms):
        # Neither is true of a NaN.
        return (norms >= threshold) & (norms <= dtype.max)

    def until_one_stops(k, limit, x, drives, idle, values):
        """Update all until one stops that is not idle, at most until update `limit`.

        Returns also which go on, bool `[n]`.
        """
        part = update._replace(drives=drives)

        def step(k, x, norms, values):
            value = part.value(x, k)
            if keep:
                values = values.write(k, value)
            change = part.change(value, x.dtype)
            # Second derivatives would pass through them, and the square root has none at zero.
            norms = sample_norms(tf.stop_gradient(change))
            # The sum may then take the place of `change` in memory.
            with tf.control_dependencies([norms]):
                x = x + change
            return k + 1, x, norms, values

        def all_move(k, x, norms, values):
            moving = moves(norms) if idle is None else moves(norms) | idle
            return tf.reduce_all(moving) & (k < limit)

        start = (k, x, tf.fill(tf.shape(x)[:1], threshold), values)
        k, x, norms, values = tf.while_loop(all_move, step, start)
        return k, x, norms, values, moves(norms) & (k < max_unroll)

    def without_stopped(k, x, norms, goes_on, values):
        """Go on with those that have not stopped, until all have."""
        samples = tf.shape(x)[0]

        def leave_out(k, rows, active, x, drives, waste, starts):
            """Leave those that have stopped out of the batch where that pays."""
            left = tf.where(active)[:, 0]
            size, count = tf.size(active), tf.size(left)
            waste += size - count
            pays = tf.cast(waste, dtype) >= COMPACTION_COST * tf.cast(count, dtype)
            held = (rows, active, x, drives)
            return tf.cond(
                pays & (count < size) & (count > 0),
                lambda: (
                    *tf.nest.map_structure(lambda z: tf.gather(z, left), held),
                    tf.constant(0),
                    tf.concat([starts, [k]], axis=0),
                ),
                lambda: (*held, waste, starts),
            )

        def run_round(k, rows, active, x, drives, end, depth, last, waste, values, starts):
            rows, active, x, drives, waste, starts = leave_out(
                k, rows, active, x, drives, waste, starts
            )
            begin, count = k, tf.reduce_sum(tf.cast(active, tf.int32))
            idle = tf.size(active) - count
            # As many updates as the rest of the cost allows; one of them is counted already.
            rest = COMPACTION_COST * tf.cast(count, dtype) - tf.cast(waste, dtype)
            steps = tf.math.ceil(rest / tf.cast(tf.maximum(idle, 1), dtype))
            room = max_unroll - k
            # Clipped as a float: a large one has no integer.
            steps = tf.clip_by_value(1 + steps, 1, tf.cast(room, dtype))
            limit = k + tf.where(idle > 0, tf.cast(steps, tf.int32), room)
            k, x, norms, values, goes_on = until_one_stops(k, limit, x, drives, ~active, values)
            waste += (k - begin - 1) * idle
            stopped = tf.where(active & ~goes_on)[:, 0]
            places = tf.gather(rows, stopped)
            end = put(end, places, tf.gather(x, stopped))
            depth = put(depth, places, tf.fill(tf.shape(places), k))
            last = put(last, places, tf.gather(norms, stopped))
            active &= goes_on
            return k, rows, active, x, drives, end, depth, last, waste, values, starts

        # Those that go on overwrite what is wrong for them here.
        variables = (
            k,
            tf.range(samples),
            goes_on,
            x,
            update.drives,
            x,
            tf.fill([samples], k),
            norms,
            tf.constant(0),
            values,
            tf.constant([0]),
        )
        k, _, _, _, _, end, depth, last, _, values, starts = tf.while_loop(
            lambda k, rows, active, *others: tf.reduce_any(active),
            run_round,
            variables,
            tf.nest.map_structure(any_size, variables),
        )
        return k, end, last, depth, values, starts

    k, x, norms, values, goes_on = until_one_stops(
        tf.constant(0),
        max_unroll,
        state,
        update.drives,
        None,
        _array(update, state, keep),
    )
    # One sample alone, or all together, need no more than this.
    k, end, norms, depth, values, starts = tf.cond(
        tf.reduce_any(goes_on),
        lambda: without_stopped(k, x, norms, goes_on, values),
        lambda: (k, x, norms, tf.fill(tf.shape(norms), k), values, tf.constant([0])),
    )
    end = tf.ensure_shape(end, state.shape)
    return Trajectory(state, end, depth, k, norms, values if keep else None, starts)


def select(condition: tf.Tensor, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """Return the samples of x where the condition, bool `[N]`, holds, and those of y elsewhere."""
    # Not a product with zeros and ones: a NaN would pass. The older `where` picks whole samples,
    # in a quarter of the time of the other's broadcast.
    return tf.compat.v1.where(condition, x, y)


def put(batch: tf.Tensor, rows: tf.Tensor, part: tf.Tensor) -> tf.Tensor:
    """Return the batch with some samples, `rows`, replaced."""
    return tf.tensor_scatter_nd_update(batch, rows[:, tf.newaxis], part)


def _array(update: Update, state, keep: bool):
    """Return the array for the values; nothing in its place where they are not kept."""
    return value_array(update.dtype, [None, *state.shape[1:]]) if keep else ()


def value_array(dtype: tf.DType, shape) -> tf.TensorArray:
    """Return an empty array for tensors of one shape, of which some sizes may be unknown."""
    return tf.TensorArray(
        dtype,
        # It grows: a limit that no sample reaches should cost no memory.
        size=0,
        dynamic_size=True,
        # Kept after they were read: a persistent tape walks back more than once.
        clear_after_read=False,
        element_shape=shape,
        infer_shape=False,
    )


def any_size(variable):
    """Return the shape invariant of a loop variable whose first axis changes."""
    if isinstance(variable, tf.TensorArray):
        return tf.TensorShape(None)
    shape = variable.shape
    return shape if shape.rank == 0 else tf.TensorShape([None, *shape[1:]])
