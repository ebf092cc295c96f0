"""The fully connected block: its stability, its fixed points, and what only it has."""

import itertools

import keras
import numpy as np
import pytest
import scipy.linalg
import tensorflow as tf

import keras_iterconv as ki
from tests.support.numpy_double import spectral_radius

STATES = ("initial", "random", "thrown", "trained")
# The default bound, the relaxed one, and a rectangular R under both.
BOUNDS = {
    "default": {},
    "relaxed": {"bound": 2 * (1 - 0.01)},
    "rank 2": {"rank": 2},
    "rank 1, relaxed": {"rank": 1, "bound": 2 * (1 - 0.01)},
    "shift 0.1, relaxed": {"shift": 0.1, "bound": 2 * (1 - 0.1)},
}


@pytest.mark.parametrize("how", STATES)
@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("tied", [True, False])
def test_update_is_stable(how, bound, tied, make_block, make_inputs, set_weights, numpy_double):
    layer = make_block("dense", max_unroll=3, step_size=1.0, tied=tied, **BOUNDS[bound])
    set_weights(layer, make_inputs("dense", 16), how)
    rng = np.random.default_rng(0)
    for k, step_size in itertools.product(range(1 if tied else 3), (0.1, 1.0)):
        double = numpy_double(layer, k)
        double.step_size = step_size
        for slopes in (
            np.ones(6),
            np.full(6, 1e-3),
            rng.uniform(1e-3, 1, 6),
            np.where(rng.random(6) < 0.5, 1e-3, 1.0),
        ):
            assert spectral_radius(double.jacobian(slopes)) < 1
        # Inactive ReLUs leave an eigenvalue of one, which the eigensolver returns to 1e-15.
        dead = np.where(np.arange(6) % 2, 0.0, rng.uniform(1e-3, 1, 6))
        assert spectral_radius(double.jacobian(dead)) <= 1 + 1e-12


@pytest.mark.parametrize("how", STATES)
@pytest.mark.parametrize("step_size", [0.1, 1.0])
def test_update_is_non_expansive_in_the_p_norm(
    how, step_size, make_block, make_inputs, set_weights, numpy_double
):
    layer = make_block("dense", step_size=step_size, bound=2 * (1 - 0.01))
    set_weights(layer, make_inputs("dense", 16), how)
    double = numpy_double(layer)
    root = scipy.linalg.sqrtm(-double.A)
    rng = np.random.default_rng(0)
    for slopes in (np.ones(6), rng.uniform(0, 1, 6), (rng.random(6) < 0.5).astype(float)):
        J = root @ double.jacobian(slopes) @ scipy.linalg.inv(root)
        assert np.linalg.norm(J, 2) <= 1 + 1e-12


def test_default_bound_leaves_no_oscillation_and_the_relaxed_one_does(
    make_block, make_inputs, set_weights, numpy_double
):
    smallest = {}
    for bound in (None, 2 * (1 - 0.01)):
        layer = make_block("dense", step_size=1.0, bound=bound, rank=1)
        set_weights(layer, make_inputs("dense"), "thrown")
        smallest[bound] = scipy.linalg.eigvalsh(numpy_double(layer).jacobian(np.ones(6))).min()
    # One row of R: its only eigenvalue takes the whole bound, up to rounding in float32.
    assert smallest[None] == pytest.approx(1 - 0.98 - 0.01, abs=1e-5)
    assert smallest[2 * (1 - 0.01)] == pytest.approx(1 - 1.98 - 0.01, abs=1e-5)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_jacobian_is_the_layers_own(activation, make_block, make_inputs, set_weights, numpy_double):
    layer = make_block("dense", activation=activation, step_size=0.7, dtype="float64")
    u, x = (make_inputs("dense", 4, seed=s).astype("float64") for s in (1, 2))
    set_weights(layer, u, "random")
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        after = layer.update(x, u)
    double = numpy_double(layer)
    slopes = double.slopes(x, u)
    for jacobian, slope in zip(tape.batch_jacobian(after, x), slopes, strict=True):
        np.testing.assert_allclose(jacobian, double.jacobian(slope), atol=1e-12)


