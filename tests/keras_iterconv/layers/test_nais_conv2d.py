"""The convolutional block: its Jacobian as a dense matrix, its centre, and what only it has."""

import keras
import numpy as np
import pytest
import scipy.linalg
import tensorflow as tf

import keras_iterconv as ki
from keras_iterconv.layers.protocol import rows_of
from tests.support.numpy_double import spectral_radius

STATES = ("initial", "random", "thrown", "trained")


def infinity_norm(matrix):
    return scipy.linalg.norm(matrix, np.inf)


@pytest.mark.parametrize("how", STATES)
@pytest.mark.parametrize("center", ["trainable", "fixed"])
@pytest.mark.parametrize("tied", [True, False])
def test_update_is_stable(how, center, tied, make_block, make_inputs, set_weights, numpy_double):
    layer = make_block("conv", max_unroll=3, center=center, tied=tied)
    set_weights(layer, make_inputs("conv", 8), how)
    rng = np.random.default_rng(0)
    # Small images: eigenvalues of larger matrices take their time. 3x3 taps fit inside.
    pixels = 4 * 3 * 6
    for k in range(1 if tied else 3):
        double = numpy_double(layer, k, image=(4, 3))
        for slopes in (
            np.ones(pixels),
            np.full(pixels, 1e-3),
            rng.uniform(1e-3, 1, pixels),
            np.where(rng.random(pixels) < 0.5, 1e-3, 1.0),
        ):
            for double.step_size in (0.1, 1.0):
                assert infinity_norm(double.jacobian(slopes)) < 1
            assert spectral_radius(double.jacobian(slopes)) < 1
        # ReLU, and a tanh that is saturated: some slopes are zero.
        J = double.jacobian(np.where(rng.random(pixels) < 0.5, 0.0, 1.0))
        # Rows of inactive units are rows of the identity: exactly one, but for rounding.
        assert infinity_norm(J) <= 1 + 1e-12
        assert spectral_radius(J) <= 1 + 1e-12


def test_untied_updates_share_their_norm(make_block, make_inputs, set_weights, numpy_double):
    layer = make_block("conv", max_unroll=4, tied=False)
    set_weights(layer, make_inputs("conv"), "thrown")
    rng = np.random.default_rng(0)
    product = np.eye(5 * 4 * 6)
    for k in range(4):
        product = numpy_double(layer, k).jacobian(rng.uniform(0.5, 1, 5 * 4 * 6)) @ product
    assert infinity_norm(product) < 1


@pytest.mark.parametrize("step_size", [0.3, 1.0])
def test_updates_of_relu_shrink_by_the_margin(step_size, make_block, make_inputs, set_weights):
    # Proved for the largest entry: units that are negative rise by less than the others fall.
    layer = make_block("conv", margin=0.2, center_margin=0.5, step_size=step_size)
    inputs = 3 * make_inputs("conv", 8)
    set_weights(layer, inputs, "thrown")
    states = [layer.make_initial_state(inputs)]
    for _ in range(30):
        states.append(layer.update(states[-1], inputs))
    largest = np.abs(np.diff(states, axis=0)).max(axis=(2, 3, 4))
    before, after = largest[:-1], largest[1:]
    rounding = 1e-5 * largest[0]
    assert np.all(after <= (1 - 0.2 * step_size) * before + rounding)
    # The bound says something: many updates are large, and some shrink by little more than it.
    shown = before > 100 * rounding
    assert shown.sum() > 20
    assert np.max(after[shown] / before[shown]) > 1 - 0.6 * step_size


def test_an_untied_block_need_not_converge_though_its_guarantee_holds(make_inputs, set_weights):
    settings = {"threshold": 1e-4, "max_unroll": 400, "activation": "tanh"}
    for tied in (True, False):
        layer = ki.NAISConv2D(6, tied=tied, **settings)
        x = make_inputs("conv")
        set_weights(layer, x, "initial")
        # Untied updates with different fixed points.
        layer.E.assign(0.5 * np.random.default_rng(0).normal(size=layer.E.shape))
        (row,) = rows_of(layer, x.shape[1:3])
        assert row.holds
        _, depth, status = layer(x, return_depth=True)
        converged = status.numpy() == ki.unrolling.Status.CONVERGED
        assert converged.all() if tied else not converged.any()
        assert (depth.numpy() == 400).all() == (not tied)
    assert "not implied" in row.guarantee


