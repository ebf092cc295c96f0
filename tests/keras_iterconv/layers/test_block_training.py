"""Training of the blocks: exact gradients, and weights that stay where they are safe."""

import keras
import numpy as np
import pytest
import tensorflow as tf

KINDS = ("dense", "conv")

# One of each kind, with what makes Keras take another path through a step. The rates are absurd,
# so that each step throws the weights out of their bounds.
OPTIMIZERS = {
    "SGD": lambda: keras.optimizers.SGD(10.0),
    "SGD, momentum": lambda: keras.optimizers.SGD(10.0, momentum=0.9),
    "SGD, Nesterov, clipnorm": lambda: keras.optimizers.SGD(
        10.0, momentum=0.9, nesterov=True, clipnorm=5.0
    ),
    "SGD, global_clipnorm": lambda: keras.optimizers.SGD(10.0, global_clipnorm=5.0),
    "SGD, accumulation": lambda: keras.optimizers.SGD(10.0, gradient_accumulation_steps=2),
    "Adam": lambda: keras.optimizers.Adam(3.0),
    "Adam, clipvalue, accumulation": lambda: keras.optimizers.Adam(
        3.0, clipvalue=0.1, gradient_accumulation_steps=3
    ),
    "AdamW": lambda: keras.optimizers.AdamW(3.0, weight_decay=0.1),
    "Lion": lambda: keras.optimizers.Lion(3.0),
    "RMSprop": lambda: keras.optimizers.RMSprop(3.0),
    "Adagrad": lambda: keras.optimizers.Adagrad(30.0),
    "loss scale": lambda: keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(10.0), initial_scale=8.0
    ),
}


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def random_gradients(weights, rng):
    return [tf.constant(rng.normal(size=w.shape), w.dtype) for w in weights]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("tied", [True, False])
def test_every_step_of_every_optimizer_projects(
    kind, optimizer, tied, make_block, make_inputs, excess
):
    layer = make_block(kind, max_unroll=2, tied=tied)
    layer.build(make_inputs(kind).shape)
    optimizer, rng = OPTIMIZERS[optimizer](), np.random.default_rng(0)
    weights = layer.trainable_variables
    before = layer.get_weights()
    for _ in range(4):
        # Scaled as a loss would be; for the others it is a larger gradient.
        optimizer.apply([8 * g for g in random_gradients(weights, rng)], weights)
        # Rounding of a sum of some tens of float32 numbers around one.
        assert excess(layer) < 2e-6
    assert all(np.abs(a - b).max() > 1e-3 for a, b in zip(before, layer.get_weights(), strict=True))
    # The bound is reached: without the projection these steps would have passed it.
    assert excess(layer) > -1e-5


