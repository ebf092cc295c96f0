"""The optimizer and its schedules, against the formulas that they stand for."""

import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_iterconv as ki
from keras_iterconv._support.extras import MissingExtraError
from training.optimization import make_optimizer, make_schedule
from training.settings import PRESETS, make_settings

LIPPL = [name for name in PRESETS if "-w16-" in name and not name.endswith("-short")]


def rates(schedule, steps):
    """Return the learning rate at each step."""
    return np.array([float(schedule(step)) for step in steps])


def test_cosine_goes_from_the_rate_to_zero():
    settings = make_settings(model="nais10", epochs=5, learning_rate=0.3)
    steps = np.arange(51)
    expected = 0.15 * (1 + np.cos(np.pi * steps / 50))
    np.testing.assert_allclose(rates(make_schedule(settings, 10), steps), expected, atol=1e-7)


def test_step_divides_by_ten_where_n_does():
    settings = make_settings("nais-cifar10")
    schedule = make_schedule(settings, steps_per_epoch=7)
    last_and_first = np.array([0, 150 * 7 - 1, 150 * 7, 250 * 7 - 1, 250 * 7, 350 * 7 - 1, 350 * 7])
    expected = [0.1, 0.1, 0.01, 0.01, 0.001, 0.001, 0.0001]
    np.testing.assert_allclose(rates(schedule, last_and_first), expected, rtol=1e-6)


def test_step_divides_a_run_of_one_epoch_too():
    schedule = make_schedule(make_settings("nais-cifar10", epochs=1), steps_per_epoch=90)
    expected = [0.1, 0.1, 0.01, 0.01, 0.001, 0.001, 0.0001]
    np.testing.assert_allclose(rates(schedule, [0, 29, 30, 49, 50, 69, 70]), expected, rtol=1e-6)


def test_step_twice_divides_after_half_and_three_quarters():
    schedule = make_schedule(make_settings("resnet-w16-cifar10", epochs=8), steps_per_epoch=10)
    expected = [0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
    np.testing.assert_allclose(rates(schedule, [0, 39, 40, 59, 60, 79]), expected, rtol=1e-6)


def test_triangle_rises_to_the_rate_and_falls():
    settings = make_settings(model="nais10", epochs=4, learning_rate=0.5, schedule="triangle")
    schedule = make_schedule(settings, steps_per_epoch=50)
    copy = type(schedule).from_config(schedule.get_config())
    steps = np.arange(200)
    expected = np.interp(steps, [0, 46, 200], [0.1, 0.5, 0.035])
    np.testing.assert_allclose(rates(schedule, steps), expected, rtol=1e-5)
    np.testing.assert_array_equal(rates(copy, steps), rates(schedule, steps))
    # A run that is continued beyond its end does not ascend the gradient.
    assert float(schedule(300)) == pytest.approx(0.035)


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.9, False), (0.8, True)])
def test_momentum_is_that_of_a_plain_loop(momentum, nesterov):
    """Nesterov's form of Sutskever et al.: the gradient's step comes after that of the velocity."""
    settings = make_settings(
        model="nais10",
        schedule="constant",
        learning_rate=0.1,
        clip_norm=0.0,
        momentum=momentum,
        nesterov=nesterov,
    )
    variable = keras.Variable(np.array([[1.0, -2.0]], "float32"))
    optimizer = make_optimizer(settings, 1, [variable])
    weight, velocity = variable.numpy().astype(np.float64), 0.0
    for gradient in np.random.default_rng(0).normal(size=(5, 1, 2)):
        optimizer.apply([tf.constant(gradient, tf.float32)], [variable])
        velocity = momentum * velocity - 0.1 * gradient
        weight = weight + (momentum * velocity - 0.1 * gradient if nesterov else velocity)
    np.testing.assert_allclose(variable.numpy(), weight, rtol=1e-5)


