"""Parts of a batch at the same time give what a NumPy loop gives for each sample alone."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_iterconv as ki
from keras_iterconv._support.empty_batches import only_full_batches
from keras_iterconv.unrolling import parts, unroll_traced
from tests.support.builders import (
    inputs_for,
    make_block,
    make_inputs,
    make_ready,
    set_weights,
    two_replicas,
)

SCALES = [1e-3, 1.0, 30.0, 1e-6, 0.1, 5.0, 1e-2]


def in_a_graph(call):
    """Return what a function returns within a graph whose values are not used."""
    found = []
    tf.function(lambda: found.append(call()), autograph=False).get_concrete_function()
    return found[0]


@pytest.fixture
def three_parts(monkeypatch):
    monkeypatch.setattr(parts, "parallel_parts", lambda: 3)


@pytest.fixture
def one_thread(monkeypatch):
    threading = tf.config.threading
    monkeypatch.setattr(threading, "get_intra_op_parallelism_threads", lambda: 1)
    monkeypatch.setattr(threading, "get_inter_op_parallelism_threads", lambda: 6)


def unroll(problem, threshold, count=None):
    """Return the result of a loop of a problem, and the gradients of the sum of the states."""

    @tf.function
    def run(x, u, W):
        bound = problem.update((W,), u)
        with tf.GradientTape() as tape:
            tape.watch((x, u, W))
            unrolled = unroll_traced(bound, x, problem.updates, threshold, "unroll")
            total = tf.reduce_sum(unrolled.state)
        return unrolled, tape.gradient(total, (x, u, W))

    spec = tf.TensorSpec([count, problem.x.shape[1]], tf.float64)
    W = tf.constant(problem.weights[0])
    return run.get_concrete_function(spec, spec, tf.TensorSpec(W.shape, W.dtype))(
        tf.constant(problem.x), tf.constant(problem.u), W
    )


@pytest.mark.parametrize("threshold", [None, 1e-3])
@pytest.mark.parametrize("samples", [1, 2, 3, 7])
@pytest.mark.parametrize("known_size", [True, False])
def test_states_and_depths_are_those_of_each_sample_alone(
    three_parts, make_problem, threshold, samples, known_size
):
    problem = make_problem(SCALES[:samples])
    states, depths = problem.all_alone(threshold)
    unrolled, _ = unroll(problem, threshold, samples if known_size else None)
    np.testing.assert_allclose(unrolled.state, states, rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(unrolled.depth, depths)


@pytest.mark.parametrize("threshold", [None, 1e-3])
def test_gradients_are_those_of_finite_differences(three_parts, make_problem, threshold):
    problem = make_problem(SCALES)
    _, gradients = unroll(problem, threshold)
    # The tensors in the order of `Problem.alone`: the state, the weights, the drive.
    dx, du, dW = (np.array(gradient) for gradient in gradients)
    operands, found = problem.operands, [dx, dW, du]
    rng = np.random.default_rng(1)
    steps = [rng.normal(size=operand.shape) for operand in operands]

    def total(distance):
        moved = [z + distance * step for z, step in zip(operands, steps, strict=True)]
        return sum(problem.alone(n, threshold, moved)[0].sum() for n in range(len(SCALES)))

    expected = (total(1e-6) - total(-1e-6)) / 2e-6
    slope = sum(np.sum(step * gradient) for step, gradient in zip(steps, found, strict=True))
    np.testing.assert_allclose(slope, expected, rtol=1e-7)


def test_an_empty_batch_stays_empty(three_parts, make_problem):
    unrolled, gradients = unroll(make_problem([]), 1e-3)
    assert unrolled.state.shape == (0, 4)
    assert unrolled.depth.shape == (0,)
    assert not np.any(gradients[2])


@pytest.mark.parametrize("kind", ["conv", "dense"])
def test_a_block_has_the_same_result_in_parts(kind, request):
    u = inputs_for(make_inputs, kind, samples=5)
    block = make_ready(make_block, set_weights, kind, u, threshold=0.05)
    alone = [block(u[n : n + 1], return_depth=True) for n in range(5)]
    request.getfixturevalue("three_parts")
    together = tf.function(lambda u: block(u, return_depth=True))(u)
    for name in ("state", "depth", "status"):
        expected = np.concatenate([getattr(each, name) for each in alone])
        np.testing.assert_allclose(getattr(together, name), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("stop", [None, "norm", "prediction"])
def test_any_update_has_the_same_result_in_parts(stop, request):
    """With padding, which is divided too, and a rule that reads a prediction out."""
    keras.utils.set_random_seed(0)
    pool = keras.layers.GlobalAveragePooling1D()
    rules = {
        "norm": ki.stop.UpdateNorm(0.05),
        "prediction": ki.stop.StablePrediction(keras.Sequential([pool, keras.layers.Dense(3)]), 3),
    }
    layer = ki.Iterate(keras.layers.Dense(4, activation="tanh"), 20, rules.get(stop))
    ends = (6, 4, 3, 5, 2)
    mask = np.arange(6) < np.array(ends)[:, None]
    scale = np.array([5.0, 1e-3, 0.1, 1.0, 1e-6])[:, None, None]
    x = np.random.default_rng(0).normal(size=(5, 6, 4)) * scale
    x = np.where(mask[..., None], x, 99.0).astype(np.float32)
    alone = [
        layer(x[n : n + 1, :end], mask=tf.ones((1, end), bool), return_depth=True)
        for n, end in enumerate(ends)
    ]
    request.getfixturevalue("three_parts")
    run = tf.function(lambda x, mask: layer(x, mask=mask, return_depth=True), autograph=False)
    together = run(tf.constant(x), tf.constant(mask))
    for n, end in enumerate(ends):
        np.testing.assert_allclose(together.state[n, :end], alone[n].state[0], rtol=1e-5, atol=1e-6)
    depths = [int(each.depth[0]) for each in alone]
    np.testing.assert_array_equal(together.depth, depths)
    assert stop is None or len(set(depths)) > 1


def test_the_number_of_parts_is_that_of_operations_at_the_same_time(one_thread, monkeypatch):
    assert in_a_graph(parts.parallel_parts) == 6
    monkeypatch.setattr(tf.config.threading, "get_inter_op_parallelism_threads", lambda: 99)
    assert in_a_graph(parts.parallel_parts) == parts.MAX_PARTS


def test_replicas_share_the_threads(one_thread):
    with two_replicas().scope():
        assert in_a_graph(parts.parallel_parts) == 3


def test_there_is_one_part_where_parts_would_gain_nothing(one_thread, monkeypatch):
    # Eager operations run one after the other; a converted graph runs in another runtime.
    assert parts.parallel_parts() == 1
    with only_full_batches():
        assert in_a_graph(parts.parallel_parts) == 1
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: ["GPU:0"])
    assert in_a_graph(parts.parallel_parts) == 1
    monkeypatch.undo()
    assert in_a_graph(parts.parallel_parts) == 1
