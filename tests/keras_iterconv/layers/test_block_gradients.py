"""The gradients of the blocks, by mode, and the depth settings that may change after building."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_iterconv as ki
from keras_iterconv.unrolling import GRADIENTS, MODES
from keras_iterconv.unrolling.gradients.implicit import implicit_mode
from tests.support.builders import inputs_for, make_ready
from tests.support.comparisons import assert_near

KINDS = ("dense", "conv")
EXACT = ("unroll", "recompute")
POLICIES = {"float32": 2e-5, "mixed_bfloat16": 0.1, "mixed_float16": 0.015}


# Far from the bound, so that the blocks contract fast.
CONTRACTING = {
    "dense": {"shift": 0.3, "step_size": 0.7},
    "conv": {"margin": 0.3, "center_margin": 0.4, "step_size": 0.7},
}


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def twin(layer, **settings):
    """Return a block of the same weights and other settings."""
    other = type(layer).from_config({**layer.get_config(), **settings})
    other.build((None, *[3] * (layer.input_spec.ndim - 2), layer.input_spec.axes[-1]))
    other.set_weights(layer.get_weights())
    return other


def upstream(u):
    return np.random.default_rng(7).normal(size=u.shape)


def gradients(layer, u, training=True):
    """Return the depths, and the gradients of all weights and the inputs."""
    inputs = tf.constant(u, layer.variable_dtype)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        state, depth, _ = layer(inputs, training=training, return_depth=True)
        loss = tf.reduce_sum(upstream(u) * tf.cast(state, tf.float64))
    got = tape.gradient(loss, [*layer.trainable_variables, inputs])
    return depth.numpy(), [np.asarray(g, np.float64) for g in got]


def start(layer, inputs):
    return inputs if layer.initial_state == "input" else tf.zeros_like(inputs)


def updates_of(layer, x, u):
    """Yield the states after each update that a sample alone makes, by `layer.update`."""
    for k in range(layer.max_unroll):
        before, x = x, layer.update(x, u, k)
        yield k, x
        if layer.threshold is not None and np.linalg.norm(x - before) < layer.threshold:
            return


def tape_of_single_updates(layer, u):
    """Return what `gradients` does, from TensorFlow's derivative of updates one by one."""
    inputs, depths = tf.constant(u), []
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        loss = 0.0
        for n in range(len(u)):
            one = inputs[n : n + 1]
            for k, x in updates_of(layer, start(layer, one), one):  # noqa: B007
                pass
            depths.append(k + 1)
            loss += tf.reduce_sum(upstream(u)[n] * x)
    return depths, tape.gradient(loss, [*layer.trainable_variables, inputs])


def frozen_by_single_updates(layer, u):
    """Return the frozen gradients: the pull-back of each update at the last state, from g on.

    Slopes are those of tanh there; those of ReLU are 1 where the unroll has moved the state.
    """
    weights = layer.trainable_variables
    totals = [np.zeros(w.shape) for w in weights] + [np.zeros(u.shape)]
    for n in range(len(u)):
        one = tf.constant(u[n : n + 1])
        for k, last in updates_of(layer, start(layer, one), one):  # noqa: B007
            pass
        v = tf.constant(upstream(u)[n : n + 1])
        for j in reversed(range(k + 1)):
            with tf.GradientTape() as tape:
                tape.watch((last, one))
                update = layer.build_update(one).with_drives()
                transfer = update.update.transfer(
                    last, tf.constant(j), update.weights, update.drives
                )
            slopes = 1 - tf.tanh(transfer) ** 2
            if layer.activation == "relu":
                slopes = tf.cast(last > start(layer, one), v.dtype)
            dlast, dinputs, *parts = tape.gradient(
                transfer,
                [last, one, *weights],
                layer.step_size * slopes * v,
                unconnected_gradients="zero",
            )
            v += dlast
            for total, part in zip(totals, parts, strict=False):
                total += part.numpy()
            totals[-1][n] += dinputs[0]
        if layer.initial_state == "input":
            totals[-1][n] += v[0]
    return totals


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("threshold", [None, 0.05])
def test_gradients_of_each_mode(
    kind, activation, tied, threshold, make_block, make_inputs, set_weights
):
    u = inputs_for(make_inputs, kind).astype(np.float64)
    layer = make_ready(
        make_block, set_weights, kind, u, max_unroll=4, activation=activation, tied=tied,
        threshold=threshold, initial_state="input", dtype="float64", step_size=0.7,
    )  # fmt: skip
    depths, expected = tape_of_single_updates(layer, u)
    if threshold:
        assert len(set(depths)) > 1
    for mode in EXACT:
        depth, got = gradients(twin(layer, gradient=mode), u)
        np.testing.assert_array_equal(depth, depths)
        assert_near(got, expected, 1e-10)
    # Outside training the exact gradient is the same, though it is made otherwise.
    assert_near(gradients(layer, u, training=False)[1], expected, 1e-10)

    _, frozen = gradients(twin(layer, gradient="frozen"), u)
    assert_near(frozen, frozen_by_single_updates(layer, u), 1e-10)
    if activation == "tanh":
        assert max(np.abs(a - b).max() for a, b in zip(frozen, expected, strict=True)) > 1e-3


