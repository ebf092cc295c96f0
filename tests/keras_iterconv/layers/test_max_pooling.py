"""Max pooling that keeps NaN, against Keras's on finite samples."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_iterconv.layers import MaxPooling2D


def images():
    return np.random.default_rng(0).normal(size=(4, 5, 6, 3)).astype(np.float32)


@pytest.mark.parametrize("in_graph", [True, False], ids=["graph", "eager"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_sample_that_is_not_finite_is_nan_and_the_others_are_keras_s(value, in_graph):
    x = images()
    expected = np.asarray(keras.layers.MaxPooling2D(2, padding="same")(x))
    x[2, 1, 3, 0] = value
    layer = MaxPooling2D(2, padding="same")
    found = np.asarray(tf.function(layer)(x) if in_graph else layer(x))
    assert np.isnan(found[2]).all()
    np.testing.assert_array_equal(np.delete(found, 2, 0), np.delete(expected, 2, 0))


def test_gradients_are_keras_s():
    x = tf.constant(images())
    gradients = []
    for layer in (MaxPooling2D(), keras.layers.MaxPooling2D()):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(layer(x) ** 2)
        gradients.append(tape.gradient(loss, x))
    np.testing.assert_array_equal(*gradients)


def test_half_precision_and_configuration():
    layer = MaxPooling2D(3, strides=2, dtype="mixed_bfloat16")
    copy = keras.layers.deserialize(keras.layers.serialize(layer))
    assert type(copy) is MaxPooling2D
    assert copy(images()).dtype == tf.bfloat16
    assert copy(images()).shape == (4, 2, 2, 3)
