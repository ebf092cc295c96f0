"""Counting operations as they are executed, compared with closed forms."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_iterconv as ki
from benchmarks.flops import training_flops
from training.reproduce.counted_operations import count_operations

pytestmark = pytest.mark.tensorflow_operators


def compiled(model):
    model.compile(
        keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    model.optimizer.build(model.trainable_variables)
    return model


def count_step(model, images, number):
    batch = (tf.zeros((number, *images)), tf.zeros(number, tf.int32))
    return count_operations(lambda: model.train_step(batch))


@pytest.mark.parametrize("number", [1, 3])
def test_a_training_step_of_a_convolutional_net(number):
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 6, 2)),
            layers.Conv2D(3, 3, padding="same", activation="relu"),
            layers.Conv2D(5, (3, 1), strides=2, padding="same"),
            layers.Flatten(),
            layers.Dense(7),
        ]
    )
    first, second, dense = 9 * 2 * 3 * 8 * 6, 3 * 3 * 5 * 4 * 3, 4 * 3 * 5 * 7
    # Each has a gradient with respect to its kernel, and one with respect to its input.
    expected = 3 * 2 * number * (first + second + dense)
    assert count_step(compiled(model), (8, 6, 2), number) == expected


@pytest.mark.parametrize("updates", [1, 7])
def test_a_loop_counts_as_often_as_it_runs(updates):
    matrix = tf.zeros((4, 4))

    @tf.function
    def repeat(state, steps):
        return tf.while_loop(
            lambda step, _: step < steps,
            lambda step, state: (step + 1, state @ matrix),
            (0, state),
        )[1]

    assert count_operations(lambda: repeat(tf.zeros((3, 4)), updates)) == updates * 2 * 3 * 4 * 4
    # Functions are graphs again.
    assert not tf.config.functions_run_eagerly()


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("second", [False, True])
@pytest.mark.parametrize("batch", [(), (5,)])
def test_products_of_matrices_however_they_lie(first, second, batch):
    left = tf.zeros((*batch, *((3, 2) if first else (2, 3))))
    right = tf.zeros((*batch, *((7, 3) if second else (3, 7))))
    count = count_operations(lambda: tf.matmul(left, right, transpose_a=first, transpose_b=second))
    assert count == 2 * 2 * 3 * 7 * np.prod(batch, initial=1)


def test_a_net_of_tied_blocks_counts_every_update():
    model = compiled(ki.create_model("nais10", (8, 8, 1), 10, blocks=1, gradient="unroll"))
    dense = 3 * 2 * np.prod(model.layers[-1].kernel.shape)
    # For the slopes, the gradient computes each block's sums again: of ten C x and one D u.
    again = sum(
        11 * 2 * np.prod(layer.C.shape) * np.prod(layer.output.shape[1:3])
        for layer in model.layers
        if isinstance(layer, ki.NAISConv2D)
    )
    # Compared at the difference of two batches: a projection does not depend on the batch.
    found = count_step(model, (8, 8, 1), 2) - count_step(model, (8, 8, 1), 1)
    assert found == training_flops(model) + dense + again


def test_a_product_without_a_rule_is_refused():
    with pytest.raises(ValueError, match="not DepthwiseConv2dNative"):
        count_operations(
            lambda: tf.nn.depthwise_conv2d(
                tf.zeros((1, 4, 4, 2)), tf.zeros((3, 3, 2, 1)), [1, 1, 1, 1], "SAME"
            )
        )
    assert count_operations(lambda: tf.zeros((2, 2)) + 1) == 0
