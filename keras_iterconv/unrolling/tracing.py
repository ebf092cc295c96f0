"""One graph for all blocks whose updates differ only in their tensors."""

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_iterconv._support.graph_function import graph_function
from keras_iterconv.unrolling.differentiable import unroll_adaptive, unroll_fixed
from keras_iterconv.unrolling.gradients import GradientMode
from keras_iterconv.unrolling.parts import in_parts
from keras_iterconv.unrolling.result import Unrolled
from keras_iterconv.unrolling.update import BoundUpdate, State, Update

# Number of descriptions of updates that are remembered.
TRACES = 256
# Descriptions that were found to read no other tensors, the newest last.
_CLOSED: dict[Update, None] = {}


def call_traced_once(
    unroll: Callable[..., Unrolled], update: BoundUpdate, *tensors: Any, **options: Any
) -> Unrolled:
    """In a graph, call one `tf.function` for all blocks whose updates differ only in tensors.

    Without it, the graph of a chain of blocks holds one copy of the loop and of its gradient for
    each block. For 54 blocks this takes some hundred megabytes, at any batch size, and most of the
    time before the first step.

    Args:
        unroll: `unroll_fixed`, `unroll_adaptive` or `unroll_anderson`.
        update: The update to repeat.
        *tensors: The other positional arguments of `unroll`, all tensors, x(0) first.
        **options: The keyword arguments of `unroll`, all hashable.

    Returns:
        The `Unrolled` that `unroll` returns.

    Example:
        >>> tanh = ki.unrolling.ACTIVATIONS["tanh"]
        >>> transfer = lambda x, k, weights, drives: -weights[0] * x
        >>> @tf.function(autograph=False)
        ... def run(state):
        ...     for weight in 1.0, 2.0:
        ...         update = ki.unrolling.EulerUpdate(transfer, tanh).bind((tf.constant(weight),))
        ...         unrolled = ki.unrolling.call_traced_once(
        ...             ki.unrolling.unroll_fixed, update, state, tf.constant(3)
        ...         )
        ...         state = unrolled.state
        ...     return state
        >>> run(tf.ones([1, 1])).shape
        TensorShape([1, 1])

    See also:
        `unrolling.unroll_traced`; `unrolling.unroll_fixed`; `unrolling.unroll_adaptive`.
    """
    check_closed(update, tensors[0])
    if tf.executing_eagerly():
        return unroll(update, *tensors, **options)
    traced = _trace(unroll, update.update, tuple(options.items()))
    state, *limits = tensors

    def run(update, state):
        return traced((update.weights, update.drives, update.drive_inputs), state, *limits)

    return in_parts(run, update, state)


def unroll_traced(
    update: BoundUpdate,
    state: State,
    max_unroll: int | tf.Tensor,
    threshold: float | tf.Tensor | None,
    gradient: str | GradientMode,
) -> Unrolled:
    """Call `unroll_adaptive`, or `unroll_fixed` for no threshold, through `call_traced_once`.

    Args:
        update: The update to repeat.
        state: x(0), a tensor `[N, ...]` or a structure of them.
        max_unroll: The number of updates, or the largest number.
        threshold: The stopping threshold; None for exactly `max_unroll` updates.
        gradient: The gradient mode or its name.

    Returns:
        The `Unrolled` of the loop.

    Example:
        >>> tanh = ki.unrolling.ACTIVATIONS["tanh"]
        >>> update = ki.unrolling.EulerUpdate(lambda x, k, weights, drives: -x, tanh, 0.5).bind()
        >>> unrolled = ki.unrolling.unroll_traced(update, tf.ones([1, 1]), 100, 0.01, "unroll")
        >>> unrolled.depth.numpy().tolist()
        [8]

    See also:
        `unrolling.call_traced_once`; `unrolling.unroll_adaptive`; `unrolling.unroll_fixed`.
    """
    max_unroll = tf.convert_to_tensor(max_unroll)
    if threshold is None:
        return call_traced_once(unroll_fixed, update, state, max_unroll, gradient=gradient)
    threshold = tf.convert_to_tensor(threshold)
    return call_traced_once(
        unroll_adaptive, update, state, max_unroll, threshold, gradient=gradient
    )


def check_closed(update: BoundUpdate, state: State) -> None:
    """Raise `ValueError` where an update reads tensors that are not bound to it.

    They would get no gradient, and a graph that is shared would hold those of one block. Each
    description is traced once for this.

    Args:
        update: The update.
        state: x(0), a tensor `[N, ...]` or a structure of them.
    """
    if update.update in _CLOSED:
        return

    def step(state, weights, drives, drive_inputs):
        bound = update.update.bind(weights, drives, drive_inputs).with_drives()
        return bound.step(state, tf.constant(0))

    specs = tf.nest.map_structure(
        lambda z: tf.TensorSpec(z.shape, z.dtype),
        (state, update.weights, update.drives, update.drive_inputs),
    )
    traced = tf.function(step, autograph=False).get_concrete_function(*specs)
    if traced.captured_inputs:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in traced.captured_inputs)
        raise ValueError(
            "An update must read no tensors or variables but its weights, drives and drive inputs: "
            "others would get no gradient. Pass them to `bind`, or make constants NumPy arrays. "
            f"Received: {type(update.update).__name__} that reads tensors of the shapes {shapes}"
        )
    _CLOSED[update.update] = None
    if len(_CLOSED) > TRACES:
        del _CLOSED[next(iter(_CLOSED))]


# Bounded: an update that differs at each call adds one graph at each call.
@functools.lru_cache(maxsize=TRACES)
def _trace(unroll: Callable[..., Unrolled], update: Update, options: tuple) -> Callable:
    @graph_function
    def traced(update_tensors, *tensors):
        return unroll(update.bind(*update_tensors), *tensors, **dict(options))

    return traced
