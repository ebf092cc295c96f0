"""The exact gradient of a loop, computed backwards update by update from what was kept of each."""

import tensorflow as tf

from keras_iterconv.unrolling.gradients.mode import GradientMode
from keras_iterconv.unrolling.samples import gather_samples, norm_dtype, put, select
from keras_iterconv.unrolling.trajectory import Trajectory, read, tensor_array
from keras_iterconv.unrolling.update import BoundUpdate, State


def walk_back(
    update: BoundUpdate,
    trajectory: Trajectory,
    g: State,
    live: tf.Tensor,
    last: int | None = None,
) -> tuple[State, list, list]:
    """Return the gradients of g . x(K) in the initial state, the weights and the drives.

    Args:
        update: The update that the loop repeated.
        trajectory: The end of the loop, with what it kept.
        g: The upstream gradient, a structure like the state.
        live: Which samples have an upstream gradient, bool `[N]`; the last states of the others
            must be finite.
        last: The number of updates of each sample to go back through, counted from its last one,
            with the state before them as a constant; None for all.

    Returns:
        `(state's, weights', drives')`: a structure like the state, and two lists.
    """
    weights = [tf.zeros_like(weight) for weight in update.weights]
    # Summed in the state's dtype, which may be wider than the drives'.
    dtype = norm_dtype(g)
    drives = [tf.zeros(tf.shape(drive), dtype) for drive in update.drives]
    x, depth, starts = trajectory.state, trajectory.depth, trajectory.starts
    if starts is None:
        kept = tf.cond(
            tf.reduce_all(live),
            lambda: trajectory.kept,
            lambda: tf.nest.map_structure(
                lambda array: _of_live_samples(array, live), trajectory.kept
            ),
        )
        begin = 0 if last is None else tf.maximum(trajectory.updates - last, 0)
        _, _, g, weights, drives = _walk(
            update, kept, trajectory.updates, begin, None, x, g, weights, drives
        )
        if last is not None:
            g = _without(tf.fill(tf.shape(live), begin > 0), g)
        return g, weights, _cast_like(drives, update.drives)
    # The updates of a sample without an upstream gradient have no effect on the loss.
    effective = tf.where(live, depth, 0)
    first = tf.zeros_like(depth) if last is None else tf.maximum(depth - last, 0)

    def walk_round(number, end, x, g, weights, drives):
        number -= 1
        begin = starts[number]
        # The samples that were in the batch in this round.
        sample_indices = tf.where(depth > begin)[:, 0]
        round_first = tf.gather(first, sample_indices)
        _, round_x, round_g, weights, round_drives = _walk(
            update.on(sample_indices),
            trajectory.kept,
            end,
            begin if last is None else tf.maximum(begin, tf.reduce_min(round_first)),
            (tf.gather(effective, sample_indices), None if last is None else round_first),
            gather_samples(x, sample_indices),
            gather_samples(g, sample_indices),
            weights,
            [tf.gather(drive, sample_indices) for drive in drives],
        )
        x, g = put(x, sample_indices, round_x), put(g, sample_indices, round_g)
        drives = [
            put(drive, sample_indices, samples)
            for drive, samples in zip(drives, round_drives, strict=True)
        ]
        return number, begin, x, g, weights, drives

    variables = (tf.size(starts), trajectory.updates, x, g, weights, drives)
    _, _, _, g, weights, drives = tf.while_loop(
        lambda number, *others: number > 0, walk_round, variables
    )
    if last is not None:
        g = _without(first > 0, g)
    return g, weights, _cast_like(drives, update.drives)


def _walk(update, kept, end, begin, made, x, g, weights, drives):
    """Return the gradients of the updates `begin` to `end` - 1, computed backwards.

    Args:
        update: The update that the loop repeated.
        kept: What the loop kept of each update.
        end: The number of the last update plus one.
        begin: The number of the first update.
        made: The number of updates that each sample made since the loop began, and the number of
            the first of them to go back through or None, int32 `[n]` each; None for all updates.
        x: The state after the last update, `[n, ...]`.
        g: The upstream gradient, `[n, ...]`.
        weights: The sums to which the gradients of the weights are added.
        drives: The sums to which the gradients of the drives are added.

    Returns:
        `(begin, state, gradient, weights, drives)`: the state before the first update, its
        gradient, and the new sums.
    """

    def step(k, x, g, weights, drives):
        k -= 1
        moved = None if made is None else made[0] > k
        if made is not None and made[1] is not None:
            moved &= made[1] <= k
        x, g, dweights, ddrives = update.step_back(x, k, read(kept, k, x), g, moved)
        weights = [total + term for total, term in zip(weights, dweights, strict=True)]
        drives = [
            total + tf.cast(term, total.dtype) for total, term in zip(drives, ddrives, strict=True)
        ]
        return k, x, g, weights, drives

    return tf.while_loop(
        lambda k, *others: k > begin,
        step,
        (end, x, g, weights, drives),
        # The states do not depend on g. This limits how many of them are computed, and held in
        # memory, ahead of it.
        parallel_iterations=2,
    )


def _of_live_samples(array, live):
    """Return an array of a loop of fixed depth, zero for samples without upstream gradient."""
    stacked = array.stack()
    mask = tf.reshape(live, [1, -1] + [1] * (stacked.shape.rank - 2))
    kept = tf.where(mask, stacked, tf.zeros_like(stacked))
    return tensor_array(array.dtype, array.element_shape).unstack(kept)


def _without(samples: tf.Tensor, g: State) -> State:
    """Return gradients that are zero for some samples, bool `[N]`."""
    return tf.nest.map_structure(lambda z: select(samples, tf.zeros_like(z), z), g)


def _cast_like(values: list, like: tuple) -> list:
    return [tf.cast(value, other.dtype) for value, other in zip(values, like, strict=True)]


UNROLL = GradientMode(
    name="unroll",
    exact=True,
    keeps_tensors=True,
    needs=(),
    backward=lambda update, run, trajectory, g, live: walk_back(update, trajectory, g, live),
)
RECOMPUTE = GradientMode(
    name="recompute",
    exact=True,
    keeps_tensors=False,
    needs=(),
    backward=lambda update, run, trajectory, g, live: walk_back(
        update, run(update, trajectory.start, True), g, live
    ),
)
