"""Copies of a tensor: their values, and the order in which their gradients are summed."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_iterconv as ki
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


@pytest.mark.parametrize("name", ["pcr_w8", "icr_w8", "resnet_w8", "nais_adaptive"])
def test_no_gradient_of_a_training_step_is_a_sum_in_the_order_of_arrival(name):
    blocks = 3 if name.endswith("_w8") else 1
    model = ki.create_model(name, (8, 8, 1), 10, blocks=blocks)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))

    @tf.function
    def gradients(x, y):
        with tf.GradientTape() as tape:
            loss = model.compute_loss(x, y, model(x, training=True))
        return tape.gradient(loss, model.trainable_variables)

    graph = gradients.get_concrete_function(tf.zeros([2, 8, 8, 1]), tf.zeros([2], tf.int32)).graph
    sums = [op for op in graph.get_operations() if op.type == "AddN"]
    assert [op.name for op in sums if len(op.inputs) > 2] == []
