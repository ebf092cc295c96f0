"""The report of how far gradient modes are from the exact gradient."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_iterconv as ki

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def make(activation="tanh", max_unroll=200, **settings):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    state = keras.layers.Dropout(0.3)(keras.layers.Dense(5)(inputs))
    block = ki.NAISDense(5, max_unroll, step_size=0.9, shift=0.2, activation=activation, **settings)
    outputs = keras.layers.Dense(3)(keras.layers.BatchNormalization()(block(state)))
    model = keras.Model(inputs, outputs)
    model.compile("sgd", LOSS)
    return model


def batch():
    rng = np.random.default_rng(0)
    return rng.normal(size=(8, 6)).astype(np.float32), rng.integers(3, size=8)


def gradient_of_a_net_made_with(mode, **settings):
    """Return the gradient of a net whose blocks had the mode from the start."""
    model = make(gradient=mode, **settings)
    x, y = batch()
    with tf.GradientTape() as tape:
        loss = LOSS(y, model(x, training=True))
    return np.concatenate([np.ravel(g) for g in tape.gradient(loss, model.trainable_weights)])


@pytest.mark.parametrize("max_unroll", [4, 200])
def test_figures_are_those_of_nets_made_with_each_mode(max_unroll):
    model = make(max_unroll=max_unroll)
    report = ki.gradient_error(model, *batch())
    assert [row.gradient for row in report.rows] == ["implicit", "frozen"]
    exact = gradient_of_a_net_made_with("unroll", max_unroll=max_unroll)
    for row in report.rows:
        g = gradient_of_a_net_made_with(row.gradient, max_unroll=max_unroll)
        error = np.linalg.norm(g - exact) / np.linalg.norm(exact)
        assert row.relative_error == pytest.approx(error, rel=1e-3, abs=1e-5)
        norms = np.linalg.norm(g), np.linalg.norm(exact)
        assert row.norm_ratio == pytest.approx(norms[0] / norms[1], rel=1e-5)
        assert row.cosine == pytest.approx(g @ exact / np.prod(norms), rel=1e-5)
        assert row.worst_relative_error >= row.relative_error * (1 - 1e-6)
    # Converged, the implicit gradient is the exact one; after four updates it is not.
    assert (report["implicit"].relative_error < 1e-4) == (max_unroll == 200)
    assert report["frozen"].gradient in str(report)


def test_the_model_is_left_as_it_was():
    model = make(gradient="recompute")
    before = [variable.numpy() for variable in model.variables]
    ki.gradient_error(model, *batch())
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)
    (block,) = ki.iterated_blocks(model)
    assert block.gradient == "recompute"


def test_relu_blocks_have_no_implicit_gradient():
    report = ki.gradient_error(make("relu", 5), *batch())
    assert [row.gradient for row in report.rows] == ["frozen"]


def test_what_has_no_modes_or_no_loss_is_refused():
    inputs = keras.Input((6,))
    plain = keras.Model(inputs, keras.layers.Dense(3)(inputs))
    plain.compile("sgd", LOSS)
    with pytest.raises(ValueError, match="a NAIS block"):
        ki.gradient_error(plain, *batch())
    model = make()
    with pytest.raises(ValueError, match="compiled"):
        ki.gradient_error(keras.Model(model.input, model.output), *batch())


def net_of_iterate(gradient, truncate=None, dropout=0.0):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    # It contracts by a half, to a fixed point that is not zero.
    dense = keras.layers.Dense(6, "tanh", kernel_initializer=keras.initializers.Orthogonal(0.5))
    dense.bias_initializer = keras.initializers.RandomNormal()
    update = keras.Sequential([dense, keras.layers.Dropout(dropout, seed=3)])
    x = ki.Iterate(update, 30, gradient=gradient, truncate=truncate)(inputs)
    model = keras.Model(inputs, keras.layers.Dense(3)(x))
    model.compile("sgd", LOSS)
    return model


@pytest.mark.parametrize(
    ("gradient", "truncate", "dropout"),
    [("truncated", 2, 0.0), ("truncated", 2, 0.2), ("truncated", 30, 0.2), ("implicit", None, 0.0)],
)
def test_an_iterate_is_judged_with_its_own_mode(gradient, truncate, dropout):
    x, y = batch()
    model = net_of_iterate(gradient, truncate, dropout)
    (row,) = ki.gradient_error(model, x, y).rows
    assert (row.gradient, model.layers[1].gradient) == (gradient, gradient)
    found = []
    for mode in ("unroll", gradient):
        net = net_of_iterate(mode, truncate if mode == gradient else None, dropout)
        with tf.GradientTape() as tape:
            loss = LOSS(y, net(x, training=True))
        found.append(
            np.concatenate([np.ravel(g) for g in tape.gradient(loss, net.trainable_weights)])
        )
    exact, g = found
    error = np.linalg.norm(g - exact) / np.linalg.norm(exact)
    assert row.relative_error == pytest.approx(error, rel=1e-3, abs=1e-6)
    # Two updates of thirty are a gradient of their own; all of them are the exact one.
    assert (row.relative_error > 1e-2) == (truncate == 2)


def test_an_iterate_of_an_exact_mode_is_refused():
    with pytest.raises(ValueError, match="share a gradient mode which is not exact"):
        ki.gradient_error(net_of_iterate("recompute"), *batch())
