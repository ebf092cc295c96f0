"""Preventing the fusion of ReLUs, which replaces NaN by zero."""

import tensorflow as tf


def unfused(value: tf.Tensor) -> tf.Tensor:
    """Return the same tensor, which TensorFlow does not fuse with the operation that reads it.

    In a graph on a CPU, TensorFlow fuses a ReLU with the normalisation, or the convolution and
    bias, before it. The fused operation of oneDNN replaces NaN by zero, so a net whose weights are
    NaN would report the loss of guessing, ln(classes). A separate ReLU propagates NaN, and is as
    fast.
    """
    # It does not change the tensor, and the graph optimiser neither removes it nor fuses across it,
    # as it does with an identity.
    return tf.ensure_shape(value, value.shape)
