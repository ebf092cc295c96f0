"""A loop that also returns the states after all updates, with their gradients."""

from typing import Any

import tensorflow as tf

from keras_iterconv._support.dense_gradients import dense
from keras_iterconv.unrolling.result import Unrolled
from keras_iterconv.unrolling.samples import select
from keras_iterconv.unrolling.stopping import UPDATE_NORM, StoppingRule
from keras_iterconv.unrolling.trajectory import Trajectory, read
from keras_iterconv.unrolling.update import BoundUpdate, State
from keras_iterconv.unrolling.whole_batch import run_whole_batch


def unroll_states(
    update: BoundUpdate,
    state: State,
    max_unroll: int | tf.Tensor,
    threshold: float | tf.Tensor | None,
    rule: StoppingRule = UPDATE_NORM,
    min_unroll: int = 1,
) -> tuple[Unrolled, tuple, State]:
    """Repeat an update on the whole batch, and return the state after each update.

    The gradient is exact; the state before each update is kept.

    Args:
        update: The update to repeat, without drive inputs.
        state: x(0), a tensor `[N, ...]` or a structure of them.
        max_unroll: The largest number of updates, at least 1; an int or an int32 scalar.
        threshold: The stopping threshold; None for exactly `max_unroll` updates.
        rule: The stopping rule.
        min_unroll: The number of updates from which on the rule counts.

    Returns:
        `(unrolled, carried, states)`: as `unroll_whole_batch`; and x(1) to x(max_unroll), a
        structure of tensors `[N, max_unroll, ...]`. A sample that has stopped stays at its state.

    Example:
        >>> tanh = ki.unrolling.ACTIVATIONS["tanh"]
        >>> update = ki.unrolling.EulerUpdate(lambda x, k, weights, drives: -x, tanh, 0.5).bind()
        >>> unrolled, _, states = ki.unrolling.unroll_states(update, tf.ones([1, 1]), 3, None)
        >>> [round(float(x), 2) for x in states[0, :, 0]]
        [0.62, 0.34, 0.18]

    See also:
        `Iterate`, which can return them; `unrolling.unroll_whole_batch`.
    """
    leaves, count = tf.nest.flatten(state), len(tf.nest.flatten(state))

    @tf.custom_gradient
    def forward(*flat):
        start = tf.nest.pack_sequence_as(state, flat[:count])
        bound = update.with_tensors(flat[count:])
        end = run_whole_batch(bound, start, max_unroll, threshold, True, rule, min_unroll)
        states = tf.nest.map_structure(
            lambda array, last: _stacked(array, last, max_unroll), end.kept, end.state
        )

        def backward(*upstream):
            g = [dense(z, like) for z, like in zip(upstream[:count], flat[:count], strict=True)]
            each = [tf.convert_to_tensor(z) for z in upstream[count : 2 * count]]
            g, each = (tf.nest.pack_sequence_as(state, z) for z in (g, each))
            return _walk_back(bound, end, g, each)

        values = [] if end.value is None else [end.value]
        found = [*tf.nest.flatten(end.state), *tf.nest.flatten(states), end.depth, *end.carried]
        return [*found, *values], backward

    found = forward(*leaves, *update.tensors)
    last, states = (
        tf.nest.pack_sequence_as(state, found[n * count : (n + 1) * count]) for n in range(2)
    )
    depth, *rest = found[2 * count :]
    carried, values = tuple(rest[: len(update.carried)]), rest[len(update.carried) :]
    if threshold is None:
        return Unrolled.fixed(last, max_unroll), carried, states
    return Unrolled.adaptive(last, depth, values[0], threshold, rule, min_unroll), carried, states


def _stacked(before: tf.TensorArray, last: tf.Tensor, max_unroll: int | tf.Tensor) -> tf.Tensor:
    """Return x(1) to x(max_unroll), `[N, max_unroll, ...]`, from x(0) to x(K - 1) and x(K)."""

    def repeated(times):
        return tf.repeat(last[tf.newaxis], times, axis=0)

    # An empty batch makes no updates.
    after = tf.cond(
        before.size() > 0,
        lambda: tf.concat([before.stack()[1:], repeated(max_unroll - before.size() + 1)], axis=0),
        lambda: repeated(max_unroll),
    )
    return _swapped(tf.ensure_shape(after, [None, *last.shape]))


def _swapped(z: tf.Tensor) -> tf.Tensor:
    """Return a tensor with its first two axes swapped."""
    return tf.transpose(z, [1, 0, *range(2, z.shape.rank)])


def _walk_back(update: BoundUpdate, end: Trajectory, g: State, each: State) -> list:
    """Return the gradients in x(0) and in the tensors of the update.

    Args:
        update: The update.
        end: The trajectory, with x(0) to x(K - 1) kept.
        g: The upstream gradient in the last state.
        each: Those in the states after each update, `[N, max_unroll, ...]`.
    """
    live = _any_gradient(g, each)
    if update.update.couples_samples:
        # A sample without a loss of its own acts on the others.
        live = tf.ones_like(live)
    # The states of the others may not be finite, and would be multiplied by zeros.
    update = update._replace(drives=tuple(select(live, z, tf.zeros_like(z)) for z in update.drives))
    x = _of(live, end.state)
    each, updates = tf.nest.map_structure(_swapped, each), end.updates
    # x(K) is the state after the last update, and of all that were not made.
    g = tf.nest.map_structure(
        lambda z, more: z + tf.reduce_sum(more[updates - 1 :], axis=0), g, each
    )
    made = None if end.starts is None else end.depth
    weights = [tf.zeros_like(weight) for weight in update.weights]
    drives = [tf.zeros_like(drive) for drive in update.drives]

    def step(k, x, g, weights, drives):
        k -= 1
        moved = live if made is None else live & (made > k)
        before = _of(live, read(end.kept, k, x))
        x, g, dweights, ddrives = update.step_back(x, k, before, g, moved)
        weights = [total + term for total, term in zip(weights, dweights, strict=True)]
        drives = [total + term for total, term in zip(drives, ddrives, strict=True)]
        # x(0) is no state after an update.
        g = tf.cond(
            k > 0,
            lambda: tf.nest.map_structure(lambda z, more: z + more[k - 1], g, each),
            lambda: g,
        )
        return k, x, g, weights, drives

    _, _, g, weights, drives = tf.while_loop(
        lambda k, *others: k > 0, step, (updates, x, g, weights, drives), parallel_iterations=2
    )
    return [*tf.nest.flatten(g), *weights, *drives]


def _any_gradient(g: State, each: State) -> tf.Tensor:
    found: list[Any] = [
        tf.reduce_any(z != 0, axis=range(1, z.shape.rank)) for z in tf.nest.flatten((g, each))
    ]
    return tf.reduce_any(tf.stack(found), axis=0)


def _of(live: tf.Tensor, state: State) -> State:
    return tf.nest.map_structure(lambda z: select(live, z, tf.zeros_like(z)), state)
