"""Copies of a tensor whose gradients are summed in a fixed order."""

import tensorflow as tf

from keras_iterconv._support.dense_gradients import dense


def copies_with_ordered_gradient(value: tf.Tensor, count: int) -> list[tf.Tensor]:
    """Return `count` copies of a tensor that has many consumers.

    TensorFlow sums the gradients of three or more consumers into whichever of them has been freed
    first, so the last bits of the sum depend on the threads' timing. Between copies the sum goes
    by their order, and a seed repeats a training to the bit.

    Args:
        value: A float tensor.
        count: How many.

    Returns:
        `count` tensors equal to `value`.
    """

    @tf.custom_gradient
    def copies(value):
        def total(*upstream):
            return tf.reduce_sum(tf.stack([dense(g, value) for g in upstream]), axis=0)

        return [tf.identity(value) for _ in range(count)], total

    return copies(value)
