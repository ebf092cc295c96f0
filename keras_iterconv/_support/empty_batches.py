"""Convolutions of empty batches (no samples), on which the convolutions of oneDNN fail.

Their result has the shape of the input, and the gradient of kernel and bias, which TensorFlow
computes in one operation, raises an error. A replica of a strategy gets an empty batch where there
are fewer samples than replicas. Transposed convolutions and pooling work on empty batches.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

CONVOLUTIONS = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv1D,
    keras.layers.SeparableConv2D,
)


class _Active(threading.local):
    """Whether this thread's convolutions accept empty batches."""

    on_any_batch: bool = True


_ACTIVE = _Active()


def branches_allowed() -> bool:
    """Return whether this thread is not within `only_full_batches`."""
    return _ACTIVE.on_any_batch


@contextlib.contextmanager
def only_full_batches() -> Iterator[None]:
    """Trace convolutions without the branch for empty batches, for converters of graphs."""
    outer = _ACTIVE.on_any_batch
    _ACTIVE.on_any_batch = False
    try:
        yield
    finally:
        _ACTIVE.on_any_batch = outer


def on_any_batch(
    convolve: Callable, inputs: tf.Tensor, output_shape: Sequence[int | None], dtype: tf.DType
) -> tf.Tensor:
    """Return `convolve(inputs)`, or an empty tensor of the correct shape for an empty batch.

    Args:
        convolve: Function of the inputs that assigns no variables.
        inputs: Batch of inputs, `[N, ...]`.
        output_shape: Shape of the result, with the batch axis; None for unknown sizes.
        dtype: Type of the result.
    """
    if inputs.shape[0] or not _ACTIVE.on_any_batch:
        return convolve(inputs)
    result = tf.cond(
        tf.shape(inputs)[0] > 0,
        lambda: convolve(inputs),
        lambda: tf.zeros([0, *(size or 0 for size in output_shape[1:])], dtype),
    )
    return tf.ensure_shape(result, [inputs.shape[0], *output_shape[1:]])


def layer_on_any_batch(layer: Any, call: Callable) -> Callable:
    """Return a function that calls a layer of a functional model, also on an empty batch.

    Args:
        layer: Layer or Keras operation.
        call: Function that calls the layer, with the same arguments.
    """
    if not isinstance(layer, CONVOLUTIONS):
        return call

    def call_on_any_batch(inputs, **kwargs):
        # Symbolic inputs hold no values, so there is no batch to test.
        if isinstance(inputs, keras.KerasTensor):
            return call(inputs, **kwargs)
        shape = layer.compute_output_shape(inputs.shape)
        return on_any_batch(
            lambda inputs: call(inputs, **kwargs), inputs, shape, layer.compute_dtype
        )

    return call_on_any_batch
