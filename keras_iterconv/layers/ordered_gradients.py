"""Copies of a tensor whose gradients are summed in a fixed order."""

import tensorflow as tf

from keras_iterconv._support.dense_gradients import dense


def copies_with_ordered_gradient(value: tf.Tensor, count: int) -> list[tf.Tensor]:
    """Return copies of a tensor, one for each of its consumers.

    TensorFlow sums the gradients of three or more consumers in an order that depends on the timing
    of threads, and so do the last bits of the sum. The gradients of the copies are summed in the
    order of the copies, so that a training run with a fixed seed is reproducible bit by bit.

    Args:
        value: A float tensor.
        count: The number of copies.

    Returns:
        A list of `count` tensors equal to `value`.
    """

    @tf.custom_gradient
    def copies(value):
        def total(*upstream):
            return tf.reduce_sum(tf.stack([dense(g, value) for g in upstream]), axis=0)

        return [tf.identity(value) for _ in range(count)], total

    return copies(value)
