"""One graph for all blocks whose updates differ only in their tensors."""

import functools

import tensorflow as tf

from keras_iterconv.unrolling.result import Unrolled
from keras_iterconv.unrolling.update import Update


def call_traced_once(unroll, update: Update, *tensors, **options) -> Unrolled:
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
    without_tensors = update._replace(weights=(), drives=(), drive_inputs=())
    traced = _trace(unroll, without_tensors, tuple(options.items()))
    return traced((update.weights, update.drives, update.drive_inputs), *tensors)


# Bounded: a `transfer` that is created at each call adds one graph at each call.
@functools.lru_cache(maxsize=256)
def _trace(unroll, update: Update, options: tuple):
    @tf.function(autograph=False)
    def traced(update_tensors, *tensors):
        weights, drives, drive_inputs = update_tensors
        complete = update._replace(weights=weights, drives=drives, drive_inputs=drive_inputs)
        return unroll(complete, *tensors, **dict(options))

    return traced
