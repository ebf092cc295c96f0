"""The loop of fixed depth."""

import numpy as np
import pytest
import tensorflow as tf

from keras_iterconv.unrolling import ACTIVATIONS, EulerUpdate, Status, unroll_fixed
from keras_iterconv.unrolling.euler_update import IDENTITY


def plain(increment, dtype=tf.float32):
    """Return the update that adds `increment(state, k)`."""
    update = EulerUpdate(lambda x, k, weights, drives: increment(x, k), IDENTITY, dtype=dtype)
    return update.bind()


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
        update = plain(lambda state, k: tf.tanh(state) * stack[k], tf.float64)
        return unroll_fixed(update, state, max_unroll)

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
    state, depth, status = unroll_fixed(plain(lambda x, k: 0.5 * x), tf.constant(x), max_unroll)
    np.testing.assert_array_equal(status, [1, Status.NOT_FINITE, 1])
    np.testing.assert_array_equal(depth, [max_unroll] * 3)
    np.testing.assert_allclose(np.asarray(state)[[0, 2]], 1.5**max_unroll)


def test_overflow_on_the_way_is_reported():
    x = tf.constant([[1.0, 1.0], [1.0, 1e-30]])
    update = plain(lambda x, k: x * tf.constant([1e-30, 1e9]))
    _, _, status = unroll_fixed(update, x, 6)
    np.testing.assert_array_equal(status, [Status.NOT_FINITE, Status.MAX_UNROLL])


def test_states_of_one_number():
    state, _, status = unroll_fixed(plain(lambda x, k: -0.5 * x), tf.constant([8.0, np.nan]), 2)
    assert state[0] == 2
    np.testing.assert_array_equal(status, [1, 2])


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16])
def test_states_of_half_precision(dtype):
    state, depth, status = unroll_fixed(
        plain(lambda x, k: -0.5 * x, dtype), tf.constant([[8.0], [np.nan]], dtype), 2
    )
    assert state.dtype == dtype
    assert float(state[0, 0]) == 2
    np.testing.assert_array_equal(depth, [2, 2])
    np.testing.assert_array_equal(status, [Status.MAX_UNROLL, Status.NOT_FINITE])


def test_a_wide_state_adds_up_updates_of_half_precision():
    # 1 + 2^-12 is 1 in float16 and bfloat16; the state of float32 keeps each.
    update = EulerUpdate(
        lambda x, k, w, d: tf.ones_like(x, tf.bfloat16), IDENTITY, 2.0**-12, tf.bfloat16
    ).bind()
    state, _, _ = unroll_fixed(update, tf.ones([2, 3]), 16)
    assert state.dtype == tf.float32
    np.testing.assert_array_equal(state, np.full([2, 3], 1 + 2.0**-8))


def test_empty_batch():
    state, depth, status = unroll_fixed(plain(lambda x, k: -0.5 * x), tf.zeros([0, 3]), 4)
    assert state.shape == (0, 3)
    assert depth.shape == status.shape == (0,)


@pytest.mark.parametrize("scalar", ["int", "tensor", "variable"])
def test_the_number_of_updates_may_be_a_tensor(scalar):
    number = {"int": 3, "tensor": tf.constant(3), "variable": tf.Variable(3)}[scalar]
    update = plain(lambda x, k: -0.5 * x)
    call = tf.function(lambda x: unroll_fixed(update, x, tf.convert_to_tensor(number)))
    state, depth, _ = call(tf.constant([[8.0]]))
    assert state[0, 0] == 1
    np.testing.assert_array_equal(depth, [3])
    if scalar == "variable":
        number.assign(2)
        state, depth, _ = call(tf.constant([[8.0]]))
        assert state[0, 0] == 2
        np.testing.assert_array_equal(depth, [2])


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_gradient_agrees_with_finite_differences(mode):
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=shape) for shape in ((3, 3), (2, 3), (2, 3))]
    g = rng.normal(size=(2, 3))

    def loss(W, x, u):
        for _ in range(5):
            x = x + 0.3 * np.tanh(x @ W + u)
        return (g * x).sum()

    def gradients(W, x, u):
        with tf.GradientTape() as tape:
            tape.watch((W, x, u))
            update = EulerUpdate(
                lambda s, k, weights, drives: s @ weights[0] + drives[0],
                ACTIVATIONS["tanh"], 0.3, tf.float64,
            ).bind((W,), (u,))  # fmt: skip
            value = tf.reduce_sum(g * unroll_fixed(update, x, 5).state)
        return value, tape.gradient(value, (W, x, u))

    compute = tf.function(gradients) if mode == "graph" else gradients
    value, got = compute(*(tf.constant(array) for array in arrays))
    assert float(value) == pytest.approx(loss(*arrays), rel=1e-12)
    step = 1e-6
    for array, gradient in zip(arrays, got, strict=True):
        for index in np.ndindex(array.shape):
            middle = array[index]
            array[index] = middle + step
            above = loss(*arrays)
            array[index] = middle - step
            below = loss(*arrays)
            array[index] = middle
            slope = (above - below) / (2 * step)
            assert gradient[index].numpy() == pytest.approx(slope, abs=1e-8)
