"""The depth settings of a block, which may change after building."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.support.builders import inputs_for, make_ready


@pytest.fixture(params=("dense", "conv"))
def kind(request):
    return request.param


@pytest.mark.parametrize("tied", [True, False])
def test_compiled_functions_see_a_new_depth(kind, tied, make_block, make_inputs, set_weights):
    u = inputs_for(make_inputs, kind, 4)
    layer = make_ready(
        make_block, set_weights, kind, u, max_unroll=6, threshold=1e-3, tied=tied, step_size=0.7
    )
    inputs = keras.Input(u.shape[1:])
    model = keras.Model(inputs, list(layer(inputs, return_depth=True)[:2]))
    before, depth = model.predict(u, verbose=0)
    assert depth.max() == 6
    compiled = model.predict_function

    def as_built(max_unroll, threshold):
        # An untied block of fewer updates has the first of the weights.
        other = type(layer).from_config(
            {**layer.get_config(), "max_unroll": max_unroll, "threshold": threshold}
        )
        other.build(u.shape)
        weights = layer.get_weights()
        other.set_weights(weights if tied else [w[:max_unroll] for w in weights])
        state, depth, _ = other(u, return_depth=True)
        return state, depth

    for max_unroll, threshold in ((3, 1e-3), (3, 0.05), (6, 0.05), (6, 1e-3)):
        layer.max_unroll, layer.threshold = max_unroll, threshold
        assert (layer.max_unroll, layer.threshold) == (max_unroll, threshold)
        state, depth = model.predict(u, verbose=0)
        expected, expected_depth = as_built(max_unroll, threshold)
        np.testing.assert_array_equal(depth, expected_depth)
        np.testing.assert_allclose(state, expected, rtol=1e-5, atol=1e-5)
        assert (np.abs(state - before).max() > 1e-3) == ((max_unroll, threshold) != (6, 1e-3))
        config = layer.get_config()
        assert config["max_unroll"] == (max_unroll if tied else 6)
        assert config["threshold"] == threshold
    assert model.predict_function is compiled


@pytest.mark.parametrize("tied", [True, False])
def test_compiled_training_sees_a_new_depth(tied, make_block, make_inputs):
    u = make_inputs("dense", 4)
    layer = make_block("dense", max_unroll=4, tied=tied, threshold=None)
    layer(u)

    @tf.function
    def compiled(inputs):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(inputs, training=True) ** 2)
        return tape.gradient(loss, layer.trainable_variables)

    deep = compiled(tf.constant(u))
    layer.max_unroll = 2
    shallow = compiled(tf.constant(u))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(u, training=True) ** 2)
    expected = tape.gradient(loss, layer.trainable_variables)
    for a, b, c in zip(shallow, expected, deep, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
        assert np.abs(a - c).max() > 1e-4


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("max_unroll", value) for value in (0, -1, 2.5, True, None, "3", 2**31)),
        *(("threshold", value) for value in (0, -1.0, float("nan"), float("inf"), True, "0.1")),
    ],
)
def test_bad_settings_are_refused_and_change_nothing(
    kind, tied, name, value, make_block, make_inputs
):
    u = inputs_for(make_inputs, kind)
    layer = make_block(kind, max_unroll=5, threshold=0.01, tied=tied)
    state, depth, _ = layer(u, return_depth=True)
    config = layer.get_config()
    with pytest.raises(ValueError, match=rf"`{name}` must .*Received: {name}="):
        setattr(layer, name, value)
    assert layer.get_config() == config
    assert (layer.max_unroll, layer.threshold) == (5, 0.01)
    again, again_depth, _ = layer(u, return_depth=True)
    np.testing.assert_array_equal(again, state)
    np.testing.assert_array_equal(again_depth, depth)


def test_an_untied_block_cannot_go_deeper_than_it_was_built(kind, make_block, make_inputs):
    u = inputs_for(make_inputs, kind)
    layer = make_block(kind, max_unroll=4, tied=False, name="deep")
    state = layer(u)
    message = "`max_unroll` of 'deep' must be at most 4.*untied.*Received: max_unroll=5"
    with pytest.raises(ValueError, match=message):
        layer.max_unroll = 5
    np.testing.assert_array_equal(layer(u), state)
    layer.max_unroll = 2
    assert layer.get_config()["max_unroll"] == 4
    layer.max_unroll = 4
    np.testing.assert_array_equal(layer(u), state)
    # A tied block has its weights for any number.
    tied = make_block(kind, max_unroll=4)
    tied(u)
    tied.max_unroll = 9
    np.testing.assert_array_equal(tied(u, return_depth=True).depth, [9] * 3)


def test_the_threshold_may_come_and_go_between_eager_calls(kind, make_block, make_inputs):
    u = inputs_for(make_inputs, kind)
    layer = make_block(kind, max_unroll=6)
    fixed, depth, _ = layer(u, return_depth=True)
    np.testing.assert_array_equal(depth, [6] * 3)
    layer.threshold = 0.05
    _, depth, _ = layer(u, return_depth=True)
    assert depth.numpy().min() < 6
    assert layer.get_config()["threshold"] == 0.05
    layer.threshold = None
    np.testing.assert_array_equal(layer(u), fixed)
    assert layer.get_config()["threshold"] is None
