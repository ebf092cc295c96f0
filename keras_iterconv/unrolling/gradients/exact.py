"""The exact gradient of a loop, walked back update by update over the kept values.

With the value sigma(...) of each update the state before it is the state after it less h times
that value, and the slope of sigma is a function of the value: no update is computed twice, and
one tensor a step is kept where differentiating the loop itself would keep two or three.
"""

import tensorflow as tf

from keras_iterconv.unrolling.gradients.mode import GradientMode
from keras_iterconv.unrolling.samples import put, select
from keras_iterconv.unrolling.trajectory import Trajectory, value_array
from keras_iterconv.unrolling.update import Update


def walk_back(update: Update, trajectory: Trajectory, g: tf.Tensor, live: tf.Tensor):
    """Return the gradients of g . x(K) in the initial state, the weights and the drives.

    Args:
        update: What the loop repeated.
        trajectory: Its end, with the values.
        g: `[N, ...]`, in the state's dtype.
        live: bool `[N]`, false where a sample adds nothing; its last state is finite.

    Returns:
        `(state's, weights', drives')`: a tensor and two lists.
    """
    weights = [tf.zeros_like(weight) for weight in update.weights]
    # Summed in the state's dtype, which may be wider.
    drives = [tf.zeros(tf.shape(drive), g.dtype) for drive in update.drives]
    x, depth, starts = trajectory.state, trajectory.depth, trajectory.starts
    if starts is None:
        values = tf.cond(
            tf.reduce_all(live),
            lambda: trajectory.values,
            lambda: _of_live_samples(trajectory.values, live),
        )
        _, _, g, weights, drives = _walk(
            update, values, trajectory.updates, 0, None, x, g, weights, drives
        )
        return g, weights, _cast_like(drives, update.drives)
    # What a sample without an upstream gradient did has no effect.
    effective = tf.where(live, depth, 0)

    def walk_round(number, end, x, g, weights, drives):
        # The samples that the batch held from the round's first update on.
        number -= 1
        begin = starts[number]
        rows = tf.where(depth > begin)[:, 0]
        part = update.on(rows)
        made = tf.gather(effective, rows)
        _, x_part, g_part, weights, parts = _walk(
            part,
            trajectory.values,
            end,
            begin,
            made,
            tf.gather(x, rows),
            tf.gather(g, rows),
            weights,
            [tf.gather(drive, rows) for drive in drives],
        )
        drives = [put(drive, rows, part) for drive, part in zip(drives, parts, strict=True)]
        return number, begin, put(x, rows, x_part), put(g, rows, g_part), weights, drives

    variables = (tf.size(starts), trajectory.updates, x, g, weights, drives)
    _, _, _, g, weights, drives = tf.while_loop(
        lambda number, *others: number > 0, walk_round, variables
    )
    return g, weights, _cast_like(drives, update.drives)


def _walk(update, values, end, begin, made, x, g, weights, drives):
    """Walk back from update `end` to `begin`, over the `made` first ones of each sample, or all.

    Args:
        update: What the loop repeated.
        values: The values of the updates.
        end: The number after that of the last update.
        begin: The number of the first one.
        made: int32 `[n]`; None for all updates of all samples.
        x: The state after the last update, `[n, ...]`.
        g: The upstream gradient, `[n, ...]`.
        weights: Sums that the weights' gradients are added to.
        drives: Sums that the drives' gradients are added to.

    Returns:
        `(k, state, gradient, weights, drives)`, the last two with what the updates added.
    """

    def step(k, x, g, weights, drives):
        k -= 1
        value = tf.ensure_shape(values.read(k), x.shape)
        upstream = g
        if made is not None:
            # What was computed for a sample after it had stopped had no effect.
            moved = made > k
            value, upstream = tf.cond(
                tf.reduce_all(moved),
                lambda: (value, g),
                lambda: (
                    select(moved, value, tf.zeros_like(value)),
                    select(moved, g, tf.zeros_like(g)),
                ),
            )
        x -= update.change(value, x.dtype)
        dx, dweights, ddrives = update.vjp(x, k, value, upstream)
        weights = [total + part for total, part in zip(weights, dweights, strict=True)]
        drives = [
            total + tf.cast(part, total.dtype) for total, part in zip(drives, ddrives, strict=True)
        ]
        return k, x, g + dx, weights, drives

    return tf.while_loop(
        lambda k, *others: k > begin,
        step,
        (end, x, g, weights, drives),
        # The states do not wait for g; more of them than this are never computed ahead.
        parallel_iterations=2,
    )


def _of_live_samples(values, live):
    """Return an array of the values of a fixed depth, with zeros for the samples not live."""
    stacked = values.stack()
    mask = tf.reshape(live, [1, -1] + [1] * (stacked.shape.rank - 2))
    kept = tf.where(mask, stacked, tf.zeros_like(stacked))
    return value_array(values.dtype, values.element_shape).unstack(kept)


def _cast_like(values: list, like: tuple) -> list:
    return [tf.cast(value, other.dtype) for value, other in zip(values, like, strict=True)]


UNROLL = GradientMode(
    name="unroll",
    summary="exact, keeps a tensor of the state's size for each update",
    exact=True,
    keeps_values=True,
    needs=(),
    backward=lambda update, run, trajectory, g, live: walk_back(update, trajectory, g, live),
)
RECOMPUTE = GradientMode(
    name="recompute",
    summary="exact, makes the updates again in the backward pass in the place of keeping them",
    exact=True,
    keeps_values=False,
    needs=(),
    backward=lambda update, run, trajectory, g, live: walk_back(
        update, run(update, trajectory.start, True), g, live
    ),
)
