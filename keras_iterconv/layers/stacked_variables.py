"""Stacked variables, each of which holds one weight of several blocks, `[blocks, ...]`."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

_MARK = "_keras_iterconv_stack"


def draw_stack(
    make_initializer: Callable[[], Callable],
    shape: Sequence[int],
    dtype: str | None = None,
    shared: bool = False,
) -> tf.Tensor:
    """Return an initial value for a stacked variable, drawn block by block.

    From the stacked shape, an initializer would compute a wrong fan-in.

    Args:
        make_initializer: A function that returns a new Keras initializer. It is called for each
            block, since one initializer draws the same value at each call.
        shape: The shape of the stacked variable, `[blocks, ...]`.
        dtype: The dtype of the value.
        shared: Whether all blocks get the same value.
    """
    count, *rest = shape
    if shared:
        return tf.stack([make_initializer()(rest, dtype)] * count)
    return tf.stack([make_initializer()(rest, dtype) for _ in range(count)])


def mark_stack(variable: keras.Variable) -> None:
    """Mark a variable as stacked: its first axis is the number of a block in one chain."""
    setattr(variable, _MARK, True)


def is_stack(variable: Any) -> bool:
    """Return whether a variable is marked as stacked."""
    return getattr(variable, _MARK, False)
