"""One graph for all blocks whose updates differ only in their tensors."""

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_iterconv.unrolling.result import Unrolled
from keras_iterconv.unrolling.update import BoundUpdate, Update


def call_traced_once(
    unroll: Callable[..., Unrolled], update: BoundUpdate, *tensors: Any, **options: Any
) -> Unrolled:
    """In a graph, call one `tf.function` for all blocks whose updates differ only in tensors.

    Without it, the graph of a chain of blocks holds one copy of the loop and of its gradient for
    each block: some hundred megabytes for 54 blocks, at any batch size.

    Args:
        unroll: `unroll_fixed`, `unroll_adaptive` or `unroll_anderson`.
        update: The update to repeat.
        *tensors: The other positional arguments of `unroll`, all tensors.
        **options: The keyword arguments of `unroll`, all hashable.

    Returns:
        The `Unrolled` that `unroll` returns.
    """
    if tf.executing_eagerly():
        return unroll(update, *tensors, **options)
    traced = _trace(unroll, update.update, tuple(options.items()))
    return traced((update.weights, update.drives, update.drive_inputs), *tensors)


# Bounded: an update that differs at each call adds one graph at each call.
@functools.lru_cache(maxsize=256)
def _trace(unroll: Callable[..., Unrolled], update: Update, options: tuple) -> Callable:
    @tf.function(autograph=False)
    def traced(update_tensors, *tensors):
        return unroll(update.bind(*update_tensors), *tensors, **dict(options))

    return traced
