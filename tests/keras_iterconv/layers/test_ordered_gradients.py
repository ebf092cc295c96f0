"""Copies of a tensor: their values, and the order in which their gradients are summed."""

import numpy as np
import tensorflow as tf

from keras_iterconv.layers.ordered_gradients import copies_with_ordered_gradient


def test_copies_equal_the_tensor_and_gradients_are_summed_by_the_order_of_the_copies():
    value = tf.constant([1.0, -2.0])
    weights = np.array([1e8, -1e8, 1.0], np.float32)
    for order in ([0, 1, 2], [2, 0, 1], [0, 2, 1]):
        with tf.GradientTape() as tape:
            tape.watch(value)
            copies = copies_with_ordered_gradient(value, 3)
            total = tf.add_n(
                [w * tf.reduce_sum(c) for w, c in zip(weights[order], copies, strict=True)]
            )
        for copy in copies:
            np.testing.assert_array_equal(copy, value)
        expected = np.float32(0)
        for weight in weights[order]:
            expected += weight
        np.testing.assert_array_equal(tape.gradient(total, value), [expected, expected])


def test_a_single_copy():
    (copy,) = copies_with_ordered_gradient(tf.constant([3.0]), 1)
    np.testing.assert_array_equal(copy, [3.0])
