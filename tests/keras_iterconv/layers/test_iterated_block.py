"""What the blocks share: trajectories, initial states, adaptive depth, samples apart, precision."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_iterconv.unrolling import Status

KINDS = ("dense", "conv")

# A norm of the Jacobian well under one, so that adaptive depth ends within a few updates.
FAST = {
    "dense": {"shift": 0.3, "step_size": 1.0},
    "conv": {"margin": 0.3, "center_margin": 0.5},
}


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def scaled(inputs, scales):
    """Multiply each sample by a number of its own."""
    return (inputs * np.reshape(scales, (-1, *[1] * (inputs.ndim - 1)))).astype(np.float32)


def bias_of(layer):
    return layer.b if hasattr(layer, "b") else layer.E


def unroll(double_of_update, layer, u, x, threshold=None):
    """Run a block as a NumPy loop over updates and samples; return states, depths, statuses."""
    x, u = np.array(x, np.float64), np.array(u, np.float64)
    depths, statuses = [], []
    for n in range(len(x)):
        depth, status = 0, Status.MAX_UNROLL
        while depth < layer.max_unroll and status == Status.MAX_UNROLL:
            double = double_of_update[0 if layer.tied else depth]
            change = double.change(x[n : n + 1], u[n : n + 1])[0]
            x[n] += change
            depth += 1
            if threshold is not None and np.linalg.norm(change) < threshold:
                status = Status.CONVERGED
        depths.append(depth)
        statuses.append(status)
    return x, depths, statuses


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("initial_state", ["zeros", "input"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("step_size", [0.3, 1])
def test_trajectory_is_that_of_a_numpy_loop(
    kind, activation, initial_state, tied, step_size,
    make_block, make_inputs, set_weights, numpy_double,
):  # fmt: skip
    layer = make_block(
        kind, activation=activation, initial_state=initial_state, tied=tied, step_size=step_size
    )
    u = make_inputs(kind)
    set_weights(layer, u, "random")
    start = u if initial_state == "input" else np.zeros_like(u)
    doubles = [numpy_double(layer, k) for k in range(1 if tied else 5)]
    expected, _, _ = unroll(doubles, layer, u, start)
    assert np.abs(expected - start).max() > 0.1
    np.testing.assert_allclose(layer(u), expected, atol=1e-5)

    own, x = start, start.astype(np.float64)
    for k in range(5):
        own = layer.update(own, u, k)
        x = x + doubles[0 if tied else k].change(x, u)
        np.testing.assert_allclose(own, x, atol=1e-5)


def test_zero_start_takes_inputs_of_other_channels(
    kind, make_block, make_inputs, set_weights, numpy_double
):
    layer = make_block(kind, initial_state="zeros")
    u = make_inputs(kind, channels=2)
    set_weights(layer, u, "random")
    expected, _, _ = unroll([numpy_double(layer)], layer, u, np.zeros((*u.shape[:-1], 6)))
    np.testing.assert_allclose(layer(u), expected, atol=1e-5)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("tied", [True, False])
def test_adaptive_depth_is_that_of_a_numpy_loop(
    kind, activation, tied, make_block, make_inputs, set_weights, numpy_double
):
    layer = make_block(
        kind, max_unroll=12, threshold=2e-3, activation=activation, tied=tied, **FAST[kind]
    )
    u = scaled(make_inputs(kind, 8), np.logspace(-5, -0.5, 8))
    set_weights(layer, u, "random")
    # Without a bias the updates are as small as the inputs: some samples stop at once, some never.
    bias_of(layer).assign(tf.zeros_like(bias_of(layer)))
    start = u if layer.initial_state == "input" else np.zeros_like(u)
    doubles = [numpy_double(layer, k) for k in range(1 if tied else 12)]
    expected, depths, statuses = unroll(doubles, layer, u, start, threshold=2e-3)
    assert min(depths) == 1 < 6 < max(depths)
    state, depth, status = layer(u, return_depth=True)
    np.testing.assert_allclose(state, expected, atol=1e-5)
    np.testing.assert_array_equal(depth, depths)
    np.testing.assert_array_equal(status, statuses)
    assert depth.dtype == status.dtype == tf.int32


def test_fixed_depth_reports_itself(kind, make_block, make_inputs):
    u = make_inputs(kind, 4)
    state, depth, status = make_block(kind, max_unroll=3)(u, return_depth=True)
    assert state.shape == u.shape
    np.testing.assert_array_equal(depth, [3] * 4)
    np.testing.assert_array_equal(status, [Status.MAX_UNROLL] * 4)


# A graph too: only there is a ReLU fused with its convolution, and such a ReLU drops a NaN.
@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("initial_state", ["zeros", "input"])
@pytest.mark.parametrize("threshold", [None, 1e-3])
@pytest.mark.parametrize(("activation", "tied"), [("relu", True), ("relu", False), ("tanh", True)])
def test_a_sample_that_is_not_finite_is_reported_and_does_not_change_others(
    kind, mode, initial_state, threshold, activation, tied, make_block, make_inputs, set_weights
):  # fmt: skip
    layer = make_block(
        kind, initial_state=initial_state, threshold=threshold, activation=activation, tied=tied
    )
    clean = make_inputs(kind, 5)
    set_weights(layer, clean, "random")
    run = lambda u: layer(u, return_depth=True)  # noqa: E731
    if mode == "graph":
        run = tf.function(run, reduce_retracing=True)
    expected = run(clean)
    u = clean.copy()
    u[1] = np.nan
    u[2].flat[3] = np.nan
    u[3].flat[0] = -np.inf
    state, depth, status = run(u)
    np.testing.assert_array_equal(np.asarray(status)[1:4], [Status.NOT_FINITE] * 3)
    assert not np.isfinite(np.asarray(state)[1:4]).all(axis=tuple(range(1, u.ndim))).any()
    others = [0, 4]
    np.testing.assert_allclose(
        np.asarray(state)[others], np.asarray(expected.state)[others], atol=1e-6
    )
    np.testing.assert_array_equal(np.asarray(depth)[others], np.asarray(expected.depth)[others])
    np.testing.assert_array_equal(np.asarray(status)[others], np.asarray(expected.status)[others])


@pytest.mark.parametrize("threshold", [None, 1e-3])
def test_empty_batch(kind, threshold, make_block, make_inputs):
    state, depth, status = make_block(kind, threshold=threshold)(
        make_inputs(kind, 0), return_depth=True
    )
    assert state.shape[0] == depth.shape[0] == status.shape[0] == 0


@pytest.mark.parametrize(
    ("policy", "epsilon"), [("mixed_float16", 2**-10), ("mixed_bfloat16", 2**-7)]
)
def test_mixed_precision(kind, policy, epsilon, make_block, make_inputs, set_weights, numpy_double):
    layer = make_block(kind, dtype=policy, threshold=0.05, max_unroll=40, **FAST[kind])
    u = make_inputs(kind, 4)
    set_weights(layer, u, "random")
    assert {w.dtype for w in layer.weights} == {"float32"}
    state, depth, _ = layer(u, return_depth=True)
    assert state.dtype == layer.compute_dtype
    start = u if layer.initial_state == "input" else np.zeros_like(u)
    expected, depths, _ = unroll([numpy_double(layer)], layer, u, start, threshold=0.05)
    # Inputs, weights and activations are rounded, with errors as large as the largest terms of
    # their sums; the contraction keeps them from growing along the loop.
    np.testing.assert_allclose(
        np.asarray(state, np.float32), expected, atol=2 * epsilon * np.abs(expected).max()
    )
    assert max(depths) < 40
    assert np.abs(np.asarray(depth) - depths).max() <= 1


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_state_of_mixed_precision_is_summed_in_float32(kind, policy, make_block, make_inputs):
    layer = make_block(kind, dtype=policy, initial_state="input", step_size=0.02, max_unroll=50)
    u = np.ones_like(make_inputs(kind))
    layer.build(u.shape)
    for weight in layer.weights:
        weight.assign(tf.zeros_like(weight))
    # Each update adds h sigma(b - x) or h sigma(b - shift x), about 0.001: half precision would
    # round each away from a state of one.
    bias = bias_of(layer)
    bias.assign(tf.fill(bias.shape, 0.06 if kind == "dense" else 1.05))
    shift = layer.shift if kind == "dense" else 1.0
    x = 1.0
    for _ in range(50):
        x += 0.02 * (bias.numpy()[0] - shift * x)
    assert x > 1.03
    np.testing.assert_allclose(np.asarray(layer(u), np.float32), x, atol=2**-7)


def test_dtypes_of_a_float64_block(kind, make_block, make_inputs):
    layer = make_block(kind, dtype="float64", threshold=1e-3)
    assert layer(make_inputs(kind)).dtype == tf.float64
    assert {w.dtype for w in layer.weights} == {"float64"}


@pytest.mark.parametrize("tied", [True, False])
def test_initial_weights_satisfy_the_bound(kind, tied, make_block, make_inputs, excess):
    # GlorotUniform alone would pass both bounds.
    layer = make_block(kind, tied=tied)
    layer.build(make_inputs(kind).shape)
    assert excess(layer) < 1e-6
    if not tied:
        first, second = (layer.R if kind == "dense" else layer.C).numpy()[:2]
        assert np.abs(first - second).max() > 0.01


@pytest.mark.parametrize("return_depth", [False, True])
def test_symbolic_shapes_are_those_of_a_call(kind, return_depth, make_block, make_inputs):
    layer = make_block(kind, initial_state="zeros")
    u = make_inputs(kind, channels=2)
    symbolic = layer(keras.Input(u.shape[1:]), return_depth=return_depth)
    actual = layer(u, return_depth=return_depth)
    for s, a in zip(keras.tree.flatten(symbolic), keras.tree.flatten(actual), strict=True):
        assert s.shape == (None, *a.shape[1:])
        assert s.dtype == a.dtype.name
    assert layer.compute_output_shape(u.shape) == (*u.shape[:-1], 6)
