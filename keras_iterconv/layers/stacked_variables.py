"""Variables that hold one weight of several blocks, `[blocks, ...]`."""

from collections.abc import Callable

import keras
import tensorflow as tf

_MARK = "_keras_iterconv_stack"


def draw_stack(make_initializer: Callable[[], Callable], shape, dtype=None, shared: bool = False):
    """Draw the initial value of a stack, block by block.

    An initializer that is given the stacked shape would read the wrong fan-in from it.

    Args:
        make_initializer: Makes a Keras initializer. It is asked anew for each block: one
            initializer gives the same draw each time.
        shape: `[blocks, ...]`.
        dtype: Of the value.
        shared: Whether all blocks get one draw.
    """
    count, *rest = shape
    if shared:
        return tf.stack([make_initializer()(rest, dtype)] * count)
    return tf.stack([make_initializer()(rest, dtype) for _ in range(count)])


def mark_stack(variable: keras.Variable) -> None:
    """Say that the first axis of a variable numbers the blocks of one chain."""
    setattr(variable, _MARK, True)


def is_stack(variable) -> bool:
    """Whether a variable is marked as a stack of blocks."""
    return getattr(variable, _MARK, False)
