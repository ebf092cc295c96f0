"""Gradients of a part of a batch, which arrive as `tf.IndexedSlices`."""

import tensorflow as tf


def dense(gradient: tf.Tensor | tf.IndexedSlices, like: tf.Tensor) -> tf.Tensor:
    """Return a gradient as a tensor of the shape of `like`, which it belongs to.

    `tf.gather` and `tf.boolean_mask` send back slices; arithmetic with them raises errors, and
    TensorFlow's own conversion warns about shapes that it does not know.
    """
    if not isinstance(gradient, tf.IndexedSlices):
        return gradient
    whole = tf.math.unsorted_segment_sum(gradient.values, gradient.indices, tf.shape(like)[0])
    return tf.ensure_shape(whole, like.shape)


def with_dense_gradient(value: tf.Tensor) -> tf.Tensor:
    """Return the tensor; whatever its consumers send back, its gradient is a tensor."""

    @tf.custom_gradient
    def identity(value):
        return tf.identity(value), lambda gradient: dense(gradient, value)

    return identity(value)
