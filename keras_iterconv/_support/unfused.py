"""NaN before ReLUs, which TensorFlow's fused operations turn into zeros."""

import tensorflow as tf


def unfused(value: tf.Tensor) -> tf.Tensor:
    """Return a tensor that is not fused with the operation that takes it.

    In a graph on a CPU, TensorFlow joins a ReLU with the normalisation, or the convolution and
    bias, before it, and oneDNN's joint operation turns NaN into zero: a net whose weights are NaN
    would report the loss of a guess, ln(classes). A ReLU by itself keeps NaN, and is as fast.
    """
    # It changes nothing, and unlike an identity the graph's optimisation neither removes it nor
    # looks through it.
    return tf.ensure_shape(value, value.shape)
