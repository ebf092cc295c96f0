"""Blocks in files of weights and SavedModels, and wrapped in other Keras layers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

CASES = {
    "dense, untied, rank 2, adaptive": (
        "dense",
        {"tied": False, "rank": 2, "threshold": 0.05, "bound": 1.5, "activation": "tanh"},
    ),
    "conv": ("conv", {}),
    "conv, bfloat16": ("conv", {"dtype": "mixed_bfloat16", "threshold": 0.05}),
}


@pytest.fixture(params=CASES)
def case(request, make_block, make_inputs, set_weights):
    """Return a block with random weights, its inputs, and a model that also returns its depth."""
    kind, settings = CASES[request.param]
    u = make_inputs(kind, 4)
    layer = set_weights(make_block(kind, **settings), u, "random")
    inputs = keras.Input(u.shape[1:])
    state, depth, status = layer(inputs, return_depth=True)
    model = keras.Model(inputs, {"state": state, "depth": depth, "status": status})
    return layer, u, model


def assert_same(got, expected, **tolerance):
    assert set(got) == {"state", "depth", "status"}
    for key in got:
        a, b = (np.asarray(x[key], np.float64) for x in (got, expected))
        np.testing.assert_allclose(a, b, **tolerance)


def test_weights_file(case, tmp_path, make_inputs):
    layer, u, model = case
    expected = {key: value.numpy() for key, value in model(u).items()}
    model.save_weights(tmp_path / "model.weights.h5")
    for weight in layer.weights:
        weight.assign(tf.zeros_like(weight))
    model.load_weights(tmp_path / "model.weights.h5")
    assert_same(model(u), expected, rtol=0, atol=0)


@pytest.mark.parametrize("how", ["export", "tf.saved_model.save"])
def test_saved_model(case, tmp_path, how):
    layer, u, model = case
    if how == "export":
        model.export(tmp_path / "model", verbose=False)
        loaded = tf.saved_model.load(tmp_path / "model")
        serve = loaded.serve
    else:
        tf.saved_model.save(model, tmp_path / "model")
        loaded = tf.saved_model.load(tmp_path / "model")
        signature = loaded.signatures["serving_default"]
        (name,) = signature.structured_input_signature[1]
        serve = lambda u: signature(**{name: tf.constant(u)})  # noqa: E731
    expected = model(u)
    # A graph sums in another order, and half precision rounds that: relative to the largest terms.
    epsilon = 1e-5 if layer.compute_dtype == "float32" else 2**-7
    atol = epsilon * max(1, np.abs(np.asarray(expected["state"], np.float64)).max())
    assert_same(serve(u), expected, rtol=0, atol=atol)
    # Another batch size too.
    assert_same(serve(u[:1]), model(u[:1]), rtol=0, atol=atol)


def test_inside_sequential_and_time_distributed(make_block, make_inputs):
    layer = make_block("dense", initial_state="zeros")
    sequential = keras.Sequential([keras.Input((3,)), layer, keras.layers.Dense(2)])
    u = make_inputs("dense", 8, channels=3)
    assert sequential(u).shape == (8, 2)
    over_time = keras.layers.TimeDistributed(layer)
    model = keras.Sequential([keras.Input((4, 3)), over_time])
    np.testing.assert_allclose(np.reshape(model(u.reshape(2, 4, 3)), (8, 6)), layer(u), atol=1e-6)