def test_cyclical_is_a_triangular_wave():
    pytest.importorskip("tensorflow_addons", reason="needs the extra `addons` (Python 3.11)")
    settings = make_settings(model="nais10", epochs=4, learning_rate=0.5, schedule="cyclical")
    schedule = make_schedule(settings, steps_per_epoch=20)
    corners = np.arange(9) * 10
    wave = np.interp(np.arange(81), corners, np.where(np.arange(9) % 2, 0.5, 0.05))
    np.testing.assert_allclose(rates(schedule, np.arange(81.0)), wave, rtol=1e-5)


def test_cyclical_without_the_extra_names_the_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_addons", None)
    settings = make_settings(model="nais10", schedule="cyclical")
    with pytest.raises(MissingExtraError, match=r'pip install "keras-iterconv\[addons\]"'):
        make_schedule(settings, 10)


def test_weight_decay_shrinks_kernels_only():
    layer = keras.layers.Dense(3, bias_initializer="ones")
    layer.build((None, 4))
    kernel = layer.kernel.numpy()
    settings = make_settings(
        model="nais10", schedule="constant", learning_rate=0.5, weight_decay=0.1
    )
    optimizer = make_optimizer(settings, 1, layer.trainable_variables)
    optimizer.apply([np.zeros(v.shape, "float32") for v in layer.variables], layer.variables)
    np.testing.assert_allclose(layer.kernel.numpy(), kernel * (1 - 0.5 * 0.1), rtol=1e-6)
    np.testing.assert_array_equal(layer.bias.numpy(), np.ones(3))


def test_weight_decay_leaves_the_scales_of_stacked_blocks_alone():
    stage = ki.ResidualStage(3, 2)
    stage.build((None, 4, 4, 3))
    settings = make_settings(
        model="resnet_w8", schedule="constant", learning_rate=0.5, weight_decay=0.1
    )
    weights = stage.trainable_variables
    before = {v.name: v.numpy() for v in weights}
    optimizer = make_optimizer(settings, 1, weights)
    optimizer.apply([np.zeros(v.shape, "float32") for v in weights], weights)
    for v in weights:
        factor = 1 - 0.5 * 0.1 if "kernel" in v.name else 1
        np.testing.assert_allclose(v.numpy(), before[v.name] * factor, rtol=1e-6)


@pytest.mark.parametrize("preset", LIPPL)
def test_the_presets_of_lippl_et_al_decay_as_he_et_al_do(preset):
    """He et al.: the decay, 1e-4, is a part of the gradient, which goes through the momentum."""
    weight, velocity = 1.0, 0.0
    for _ in range(2000):
        velocity = 0.9 * velocity - 0.1 * 1e-4 * weight
        weight += velocity
    assert weight == pytest.approx(0.82, abs=0.005)

    kernel = keras.Variable(np.ones((2, 3), "float32"))
    optimizer = make_optimizer(make_settings(preset, schedule="constant"), 1, [kernel])
    optimizer.build([kernel])

    @tf.function
    def train():
        for _ in tf.range(2000):
            optimizer.apply([tf.zeros((2, 3))], [kernel])

    train()
    np.testing.assert_allclose(kernel.numpy(), weight, rtol=2e-3)


@pytest.mark.parametrize(("clip_norm", "length"), [(None, 5.0), (1.0, 1.0), (0.0, 50.0)])
def test_a_step_is_momentum_sgd_on_the_clipped_gradient(clip_norm, length):
    weight = keras.Variable(np.zeros(2, "float32"))
    settings = make_settings(
        model="nais10", schedule="constant", learning_rate=0.1, clip_norm=clip_norm
    )
    optimizer = make_optimizer(settings, 1, [weight])
    gradient = np.array([30.0, 40.0], "float32")
    velocity = np.zeros(2)
    position = np.zeros(2)
    for _ in range(3):
        optimizer.apply([gradient], [weight])
        velocity = 0.9 * velocity - 0.1 * gradient * length / 50
        position += velocity
    np.testing.assert_allclose(weight.numpy(), position, rtol=1e-6)
