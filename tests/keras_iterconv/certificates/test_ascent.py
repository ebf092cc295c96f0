"""The ascent finds norms that NumPy knows, and never more than a bound allows."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_iterconv as ki
from keras_iterconv.certificates import ascent
from keras_iterconv.certificates.ascent import largest_ratio

ORDER = {"2": 2, "infinity": np.inf}


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("norm", ORDER)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_norm_of_a_matrix(norm, dtype):
    W, b = draw(8, 12).astype(dtype), draw(12, seed=1).astype(dtype)
    # One singular value stands out, so that some dozens of steps suffice.
    W += 2 * np.outer(W[:, 0], W[0]) / 3
    found = largest_ratio(lambda x: tf.matmul(x, W) + b, draw(3, 8, seed=2).astype(dtype), norm)
    assert found == pytest.approx(np.linalg.norm(W.T, ORDER[norm]), rel=1e-4)


def test_the_infinity_norm_may_sit_in_an_output_that_is_not_tried_first():
    W = draw(8, 40)
    W[:, 1] *= 4
    found = largest_ratio(lambda x: tf.matmul(x, W), draw(3, 8, seed=2), "infinity")
    assert found == pytest.approx(np.abs(W[:, 1]).sum(), rel=1e-4)


def test_the_ascent_itself_finds_the_signs(monkeypatch):
    monkeypatch.setattr(ascent._Pairs, "best_direction", lambda self, x, d, radius: d)
    W = draw(8, 1)
    found = largest_ratio(lambda x: tf.matmul(x, W), draw(3, 8, seed=2), "infinity")
    assert found == pytest.approx(np.abs(W).sum(), rel=1e-4)


def test_x_moves_to_where_the_slopes_are():
    # From 1 alone the steepest chord is (tanh 5 - tanh 3.5) / 0.3 = 0.006.
    found = largest_ratio(lambda x: tf.tanh(5 * x), np.ones((1, 1), np.float32))
    assert 4 < found <= 5 * (1 + 1e-5)


@pytest.mark.parametrize("norm", ORDER)
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_it_comes_near_the_jacobian_s_norm_and_passes_no_bound(norm, activation):
    V, W = draw(10, 16) / 3, draw(16, 6, seed=1) / 3
    sigma = {"relu": tf.nn.relu, "tanh": tf.nn.tanh}[activation]
    x = draw(6, 10, seed=2)
    pre = x.astype(np.float64) @ V
    slopes = pre > 0 if activation == "relu" else 1 - np.tanh(pre) ** 2
    local = max(np.linalg.norm((V * s @ W).T, ORDER[norm]) for s in slopes)
    found = largest_ratio(lambda x: tf.matmul(sigma(tf.matmul(x, V)), W), x, norm)
    bound = np.linalg.norm(V.T, ORDER[norm]) * np.linalg.norm(W.T, ORDER[norm])
    if norm == "2":
        assert found >= 0.97 * local
    else:
        assert found >= 0.9 * local
    assert found <= bound * (1 + 1e-5)
    # x moves, too: to where the slopes are large.
    if activation == "tanh":
        assert found > local


@pytest.mark.parametrize("cap", [0.5, 0.95])
def test_two_hundred_pairs_of_states_do_not_beat_the_cap(cap):
    stage = ki.ResidualStage(4, 1, "stage_input", lipschitz_cap=cap)
    stage.build((None, 6, 5, 4))
    rng = np.random.default_rng(0)
    for name in ("gamma1", "gamma2", "beta1", "beta2", "variance1", "variance2"):
        getattr(stage, name).assign(rng.uniform(0.3, 2, stage.gamma1.shape))
    stage.converge_cap()
    states = 3 * draw(200, 6, 5, 4)
    x = tf.zeros(states.shape[1:])
    found = largest_ratio(lambda z: stage.update(z, x[tf.newaxis], 0), states)
    assert 0.3 * cap < found <= cap * (1 + 1e-5)


def test_the_same_each_time_and_more_with_more_steps():
    model = keras.Sequential([keras.layers.Dense(9, activation="tanh"), keras.layers.Dense(5)])
    x = draw(3, 7)
    model(x)
    found = [largest_ratio(model, x, steps=steps) for steps in (1, 1, 5, 40)]
    assert found[0] == found[1]
    assert found[1] < found[2] < found[3]


def test_functions_without_slope_and_inputs_without_scale():
    assert largest_ratio(lambda x: 0 * x, draw(2, 3)) == 0
    assert largest_ratio(lambda x: tf.ones_like(x), draw(2, 3), "infinity") == 0
    assert largest_ratio(lambda x: 2 * x, np.zeros((2, 3), np.float32)) == pytest.approx(2)
    assert np.isnan(largest_ratio(lambda x: x * float("nan"), draw(2, 3)))


def test_images_to_images():
    found = largest_ratio(lambda x: x[:, ::2, 1:], draw(2, 6, 5, 3), "infinity")
    assert found == pytest.approx(1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"norm": "1"}, "`norm` must be one of"),
        ({"steps": 0}, "`steps` must be"),
        ({"x": draw(4)}, "`x` must be a batch"),
        ({"x": draw(0, 4)}, "`x` must be a batch"),
        ({"x": np.zeros((2, 3), int)}, "`x` must be a batch"),
    ],
)
def test_bad_arguments(settings, message):
    with pytest.raises(ValueError, match=message):
        largest_ratio(**{"function": lambda x: x, "x": draw(2, 3), **settings})