def test_thrown_weights_use_the_whole_budget(make_block, make_inputs, set_weights, numpy_double):
    layer = make_block("conv", margin=0.02, center_margin=0.3)
    set_weights(layer, make_inputs("conv"), "thrown")
    delta = layer.delta.numpy()
    np.testing.assert_allclose(np.abs(delta), 0.7, rtol=1e-6)
    # An inner pixel sees every tap of the 3x3 kernel.
    rows = numpy_double(layer).jacobian(np.ones(5 * 4 * 6)).reshape(5, 4, 6, -1)[2, 2]
    np.testing.assert_allclose(np.abs(rows).sum(-1), 1 - 0.02, atol=1e-5)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_jacobian_is_the_layers_own(
    activation, kernel_size, make_block, make_inputs, set_weights, numpy_double
):
    layer = make_block(
        "conv", activation=activation, kernel_size=kernel_size, step_size=0.7, dtype="float64"
    )
    u, x = (make_inputs("conv", 2, seed=s).astype("float64") for s in (1, 2))
    set_weights(layer, u, "random")
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        after = layer.update(x, u)
    double = numpy_double(layer)
    for jacobian, slopes in zip(tape.batch_jacobian(after, x), double.slopes(x, u), strict=True):
        jacobian = np.reshape(jacobian, (len(slopes), -1))
        np.testing.assert_allclose(jacobian, double.jacobian(slopes), atol=1e-12)
        assert infinity_norm(jacobian) <= 1 + 1e-12


@pytest.mark.parametrize("how", ["initial", "random", "thrown"])
def test_stored_kernel_holds_its_centre(how, make_block, make_inputs, set_weights):
    layer = make_block("conv")
    set_weights(layer, make_inputs("conv"), how)
    C, delta = layer.C.numpy(), layer.delta.numpy()
    for c in range(6):
        assert C[1, 1, c, c] == pytest.approx(-1 - delta[c], abs=1e-6)
    np.testing.assert_array_equal(layer.state_kernel(), C)


def test_fixed_centre_has_no_delta(make_block, make_inputs, set_weights):
    layer = make_block("conv", center="fixed")
    set_weights(layer, make_inputs("conv"), "thrown")
    assert [w.name for w in layer.weights] == ["C", "D", "E"]
    np.testing.assert_array_equal(np.diagonal(layer.C.numpy()[1, 1]), -1)


def test_relu_state_rises_from_its_start(make_block, make_inputs, set_weights):
    layer = make_block("conv", initial_state="input")
    u = make_inputs("conv")
    set_weights(layer, u, "random")
    assert (layer(u).numpy() >= u).all()


def test_input_kernel_starts_with_the_share_of_one_block_in_54():
    layer = ki.NAISConv2D(64)
    layer.build((None, 8, 8, 64))
    assert np.var(layer.D.numpy()) == pytest.approx(1 / (54 * 9 * 64), rel=0.05)


@pytest.mark.parametrize(
    ("settings", "argument"),
    [
        ({"filters": 0}, "filters"),
        ({"filters": True}, "filters"),
        ({"kernel_size": 2}, "kernel_size"),
        ({"kernel_size": 0}, "kernel_size"),
        ({"kernel_size": (3, 3)}, "kernel_size"),
        ({"margin": 0}, "margin"),
        ({"margin": -0.1}, "margin"),
        ({"margin": float("nan")}, "margin"),
        ({"margin": "0.01"}, "margin"),
        ({"center_margin": 1}, "center_margin"),
        ({"center_margin": 0}, "center_margin"),
        ({"center_margin": True}, "center_margin"),
        ({"margin": 0.05, "center_margin": 0.05}, "margin"),
        ({"margin": 0.2, "center_margin": 0.1}, "margin"),
        ({"center": "free"}, "center"),
    ],
)
def test_bad_arguments(settings, argument):
    with pytest.raises(ValueError, match=rf"`{argument}.*Received: \w+="):
        ki.NAISConv2D(**{"filters": 6, **settings})


@pytest.mark.parametrize("shape", [(2, 6), (2, 5, 6), (2, 1, 5, 5, 6)])
def test_wrong_rank(shape):
    with pytest.raises(ValueError, match="expected ndim=4"):
        ki.NAISConv2D(6)(np.zeros(shape, np.float32))


def test_image_size_may_change_between_calls(make_block, make_inputs, set_weights):
    layer = make_block("conv")
    u = make_inputs("conv")
    set_weights(layer, u, "random")
    model = keras.Sequential([keras.Input((None, None, 6)), layer])
    np.testing.assert_allclose(model(u), layer(u), atol=1e-6)
    assert model(u[:, :3, :3]).shape == (3, 3, 3, 6)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_rounded_kernel_is_still_stable(policy, make_block, make_inputs, set_weights, conv_matrix):
    layer = make_block("conv", dtype=policy)
    set_weights(layer, make_inputs("conv"), "thrown")
    kernel = keras.ops.convert_to_numpy(layer.state_kernel()).astype(np.float64)
    assert infinity_norm(np.eye(5 * 4 * 6) + conv_matrix(kernel, 5, 4)) < 1