def test_tanh_converges_to_the_linear_systems_solution():
    layer = ki.NAISDense(8, max_unroll=500, step_size=1.0, activation="tanh", shift=0.1)
    u = np.random.default_rng(3).normal(size=(5, 4)).astype(np.float32)
    layer.build(u.shape)
    layer.b.assign(np.random.default_rng(4).normal(size=8))
    state = layer(u).numpy()
    R, B, b = (np.asarray(w.numpy(), np.float64) for w in (layer.R, layer.B, layer.b))
    A = -R.T @ R - 0.1 * np.eye(8)
    expected = -scipy.linalg.solve(A, (u @ B + b).T).T
    np.testing.assert_allclose(state, expected, atol=1e-5)


def test_relu_state_rises_to_a_set_of_fixed_points(make_inputs, set_weights, numpy_double):
    layer = ki.NAISDense(6, max_unroll=400, step_size=1.0, shift=0.1, initial_state="input")
    u = make_inputs("dense", 20)
    set_weights(layer, u, "random")
    double = numpy_double(layer)
    x = u
    for _ in range(30):
        after = layer.update(x, u).numpy()
        assert (after >= x).all()
        x = after
    # A x + B u + b <= 0 in exact arithmetic and in the limit.
    assert double.preactivation(layer(u), u).max() < 1e-5


def test_an_autonomous_block_depends_on_the_input_only_through_the_initial_state(
    make_block, make_inputs, set_weights, numpy_double
):
    layer = make_block("dense", non_autonomous=False, initial_state="input", step_size=0.5)
    u = make_inputs("dense")
    set_weights(layer, u, "random")
    assert [w.name for w in layer.weights] == ["R", "b"]
    double, x = numpy_double(layer), u.astype(np.float64)
    for _ in range(5):
        x = x + double.change(x, u)
    np.testing.assert_allclose(layer(u), x, atol=1e-5)


def test_rank_is_the_number_of_rows_of_R(make_block):
    layer = make_block("dense", rank=2)
    layer.build((None, 3))
    assert tuple(layer.R.shape) == (2, 6)
    assert tuple(layer.B.shape) == (3, 6)


@pytest.mark.parametrize(
    ("settings", "argument"),
    [
        ({"units": 0}, "units"),
        ({"units": 2.0}, "units"),
        ({"units": "6"}, "units"),
        ({"shift": 0}, "shift"),
        ({"shift": 0.5}, "shift"),
        ({"shift": float("nan")}, "shift"),
        ({"shift": "0.1"}, "shift"),
        ({"rank": 0}, "rank"),
        ({"rank": 7}, "rank"),
        ({"rank": True}, "rank"),
        ({"bound": 0}, "bound"),
        ({"bound": 1.99}, "bound"),
        ({"bound": True}, "bound"),
        ({"bound": float("nan")}, "bound"),
        ({"bound": 1.5, "shift": 0.3}, "bound"),
        ({"non_autonomous": False}, "non_autonomous"),
    ],
)
def test_bad_arguments(settings, argument):
    with pytest.raises(ValueError, match=rf"`{argument}.*Received: \w+="):
        ki.NAISDense(**{"units": 6, **settings})


def test_checks_of_bounds():
    assert ki.NAISDense(6, bound=1.98).bound == 1.98
    assert ki.NAISDense(6, rank=6, shift=0.499).rank == 6


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_rounded_state_matrix_is_still_stable(policy, make_block, make_inputs, set_weights):
    layer = make_block("dense", step_size=1.0, dtype=policy, bound=2 * (1 - 0.01))
    set_weights(layer, make_inputs("dense", 16), "thrown")
    A = keras.ops.convert_to_numpy(layer.state_matrix()).astype(np.float64)
    assert spectral_radius(np.eye(6) + A) < 1
    assert scipy.linalg.eigvalsh((A + A.T) / 2).max() < 0
