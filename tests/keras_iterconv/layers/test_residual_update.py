"""The last line of a residual block."""

import keras
import numpy as np
import pytest

import keras_iterconv as ki
from keras_iterconv.unrolling import Status


def pair(shape=(3, 4, 5), seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype(np.float32) for _ in range(2)]


@pytest.mark.parametrize("step_size", [1, 0.3])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_adds_the_activation(step_size, activation):
    x, transfer = pair()
    sigma = np.tanh if activation == "tanh" else lambda a: np.maximum(a, 0)
    layer = ki.ResidualUpdate(step_size, activation)
    np.testing.assert_allclose(layer([x, transfer]), x + step_size * sigma(transfer), atol=1e-6)


def test_counts_as_one_update():
    x, transfer = pair()
    x[1, 0, 0] = np.nan
    transfer[2, 1, 1] = np.inf
    state, depth, status = ki.ResidualUpdate()([x, transfer], return_depth=True)
    np.testing.assert_array_equal(depth, [1, 1, 1])
    np.testing.assert_array_equal(status, [Status.MAX_UNROLL, Status.NOT_FINITE, Status.NOT_FINITE])
    assert np.isfinite(state[0]).all()


def test_depth_and_status_stay_apart_in_a_functional_model():
    # Keras tells symbolic tensors apart by identity: one tensor for both once mixed them up.
    x, transfer = pair()
    x[1] = np.nan
    inputs = [keras.Input((4, 5)), keras.Input((4, 5))]
    state, depth, status = ki.ResidualUpdate()(inputs, return_depth=True)
    out = keras.Model(inputs, [state, depth, status])([x, transfer])
    np.testing.assert_array_equal(out[1], [1, 1, 1])
    np.testing.assert_array_equal(out[2], [1, 2, 1])


@pytest.mark.parametrize(
    "inputs",
    [
        [np.zeros((2, 3)), np.zeros((2, 1))],
        [np.zeros((2, 3)), np.zeros((2, 4))],
        [np.zeros((2, 3)), np.zeros((2, 3)), np.zeros((2, 3))],
        np.zeros((2, 3)),
    ],
)
def test_inputs_that_do_not_fit(inputs):
    with pytest.raises(
        ValueError, match=r"`inputs` must be the state and the pre-activation.*Received"
    ):
        ki.ResidualUpdate()(inputs)


@pytest.mark.parametrize(
    ("argument", "value"),
    [("step_size", 0), ("step_size", 1.1), ("step_size", True), ("activation", "gelu")],
)
def test_bad_arguments(argument, value):
    with pytest.raises(ValueError, match=f"`{argument}` must .*Received: {argument}="):
        ki.ResidualUpdate(**{argument: value})
