"""Conversion of gradients that are `tf.IndexedSlices` to tensors."""

import tensorflow as tf


def dense(gradient: tf.Tensor | tf.IndexedSlices, like: tf.Tensor) -> tf.Tensor:
    """Return the gradient of `like` as a tensor of its shape.

    The gradients of `tf.gather` and `tf.boolean_mask` are slices. Arithmetic with slices raises
    errors, and TensorFlow's own conversion warns about unknown shapes.
    """
    if not isinstance(gradient, tf.IndexedSlices):
        return gradient
    whole = tf.math.unsorted_segment_sum(gradient.values, gradient.indices, tf.shape(like)[0])
    return tf.ensure_shape(whole, like.shape)


def with_dense_gradient(value: tf.Tensor) -> tf.Tensor:
    """Return the same tensor, whose gradient is always a tensor and never slices."""

    @tf.custom_gradient
    def identity(value):
        return tf.identity(value), lambda gradient: dense(gradient, value)

    return identity(value)
