"""Gradients of tied residual stages: finite differences, untied stages, the unrolled ones."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.support.comparisons import assert_near
from tests.support.tied_stages import (
    CAPPED,
    images,
    make_slow_stage,
    make_stage,
    untied_copy,
)


@pytest.mark.parametrize("settings", [{}, CAPPED], ids=["previous", "capped, stage input"])
def test_one_update_trains_as_an_untied_block_does(settings):
    # The untied block normalises by the fused operation; its gradients are tested by stock layers.
    stage = make_stage(1, **settings)
    copy, x, weigh = untied_copy(stage), images(), images(seed=3)
    # Untied blocks make one step of power iteration in each call; here their norms are converged.
    copy._lipschitz_bound = lambda block: copy._converged_bound(
        block, tolerance=1e-3, continued=True
    )
    results = []
    for layer in (stage, copy):
        with tf.GradientTape() as tape:
            moving = tf.constant(x)
            tape.watch(moving)
            out = layer(moving, training=True)
            loss = tf.reduce_sum(out * weigh)
        gradients = tape.gradient(loss, [moving, *layer.trainable_variables])
        results.append([out, *gradients, *layer.weights])
    for got, expected in zip(*map(tuple, results), strict=True):
        expected = np.reshape(expected, got.shape)
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["kernel1", "gamma1", "beta2", "kernel2"])
def test_float64_gradients_are_those_of_finite_differences(name):
    keras.config.set_dtype_policy("float64")
    stage = make_stage(4, skip_from="stage_input")
    weight, x, weigh = getattr(stage, name), images(dtype=np.float64), images(seed=5)
    direction = np.random.default_rng(6).normal(size=weight.shape)
    start = weight.numpy()

    def loss(step):
        weight.assign(start + step * direction)
        return tf.reduce_sum(stage(x, training=True) * weigh)

    with tf.GradientTape() as tape:
        value = loss(0.0)
    slope = float(np.sum(tape.gradient(value, weight) * direction))
    h = 1e-6
    assert slope == pytest.approx(float(loss(h) - loss(-h)) / (2 * h), rel=1e-5)


@pytest.mark.parametrize("name", ["kernel1", "gamma1", "kernel2", "gamma2"])
def test_the_gradient_of_a_cap_leaves_out_the_variances_of_the_batch(name):
    keras.config.set_dtype_policy("float64")
    stage = make_stage(8, **CAPPED)
    weight, x, weigh = getattr(stage, name), images(dtype=np.float64), images(seed=5)
    direction = np.random.default_rng(6).normal(size=weight.shape)
    start, first = weight.numpy(), {}

    def bound(block, constant):
        for key in ("variance1", "variance2"):
            first.setdefault(key, getattr(block, key))
        block = block._replace(**first) if constant else block
        return stage._converged_bound(block, tolerance=1e-9)

    def loss(step, constant=True):
        weight.assign(start + step * direction)
        stage._lipschitz_bound = lambda block: bound(block, constant)
        return tf.reduce_sum(stage(x, training=True) * weigh)

    with tf.GradientTape() as tape:
        value = loss(0.0)
    slope = float(np.sum(tape.gradient(value, weight) * direction))
    h = 1e-6
    differences = [float(loss(h, kept) - loss(-h, kept)) / (2 * h) for kept in (True, False)]
    assert slope == pytest.approx(differences[0], rel=1e-4)
    # The second kernel and normalisation do not enter the variances.
    complete = name in ("kernel2", "gamma2")
    assert (slope == pytest.approx(differences[1], rel=1e-2)) is complete


def gradients_of(stage, x, graph=False):
    weigh = np.random.default_rng(7).normal(size=x.shape)

    def run(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(stage(x, training=True) * weigh.astype(x.dtype.name))
        return tape.gradient(loss, [x, *stage.trainable_variables])

    return (tf.function(run) if graph else run)(tf.constant(x))


@pytest.mark.parametrize(
    ("slow", "dtype", "tolerance", "graph"),
    [
        (False, "float32", 1e-4, True),
        (False, "float64", 1e-5, False),
        (True, "float64", 1e-5, False),
    ],
)
def test_the_implicit_gradient_is_the_unrolled_one_at_convergence(slow, dtype, tolerance, graph):
    keras.config.set_dtype_policy(dtype)
    settings = {"blocks": 1000, "threshold": 1e-11 if dtype == "float64" else 1e-5}
    if not slow:
        settings |= CAPPED
    found = []
    for gradient in ("unroll", "implicit"):
        make = make_slow_stage if slow else make_stage
        stage = make(gradient=gradient, **settings)
        found.append(gradients_of(stage, images(4, dtype=dtype), graph))
        np.testing.assert_array_equal(stage(images(4), return_depth=True).status, 0)
    assert_near(found[1], found[0], tolerance)


def test_recomputing_changes_no_gradient():
    found = [
        gradients_of(make_stage(30, threshold=1e-3, gradient=gradient, **CAPPED), images(), True)
        for gradient in ("unroll", "recompute")
    ]
    assert_near(found[1], found[0], 1e-5)


def test_before_convergence_the_implicit_gradient_is_another():
    exact, implicit = (
        gradients_of(make_slow_stage(blocks=3, gradient=gradient), images())
        for gradient in ("unroll", "implicit")
    )
    error = np.linalg.norm(exact[1] - implicit[1]) / np.linalg.norm(exact[1])
    assert error > 0.5


def test_a_schedule_has_the_exact_gradient():
    x, found = images(), []
    for gradient in ("unroll", "implicit"):
        stage = make_stage(gradient=gradient, **CAPPED)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(stage(x, training=True, schedule=[0, 1])))
        found.append(tape.gradient(loss, stage.trainable_variables))
    assert_near(found[1], found[0], 1e-5)


def test_a_frozen_stage_normalises_by_its_moving_statistics():
    stage, x = make_stage(gradient="implicit", threshold=1e-6, **CAPPED), images()
    expected, before = stage(x).numpy(), stage.get_weights()
    stage.trainable = False
    moving = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(moving)
        state = stage(moving, training=True)
    np.testing.assert_array_equal(state, expected)
    assert np.abs(tape.gradient(state, moving)).max() > 0
    for a, b in zip(before, stage.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