@pytest.mark.parametrize("size", [1e3, 1e10, 1e30])
def test_projection_survives_a_step_of_any_size(kind, size, make_block, make_inputs, excess):
    layer = make_block(kind)
    layer.build(make_inputs(kind).shape)
    weights = layer.trainable_variables
    keras.optimizers.SGD(size).apply(random_gradients(weights, np.random.default_rng(0)), weights)
    assert np.isfinite(layer.get_weights()[0]).all()
    assert -1e-5 < excess(layer) < 2e-6


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_plain_keras_fit_trains_and_projects(kind, policy, make_block, make_inputs, excess):
    keras.config.set_dtype_policy(policy)
    u = make_inputs(kind, 32)
    layer = make_block(kind, threshold=1e-3 if policy == "float32" else None)
    model = keras.Sequential(
        [
            keras.Input(u.shape[1:]),
            layer,
            keras.layers.Flatten(),
            keras.layers.Dense(3, dtype="float32"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.05), "mse")
    targets = np.stack(
        [
            u.mean(axis=tuple(range(1, u.ndim))),
            u[..., 0].reshape(32, -1)[:, 0],
            u.reshape(32, -1)[:, -1],
        ],
        1,
    )
    before = layer.get_weights()
    history = model.fit(u, targets, batch_size=16, epochs=10, shuffle=False, verbose=0).history[
        "loss"
    ]
    assert history[-1] < 0.5 * history[0]
    assert excess(layer) < 2e-6
    for weight, old in zip(layer.weights, before, strict=True):
        assert np.abs(weight.numpy() - old).max() > 0, weight.name


def loss_in_numpy(layer, doubles, u, start, target, threshold):
    """Return sum(target * last state) of a NumPy loop in which each sample may stop."""
    total = 0.0
    for n in range(len(u)):
        x = start[n : n + 1]
        for k in range(layer.max_unroll):
            change = doubles[0 if layer.tied else k].change(x, u[n : n + 1])
            x = x + change
            if threshold is not None and np.linalg.norm(change) < threshold:
                break
        total += (target[n] * x[0]).sum()
    return total


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("threshold", [None, 0.1])
@pytest.mark.parametrize("initial_state", ["zeros", "input"])
def test_gradients_agree_with_finite_differences(
    kind, activation, tied, threshold, initial_state,
    make_block, make_inputs, set_weights, numpy_double,
):  # fmt: skip
    layer = make_block(
        kind, max_unroll=4, activation=activation, tied=tied, threshold=threshold,
        initial_state=initial_state, dtype="float64", step_size=0.8,
        **({"shift": 0.3} if kind == "dense" else {"margin": 0.3, "center_margin": 0.4}),
    )  # fmt: skip
    u = make_inputs(kind, 2).astype(np.float64)
    u[0] *= 0.001
    set_weights(layer, u, "random")
    bias = layer.b if kind == "dense" else layer.E
    bias.assign(0.001 * bias)
    rng = np.random.default_rng(7)
    target = rng.normal(size=u.shape)
    inputs = tf.constant(u)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        state, depth, _ = layer(inputs, return_depth=True)
        loss = tf.reduce_sum(target * state)
    weights = layer.trainable_variables
    gradients = tape.gradient(loss, [*weights, inputs])
    if threshold is not None:
        assert depth[0] < depth[1]

    def value():
        doubles = [numpy_double(layer, k) for k in range(1 if tied else 4)]
        start = u if initial_state == "input" else np.zeros_like(u)
        return loss_in_numpy(layer, doubles, u, start, target, threshold)

    def shift(weight, by):
        nonlocal u
        if weight is inputs:
            u = u + by
        else:
            weight.assign_add(by)

    np.testing.assert_allclose(loss, value(), rtol=1e-10)
    for weight, gradient in zip([*weights, inputs], gradients, strict=True):
        direction = rng.normal(size=weight.shape)
        step = 1e-6 / np.linalg.norm(direction)
        shift(weight, step * direction)
        above = value()
        shift(weight, -2 * step * direction)
        below = value()
        shift(weight, step * direction)
        slope = np.sum(gradient * direction)
        # Central differences: a truncation error of step^2, a rounding error of 1e-16 / step.
        assert (above - below) / (2 * step) == pytest.approx(slope, rel=1e-6, abs=1e-6)


def test_every_weight_has_a_gradient_in_a_graph(kind, make_block, make_inputs, set_weights):
    layer = make_block(kind, threshold=0.05)
    u = make_inputs(kind)
    set_weights(layer, u, "random")

    def gradients(u):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(u) ** 2)
        return tape.gradient(loss, layer.trainable_variables)

    for eager, graph in zip(gradients(u), tf.function(gradients)(u), strict=True):
        assert np.abs(eager).max() > 0
        np.testing.assert_allclose(graph, eager, rtol=1e-4, atol=1e-4)


def test_keras_does_not_choose_xla(kind, make_block, make_inputs, monkeypatch):
    # Keras chooses only where it sees a GPU, and asks this function whether there is one.
    gpu = tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda *args: [gpu])
    u = make_inputs(kind)
    model = keras.Sequential([keras.Input(u.shape[1:]), make_block(kind)])
    model.compile("sgd", "mse")
    assert model.jit_compile is False
    # The test is only meaningful if Keras chooses XLA without the block.
    plain = keras.Sequential([keras.Input(u.shape[1:]), keras.layers.Dense(2)])
    plain.compile("sgd", "mse")
    assert plain.jit_compile is True


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_block_may_be_built_inside_another_layers_call(kind, policy, make_block, make_inputs):
    keras.config.set_dtype_policy(policy)

    class Outer(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.block = make_block(kind)

        def call(self, inputs):
            return self.block(inputs)

    u = make_inputs(kind)
    # Eager, and symbolic: there Keras builds in a scope without variables and reads those of the
    # compute dtype. Each once gave a warning, which is an error here, or an error.
    assert Outer()(u).shape == u.shape
    assert Outer()(keras.Input(u.shape[1:])).shape == (None, *u.shape[1:])