@pytest.mark.parametrize("initial_state", ["input", "zeros"])
@pytest.mark.parametrize("threshold", [None, 1e-7])
def test_implicit_at_convergence(
    kind, threshold, initial_state, make_block, make_inputs, set_weights
):
    u = 0.3 * make_inputs(kind, 3).astype(np.float64)
    layer = make_ready(
        make_block, set_weights, kind, u, max_unroll=150, activation="tanh", threshold=threshold,
        initial_state=initial_state, dtype="float64", **CONTRACTING[kind],
    )  # fmt: skip
    depth, exact = gradients(layer, u)
    if threshold:
        assert (depth < 150).all()
    _, got = gradients(twin(layer, gradient="implicit"), u)
    assert_near(got, exact, 1e-4)


@pytest.mark.parametrize(
    ("policy", "threshold"),
    [("float32", None), ("float32", 0.05), ("mixed_bfloat16", 0.05), ("mixed_float16", None)],
)
@pytest.mark.parametrize("tied", [True, False])
def test_gradients_in_every_precision(
    kind, policy, tied, threshold, make_block, make_inputs, set_weights, monkeypatch
):
    monkeypatch.setitem(MODES, "implicit", implicit_mode(terms=60))
    u = inputs_for(make_inputs, kind)
    layer = make_ready(
        make_block, set_weights, kind, u, max_unroll=4, activation="tanh", tied=tied,
        threshold=threshold, dtype=policy, **CONTRACTING[kind],
    )  # fmt: skip
    double = twin(layer, dtype="float64")
    for mode in GRADIENTS if tied else ("unroll", "recompute", "frozen"):
        depth, got = gradients(twin(layer, gradient=mode), u)
        expected_depth, expected = gradients(twin(double, gradient=mode), u)
        np.testing.assert_array_equal(depth, expected_depth)
        assert_near(got, expected, POLICIES[policy])
        if mode == "unroll":
            kept = got
        elif mode == "recompute":
            assert_near(got, kept, 1e-5)


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_untied_weights_beyond_the_depth_have_no_gradient(kind, gradient, make_block, make_inputs):
    if gradient == "implicit":
        pytest.skip("untied updates have no fixed point")
    u = inputs_for(make_inputs, kind)
    layer = make_block(kind, max_unroll=4, tied=False, gradient=gradient)
    layer(u)
    layer.max_unroll = 2
    _, got = gradients(layer, u)
    for gradient in got[:-1]:
        assert np.abs(gradient[:2]).max() > 0
        np.testing.assert_array_equal(gradient[2:], 0)


