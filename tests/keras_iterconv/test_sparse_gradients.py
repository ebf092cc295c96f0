"""Gradients that arrive as slices of a batch, equal to those that arrive dense."""

import numpy as np
import pytest
import tensorflow as tf

import keras_iterconv as ki
from keras_iterconv.layers.ordered_gradients import copies_with_ordered_gradient

SAMPLES = [0, 2]
LAYERS = {
    "fixed": lambda: ki.NAISDense(3, max_unroll=2, step_size=0.5),
    "recompute": lambda: ki.NAISDense(3, max_unroll=2, step_size=0.5, gradient="recompute"),
    "frozen": lambda: ki.NAISDense(3, max_unroll=2, step_size=0.5, gradient="frozen"),
    "implicit": lambda: ki.NAISDense(3, activation="tanh", gradient="implicit"),
    "adaptive": lambda: ki.NAISDense(3, threshold=0.1, step_size=0.5),
    "anderson": lambda: ki.NAISDense(3, threshold=0.1, activation="tanh", solver="anderson"),
    "stage, recompute": lambda: ki.ResidualStage(3, 2, gradient="recompute"),
    "pcr stage, recompute": lambda: ki.ResidualStage(3, 2, "stage_input", gradient="recompute"),
}


CHOICES = {
    "dense": lambda state: tf.stack([state[n] for n in SAMPLES]),
    "gather": lambda state: tf.gather(state, SAMPLES),
}


@pytest.mark.parametrize("name", LAYERS)
def test_gathered_samples_give_the_gradient_of_dense_ones(name):
    layer = LAYERS[name]()
    shape = (3, 2, 2, 3) if "stage" in name else (3, 3)
    inputs = tf.random.stateless_normal(shape, (1, 2))
    layer.build(inputs.shape)

    def differentiate(inputs, choose):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            chosen = choose(layer(inputs, training=name != "anderson"))
            # Squares, so that the gradient differs from sample to sample.
            loss = tf.reduce_sum(chosen**2)
        return tape.gradient(loss, [inputs, *layer.trainable_variables])

    results = []
    for choose in CHOICES.values():
        graph = tf.function(lambda inputs, choose=choose: differentiate(inputs, choose))
        graph = graph.get_concrete_function(tf.TensorSpec([None, *shape[1:]]))
        results.append(graph(inputs))
    if name == "fixed":
        results.append(differentiate(inputs, CHOICES["gather"]))
    for result in results[1:]:
        for got, expected in zip(result, results[0], strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_copies_add_up_slices():
    value = tf.constant([[1.0], [2.0], [3.0]])
    with tf.GradientTape() as tape:
        tape.watch(value)
        first, second, _ = copies_with_ordered_gradient(value, 3)
        loss = tf.reduce_sum(tf.gather(first, SAMPLES)) + 10 * tf.reduce_sum(second)
    np.testing.assert_array_equal(tape.gradient(loss, value), [[11.0], [10.0], [11.0]])
