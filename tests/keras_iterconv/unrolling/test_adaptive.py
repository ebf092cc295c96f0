"""The loop in which each sample stops by itself."""

import numpy as np
import pytest
import tensorflow as tf

from keras_iterconv.unrolling import ACTIVATIONS, EulerUpdate, Status, unroll_adaptive
from keras_iterconv.unrolling.euler_update import IDENTITY

MODES = ("eager", "graph")


def halve(x, k):
    return -0.5 * x


def halve_down_to_one(x, k):
    return tf.where(x > 1, -0.5 * x, tf.zeros_like(x))


def plain(increment, dtype):
    """Return the update that adds `increment(state, k)`."""
    update = EulerUpdate(lambda x, k, weights, drives: increment(x, k), IDENTITY, dtype=dtype)
    return update.bind()


def run(increment, x, max_unroll, threshold, mode="eager"):
    def call(x):
        return unroll_adaptive(plain(increment, x.dtype), x, max_unroll, threshold)

    return (tf.function(call) if mode == "graph" else call)(tf.constant(x))


@pytest.mark.parametrize("mode", MODES)
def test_depth_counts_the_update_that_fell_below(mode):
    # Updates of 2^-1, 2^-2, ... : under 0.1 for the first time at 2^-4.
    state, depth, status = run(halve, np.array([[1.0], [1024.0], [0.1], [0.0]]), 10, 0.1, mode)
    np.testing.assert_array_equal(depth, [4, 10, 1, 1])
    np.testing.assert_array_equal(status, [0, 1, 0, 0])
    np.testing.assert_array_equal(state[:, 0], [2.0**-4, 1.0, 0.05, 0.0])


def test_an_update_of_the_threshold_itself_is_not_below():
    _, depth, _ = run(halve, np.array([[1.0]]), 10, 0.25)
    np.testing.assert_array_equal(depth, [3])
    # 0.1 of float64, and not of float32, which is larger.
    _, depth, _ = run(halve, np.array([[0.2]]), 10, 0.1)
    np.testing.assert_array_equal(depth, [2])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("threshold", [1e-39, 1e-310, 5e-324, np.float32(1e-45)])
@pytest.mark.parametrize("mode", MODES)
def test_no_update_is_below_every_positive_threshold(mode, threshold, dtype):
    x = np.array([[1.0], [4.0]], dtype)
    threshold = tf.constant(threshold, getattr(threshold, "dtype", "float64"))
    state, depth, status = run(halve_down_to_one, x, 7, threshold, mode)
    np.testing.assert_array_equal(depth, [1, 3])
    np.testing.assert_array_equal(status, [0, 0])
    np.testing.assert_array_equal(state, [[1], [1]])


@pytest.mark.parametrize("mode", MODES)
def test_no_update_is_below_a_threshold_of_zero(mode):
    _, depth, status = run(halve_down_to_one, np.ones((1, 1), np.float32), 7, 0.0, mode)
    np.testing.assert_array_equal(depth, [7])
    np.testing.assert_array_equal(status, [1])


def test_converging_at_the_last_update_is_converging():
    _, depth, status = run(halve, np.array([[1.0]]), 4, 0.1)
    np.testing.assert_array_equal(depth, [4])
    np.testing.assert_array_equal(status, [Status.CONVERGED])


def test_the_norm_is_that_of_the_samples_whole_state():
    # 2^-k * sqrt(48) over 4 x 4 x 3 numbers; for the largest of them the count would be 4.
    _, depth, _ = run(halve, np.ones((2, 4, 4, 3)), 20, 0.1)
    np.testing.assert_array_equal(depth, [7, 7])


@pytest.mark.parametrize("mode", MODES)
def test_random_samples_against_a_loop_over_each(mode):
    rng = np.random.default_rng(0)
    W = 0.5 * rng.normal(size=(6, 4, 4)) - np.eye(4)
    x = rng.normal(size=(20, 4)) * np.logspace(-3, 1, 20)[:, None]
    expected, depths, statuses = x.copy(), [], []
    for n in range(20):
        for k in range(6):
            change = 0.5 * np.tanh(expected[n] @ W[k])
            expected[n] += change
            if np.linalg.norm(change) < 0.1:
                break
        depths.append(k + 1)
        statuses.append(0 if np.linalg.norm(change) < 0.1 else 1)
    assert len(set(depths)) > 3
    stack = tf.constant(W)
    state, depth, status = run(lambda s, k: 0.5 * tf.tanh(s @ stack[k]), x, 6, 0.1, mode)
    np.testing.assert_allclose(state, expected, rtol=1e-12)
    np.testing.assert_array_equal(depth, depths)
    np.testing.assert_array_equal(status, statuses)
    assert depth.dtype == status.dtype == tf.int32


def test_the_loop_ends_with_the_last_sample_that_moves():
    calls = []

    def count(x, k):
        calls.append(int(k))
        return -0.5 * x

    run(count, np.array([[1.0], [4.0]]), 100, 0.1)
    assert calls == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("mode", MODES)
