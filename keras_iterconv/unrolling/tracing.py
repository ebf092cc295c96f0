"""One graph for all blocks whose updates differ in nothing but their tensors."""

import functools

import tensorflow as tf

from keras_iterconv.unrolling.result import Unrolled
from keras_iterconv.unrolling.update import Update


def call_traced_once(unroll, update: Update, *tensors, **options) -> Unrolled:
    """In a graph, call one `tf.function` for all blocks whose updates differ only in tensors.

    A chain of many blocks would else hold as many copies of the loops and of their gradients:
    54 blocks of them are some hundred megabytes, whatever the batch.

    Args:
        unroll: `unroll_fixed`, `unroll_adaptive` or `unroll_anderson`.
        update: What to repeat.
        *tensors: Its further arguments that are tensors.
        **options: Those that are not.

    Returns:
        Its `Unrolled`.
    """
    if tf.executing_eagerly():
        return unroll(update, *tensors, **options)
    bare = update._replace(weights=(), drives=(), drive_inputs=())
    traced = _trace(unroll, bare, tuple(options.items()))
    return traced((update.weights, update.drives, update.drive_inputs), *tensors)


# Bounded, for a function that is made anew at each call would be traced and kept each time.
@functools.lru_cache(maxsize=256)
def _trace(unroll, update: Update, options: tuple):
    @tf.function(autograph=False)
    def traced(of_update, *tensors):
        weights, drives, drive_inputs = of_update
        own = update._replace(weights=weights, drives=drives, drive_inputs=drive_inputs)
        return unroll(own, *tensors, **dict(options))

    return traced
