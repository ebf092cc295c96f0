"""Fused batch normalisation against Keras's own."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_iterconv.layers import BatchNormalization

SHAPE = (6, 5, 4, 3)


def make(kind, dtype="float32"):
    layer = kind(momentum=0.7, epsilon=0.01, dtype=dtype)
    layer.build((None, *SHAPE[1:]))
    rng = np.random.default_rng(1)
    layer.set_weights([rng.uniform(0.5, 2, w.shape) for w in layer.weights])
    return layer


def step(layer, x, weigh):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True)
        loss = tf.reduce_sum(tf.cast(y, tf.float64) * weigh)
    gradients = tape.gradient(loss, [x, layer.gamma, layer.beta])
    return [np.asarray(v, np.float64) for v in (y, *gradients, *layer.weights)]


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-5), ("mixed_float16", 1e-2)]
)
def test_a_training_step_and_an_evaluation_are_those_of_keras(dtype, tolerance):
    rng = np.random.default_rng(0)
    weigh = tf.constant(rng.normal(size=SHAPE))
    ours, stock = make(BatchNormalization, dtype), make(keras.layers.BatchNormalization, dtype)
    x = tf.constant(rng.normal(2, 3, size=SHAPE), ours.compute_dtype)
    for got, expected in zip(step(ours, x, weigh), step(stock, x, weigh), strict=True):
        np.testing.assert_allclose(got, expected, atol=tolerance * np.abs(expected).max())
    got, expected = (np.asarray(layer(x), np.float64) for layer in (ours, stock))
    np.testing.assert_allclose(got, expected, atol=tolerance * np.abs(expected).max())


def test_frozen_it_normalises_by_its_statistics_and_keeps_them():
    layer = make(BatchNormalization)
    layer.trainable = False
    before = layer.get_weights()
    x = tf.random.stateless_normal(SHAPE, (1, 2))
    np.testing.assert_array_equal(layer(x, training=True), layer(x))
    for weight, value in zip(layer.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)


@pytest.mark.parametrize("given", [{"axis": 1}, {"center": False}, {"scale": False}])
def test_what_it_cannot_do_is_refused(given):
    with pytest.raises(ValueError, match=f"`{next(iter(given))}` must be"):
        BatchNormalization(**given)


def test_inputs_of_another_rank_are_refused():
    with pytest.raises(ValueError, match="must have 2 or 4 axes"):
        BatchNormalization()(tf.zeros([2, 3, 3]))


@pytest.mark.parametrize("dtype", ["float64", "float32", "mixed_float16"])
@pytest.mark.parametrize("shape", [(5, 4, 3), (3,)])
def test_an_empty_batch_does_not_change_the_statistics(shape, dtype):
    layer = BatchNormalization(dtype=dtype)
    layer.build((None, *shape))
    layer.moving_mean.assign([1.0, 2.0, 3.0])
    before = layer.get_weights()
    x = tf.zeros([0, *shape], layer.compute_dtype)
    with tf.GradientTape() as tape:
        y = layer(x, training=True)
    assert y.shape == x.shape
    for gradient in tape.gradient(y, [layer.gamma, layer.beta]):
        np.testing.assert_array_equal(gradient, np.zeros(3))
    for weight, value in zip(layer.weights, before, strict=True):
        np.testing.assert_allclose(weight, value, rtol=1e-6)


def test_of_flat_inputs_a_training_step_is_that_of_keras():
    x = tf.random.stateless_normal((6, 3), (1, 2))
    results = []
    for kind in (BatchNormalization, keras.layers.BatchNormalization):
        layer = kind(momentum=0.7)
        results.append([layer(x, training=True), layer(x), *layer.weights])
    for got, expected in zip(*results, strict=True):
        np.testing.assert_array_equal(got, expected)