def test_a_bad_sample_stops_and_the_others_go_on(bad, mode):
    x = np.array([[1.0, 1.0], [bad, 1.0], [8.0, 8.0]])
    state, depth, status = run(halve, x, 20, 0.1, mode)
    alone, alone_depth, _ = run(halve, x[[0, 2]], 20, 0.1, mode)
    np.testing.assert_array_equal(status, [0, Status.NOT_FINITE, 0])
    np.testing.assert_array_equal(np.asarray(depth)[[0, 2]], alone_depth)
    np.testing.assert_array_equal(np.asarray(state)[[0, 2]], alone)
    assert depth[1] == 1


@pytest.mark.parametrize("max_unroll", [1, 5])
def test_an_update_without_a_norm_is_reported(max_unroll):
    # Every number is finite in float32, the square of the update is not.
    _, depth, status = run(lambda x, k: 1e25 * x, np.ones((1, 2), np.float32), max_unroll, 0.1)
    np.testing.assert_array_equal(status, [Status.NOT_FINITE])
    np.testing.assert_array_equal(depth, [1])


def test_a_stopped_sample_is_safe_from_its_later_updates():
    # The second update of any sample would be infinite; those that stop before it never see it.
    def increment(x, k):
        return tf.where(k == 0, -x, tf.constant(np.inf, x.dtype))

    state, depth, status = run(increment, np.array([[1e-3], [1.0]]), 5, 0.1)
    np.testing.assert_array_equal(depth, [1, 2])
    np.testing.assert_array_equal(status, [Status.CONVERGED, Status.NOT_FINITE])
    assert state[0, 0] == 0


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16])
def test_norms_of_half_precision_are_taken_in_float32(dtype):
    # Squares of 5e-5 are zero in float16, and 10^4 of them lose most of their sum in bfloat16.
    x = tf.cast(tf.fill([1, 10_000], 1e-4), dtype)
    _, depth, status = unroll_adaptive(plain(halve, dtype), x, 1, 4e-3)
    np.testing.assert_array_equal(status, [Status.MAX_UNROLL])
    _, depth, status = unroll_adaptive(plain(halve, dtype), x, 2, 6e-3)
    np.testing.assert_array_equal(status, [Status.CONVERGED])
    np.testing.assert_array_equal(depth, [1])


def test_states_of_one_number():
    state, depth, status = run(halve, np.array([1.0, np.nan, 1024.0]), 10, 0.1)
    np.testing.assert_array_equal(depth, [4, 1, 10])
    np.testing.assert_array_equal(status, [0, 2, 1])
    np.testing.assert_array_equal(state, [2.0**-4, np.nan, 1.0])


@pytest.mark.parametrize("mode", MODES)
def test_empty_batch(mode):
    state, depth, status = run(halve, np.zeros((0, 3)), 4, 0.1, mode)
    assert state.shape == (0, 3)
    assert depth.shape == status.shape == (0,)


@pytest.mark.parametrize("mode", MODES)
def test_gradient_agrees_with_finite_differences(mode):
    rng = np.random.default_rng(0)
    W = rng.normal(size=(3, 3))
    W = -W @ W.T / 4 - 0.2 * np.eye(3)
    x, g = rng.normal(size=(3, 3)) * [[0.1], [1], [30]], rng.normal(size=(3, 3))

    def loss(W, x):
        total = 0.0
        for n in range(3):
            state = x[n]
            for _ in range(8):
                change = np.tanh(state @ W)
                state = state + change
                if np.linalg.norm(change) < 0.2:
                    break
            total += (g[n] * state).sum()
        return total

    def gradients(W, x):
        with tf.GradientTape() as tape:
            tape.watch((W, x))
            update = EulerUpdate(
                lambda s, k, weights, drives: s @ weights[0], ACTIVATIONS["tanh"], dtype=tf.float64
            ).bind((W,))
            end = unroll_adaptive(update, x, 8, 0.2)
            value = tf.reduce_sum(g * end.state)
        return value, end.depth, tape.gradient(value, (W, x))

    compute = tf.function(gradients) if mode == "graph" else gradients
    value, depth, (dW, dx) = compute(tf.constant(W), tf.constant(x))
    assert len(set(np.asarray(depth))) == 3
    dW, dx = dW.numpy(), dx.numpy()
    assert float(value) == pytest.approx(loss(W, x), rel=1e-12)
    step = 1e-6
    for index in np.ndindex(3, 3):
        e = np.zeros((3, 3))
        e[index] = step
        slope = (loss(W + e, x) - loss(W - e, x)) / (2 * step)
        assert dW[index] == pytest.approx(slope, abs=1e-7, rel=1e-7)
        slope = (loss(W, x + e) - loss(W, x - e)) / (2 * step)
        assert dx[index] == pytest.approx(slope, abs=1e-7, rel=1e-7)


@pytest.mark.parametrize("mode", MODES)
def test_a_limit_that_no_sample_reaches_costs_no_memory(mode):
    # Room for as many values would be more than a machine has.
    def differentiate(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            end = unroll_adaptive(plain(halve, x.dtype), x, 2**31 - 1, 0.3, gradient="unroll")
        return end.depth, tape.gradient(end.state, x)

    depth, gradient = (tf.function(differentiate) if mode == "graph" else differentiate)(
        tf.constant([[1.0], [4.0]])
    )
    np.testing.assert_array_equal(depth, [2, 4])
    np.testing.assert_array_equal(gradient, [[0.25], [0.0625]])