@pytest.mark.parametrize(("gradient", "threshold"), [("unroll", None), ("frozen", 0.01)])
def test_batches_of_one_sample_train(gradient, threshold):
    # A known shape of one takes another path through TensorFlow.
    rng = np.random.default_rng(0)
    images = rng.normal(size=(8, 5, 4, 2)).astype(np.float32)
    targets = images.mean(axis=(1, 2)) @ rng.normal(size=(2, 3)).astype(np.float32)
    settings = {"activation": "tanh", "gradient": gradient, "threshold": threshold}
    settings |= {"max_unroll": 5, "initial_state": "zeros"}
    model = keras.Sequential(
        [
            keras.Input((5, 4, 2)),
            ki.NAISConv2D(3, step_size=0.5, **settings),
            keras.layers.GlobalAveragePooling2D(),
            ki.NAISDense(4, **settings),
            keras.layers.Dense(3),
        ]
    )
    before = [weight.numpy() for weight in model.trainable_variables]
    model.compile(keras.optimizers.Adam(0.03), "mse")
    batches = images.reshape(-1, 1, 5, 4, 2), targets.reshape(-1, 1, 3)
    losses = [
        np.mean([model.train_on_batch(u, t) for u, t in zip(*batches, strict=True)])
        for _ in range(6)
    ]
    assert losses[-1] < 0.8 * losses[0]
    for weight, old in zip(model.trainable_variables, before, strict=True):
        assert np.abs(weight.numpy() - old).max() > 0, weight.path


def test_images_of_unknown_size_train(make_block):
    layer = ki.NAISConv2D(2, max_unroll=3)
    model = keras.Sequential([keras.Input((None, None, 2)), layer])
    model.compile("sgd", "mse")
    for shape in ((2, 5, 4, 2), (2, 3, 6, 2), (3, 1, 1, 2)):
        images = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        assert np.isfinite(model.train_on_batch(images, images))


@pytest.mark.parametrize(
    ("settings", "missing"),
    [
        ({}, '`activation="tanh"`, since'),
        ({"activation": "tanh", "tied": False}, "`tied=True`, since"),
        ({"tied": False}, '`tied=True`, since .*; and `activation="tanh"`, since'),
    ],
)
def test_implicit_needs_tied_tanh(kind, settings, missing, make_block):
    message = rf"""`gradient="implicit"` needs {missing}.*Received: gradient='implicit'"""
    with pytest.raises(ValueError, match=message):
        make_block(kind, gradient="implicit", **settings)
    layer = make_block(kind, gradient="implicit", activation="tanh")
    assert layer.get_config()["gradient"] == "implicit"


@pytest.mark.parametrize("threshold", [None, 0.1])
def test_a_persistent_tape_walks_back_twice(threshold):
    block = ki.NAISDense(4, 6, threshold)
    x = tf.random.stateless_normal((3, 4), (1, 2))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        y = block(x, training=True)
    np.testing.assert_array_equal(tape.gradient(y, x), tape.gradient(y, x))


def test_a_threshold_beyond_float32_stops_each_sample_after_one_update():
    state, depth, status = ki.NAISDense(4, threshold=1e39)(tf.ones((3, 4)), return_depth=True)
    np.testing.assert_array_equal(depth, [1, 1, 1])
    np.testing.assert_array_equal(status, [0, 0, 0])
    assert np.abs(state).max() > 0


def test_implicit_is_exact_at_the_default_step_and_shift():
    keras.utils.set_random_seed(0)
    settings = {"max_unroll": 60_000, "threshold": 1e-12, "activation": "tanh", "dtype": "float64"}
    block = ki.NAISDense(6, gradient="implicit", rank=3, **settings)
    x = tf.random.stateless_normal((2, 6), (1, 2), dtype=tf.float64)

    @tf.function
    def run(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y, _, status = block(x, training=True, return_depth=True)
            loss = tf.reduce_sum(y * [[1.0, -2, 3, 0, 1, 1]])
        return status, tape.gradient(loss, x)

    status, gradient = run(x)
    np.testing.assert_array_equal(status, [0, 0])
    # At the fixed point A x + B u + b = 0.
    A, B = np.asarray(block.state_matrix()), np.asarray(block.B)
    expected = -np.array([1.0, -2, 3, 0, 1, 1]) @ np.linalg.inv(A) @ B.T
    np.testing.assert_allclose(gradient, [expected] * 2, rtol=1e-4)
