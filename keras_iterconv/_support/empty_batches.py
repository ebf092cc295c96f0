"""Batches of no samples, on which oneDNN's convolutions fail.

Such a batch keeps the shape of its input, and the gradient of kernel and bias, which TensorFlow
computes as one, ends with an error. A replica of a strategy gets a batch of no samples where there
are fewer samples than replicas. Transposed convolutions and pooling take empty batches as they are.
"""

from collections.abc import Callable

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


def on_any_batch(convolve: Callable, inputs: tf.Tensor, output_shape, dtype) -> tf.Tensor:
    """Return `convolve(inputs)`; of an empty batch, a tensor of the shape that it should have.

    Args:
        convolve: A function of the inputs that assigns no variables.
        inputs: `[N, ...]`.
        output_shape: Of the result, with the batch's axis; None where a size is not known.
        dtype: Of the result.
    """
    if inputs.shape[0]:
        return convolve(inputs)
    result = tf.cond(
        tf.shape(inputs)[0] > 0,
        lambda: convolve(inputs),
        lambda: tf.zeros([0, *(size or 0 for size in output_shape[1:])], dtype),
    )
    return tf.ensure_shape(result, [inputs.shape[0], *output_shape[1:]])


def layer_on_any_batch(layer, call: Callable) -> Callable:
    """Return a function that calls a layer of a functional model, on an empty batch too.

    Args:
        layer: The layer, or Keras operation.
        call: What calls it, of the same arguments.
    """
    if not isinstance(layer, CONVOLUTIONS):
        return call

    def call_on_any_batch(inputs, **kwargs):
        # Symbolic inputs have no samples.
        if isinstance(inputs, keras.KerasTensor):
            return call(inputs, **kwargs)
        shape = layer.compute_output_shape(inputs.shape)
        return on_any_batch(
            lambda inputs: call(inputs, **kwargs), inputs, shape, layer.compute_dtype
        )

    return call_on_any_batch
