"""The loop of fixed depth."""

import numpy as np
import pytest
import tensorflow as tf

from keras_iterconv.unrolling import Status, unroll_fixed


@pytest.mark.parametrize("max_unroll", [1, 2, 7])
@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_makes_every_update_once_and_in_order(max_unroll, mode):
    rng = np.random.default_rng(0)
    shifts, x = rng.normal(size=(7, 3)), rng.normal(size=(2, 3))
    expected = x
    for k in range(max_unroll):
        expected = expected + np.tanh(expected) * shifts[k]

    def run(state):
        stack = tf.constant(shifts)
        return unroll_fixed(lambda state, k: tf.tanh(state) * stack[k], state, max_unroll)

    state, depth, status = (tf.function(run) if mode == "graph" else run)(tf.constant(x))
    np.testing.assert_allclose(state, expected, rtol=1e-12)
    np.testing.assert_array_equal(depth, [max_unroll] * 2)
    np.testing.assert_array_equal(status, [Status.MAX_UNROLL] * 2)
    assert state.dtype == tf.float64
    assert depth.dtype == status.dtype == tf.int32


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("max_unroll", [1, 3])
def test_reports_what_is_not_finite(bad, max_unroll):
    x = np.ones((3, 2, 2, 2), np.float32)
    x[1, 0, 1, 1] = bad
    state, depth, status = unroll_fixed(lambda x, k: 0.5 * x, tf.constant(x), max_unroll)
    np.testing.assert_array_equal(status, [1, Status.NOT_FINITE, 1])
    np.testing.assert_array_equal(depth, [max_unroll] * 3)
    np.testing.assert_allclose(np.asarray(state)[[0, 2]], 1.5**max_unroll)


def test_overflow_on_the_way_is_reported():
    x = tf.constant([[1.0, 1.0], [1.0, 1e-30]])
    _, _, status = unroll_fixed(lambda x, k: x * tf.constant([1e-30, 1e9]), x, 6)
    np.testing.assert_array_equal(status, [Status.NOT_FINITE, Status.MAX_UNROLL])


def test_states_of_one_number():
    state, _, status = unroll_fixed(lambda x, k: -0.5 * x, tf.constant([8.0, np.nan]), 2)
    assert state[0] == 2
    np.testing.assert_array_equal(status, [1, 2])


def test_gradient_agrees_with_finite_differences():
    rng = np.random.default_rng(0)
    W, x, g = rng.normal(size=(3, 3)), rng.normal(size=(2, 3)), rng.normal(size=(2, 3))

    def loss(W, x):
        for _ in range(5):
            x = x + 0.3 * np.tanh(x @ W)
        return (g * x).sum()

    tensors = tf.constant(W), tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        end = unroll_fixed(lambda s, k: 0.3 * tf.tanh(s @ tensors[0]), tensors[1], 5)
        value = tf.reduce_sum(g * end.state)
    dW, dx = tape.gradient(value, tensors)
    dW, dx = dW.numpy(), dx.numpy()
    assert float(value) == pytest.approx(loss(W, x), rel=1e-12)
    step = 1e-6
    for index in np.ndindex(3, 3):
        e = np.zeros((3, 3))
        e[index] = step
        slope = (loss(W + e, x) - loss(W - e, x)) / (2 * step)
        assert dW[index] == pytest.approx(slope, abs=1e-8)
    for index in np.ndindex(2, 3):
        e = np.zeros((2, 3))
        e[index] = step
        slope = (loss(W, x + e) - loss(W, x - e)) / (2 * step)
        assert dx[index] == pytest.approx(slope, abs=1e-8)
