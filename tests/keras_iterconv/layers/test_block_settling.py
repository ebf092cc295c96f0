"""The loss by which the states of NAIS blocks learn to settle."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_iterconv as ki
from keras_iterconv.layers import Iterate
from keras_iterconv.stop import Halting
from keras_iterconv.unrolling import Status
from tests.support.builders import inputs_for
from tests.support.comparisons import assert_near

WEIGHT = 0.7
# At these samples stop at different updates, by kind and activation.
THRESHOLDS = {
    ("dense", "relu"): 0.1765,
    ("dense", "tanh"): 0.1625,
    ("conv", "relu"): 0.56,
    ("conv", "tanh"): 1.5,
}


def ready(make_block, set_weights, kind, u, **settings):
    """Return a block with random weights, float64."""
    settings = {"settling": WEIGHT, "dtype": "float64", "max_unroll": 5, **settings}
    return set_weights(make_block(kind, **settings), u, "random")


def norms_by_hand(layer, u):
    """Return the squared relative norm of each sample's last update, by single updates."""
    found, depths = [], []
    for n in range(len(u)):
        one = u[n : n + 1].astype(np.float64)
        x = one if layer.initial_state == "input" else np.zeros_like(one)
        for k in range(layer.max_unroll):
            before, x = x, layer.update(x, one, k).numpy()
            if layer.threshold is not None and np.linalg.norm(x - before) < layer.threshold:
                break
        found.append(np.sum((x - before) ** 2) / np.sum(x**2))
        depths.append(k + 1)
    return np.array(found), depths


@pytest.mark.parametrize("kind", ["dense", "conv"])
@pytest.mark.parametrize(
    "settings",
    [
        {"gradient": "unroll"},
        {"gradient": "recompute"},
        {"gradient": "unroll", "threshold": ..., "activation": "tanh"},
        {"gradient": "recompute", "threshold": ...},
        {"gradient": "unroll", "tied": False},
    ],
    ids=str,
)
def test_the_loss_and_its_gradient_are_those_of_single_updates(
    make_block, make_inputs, set_weights, kind, settings
):
    """In float64, with central differences along a random direction of all weights."""
    u = inputs_for(make_inputs, kind)
    if "threshold" in settings:
        chosen = THRESHOLDS[kind, settings.get("activation", "relu")]
        settings = {**settings, "threshold": chosen}
    layer = ready(make_block, set_weights, kind, u, **settings)
    norms, depths = norms_by_hand(layer, u)
    if "threshold" in settings:
        assert len(set(depths)) > 1
    with tf.GradientTape() as tape:
        end = layer(tf.constant(u, tf.float64), training=True, return_depth=True)
        loss = tf.add_n(layer.losses)
    np.testing.assert_array_equal(end.depth, depths)
    np.testing.assert_allclose(loss, WEIGHT * norms.mean(), rtol=1e-10)
    rng, step = np.random.default_rng(3), 1e-6
    directions = [rng.normal(size=weight.shape) for weight in layer.trainable_variables]
    found = tape.gradient(loss, layer.trainable_variables)
    along = sum(np.sum(g * d) for g, d in zip(found, directions, strict=True))
    values = []
    for distance in (step, -2 * step):
        for weight, direction in zip(layer.trainable_variables, directions, strict=True):
            weight.assign_add(distance * direction)
        values.append(WEIGHT * norms_by_hand(layer, u)[0].mean())
    np.testing.assert_allclose(along, (values[0] - values[1]) / (2 * step), rtol=1e-5)


@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_without_it_nothing_is_added_and_it_is_for_training_alone(
    make_block, make_inputs, set_weights, kind
):
    u = tf.constant(make_inputs(kind))
    for settling, training in ((0.0, True), (WEIGHT, False)):
        layer = set_weights(make_block(kind, settling=settling), u, "random")
        layer(u, training=training)
        assert not layer.losses


def test_the_gradient_of_the_task_is_untouched(make_block, make_inputs, set_weights):
    u = inputs_for(make_inputs, "conv", samples=5)
    found = []
    for settling in (0.0, WEIGHT):
        layer = ready(make_block, set_weights, "conv", u, settling=settling, threshold=0.56)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(tf.constant(u, tf.float64), training=True) ** 2)
        found.append(tape.gradient(loss, layer.trainable_variables))
    assert_near(found[0], found[1], 1e-12)


def test_a_sample_that_is_not_finite_adds_nothing(make_block, make_inputs, set_weights):
    def gradients(u):
        layer = ready(make_block, set_weights, "dense", u[:3])
        with tf.GradientTape() as tape:
            end = layer(tf.constant(u, tf.float64), training=True, return_depth=True)
            loss = tf.add_n(layer.losses) * len(u)
        return end.status.numpy(), tape.gradient(loss, layer.trainable_variables)

    u = make_inputs("dense")
    spoilt = np.concatenate([u, np.full((1, u.shape[1]), np.nan, np.float32)])
    statuses, found = gradients(spoilt)
    assert statuses[-1] == Status.NOT_FINITE
    assert_near(found, gradients(u)[1], 1e-12)


def test_a_net_learns_to_settle():
    images = np.random.default_rng(0).normal(size=(32, 6, 1, 1)).astype(np.float32)
    rests = {}
    for settling in (0.0, 100.0):
        keras.utils.set_random_seed(0)
        model = ki.create_model(
            "nais_dense", (6, 1, 1), 3, units=6, max_unroll=8, step_size=0.5, settling=settling
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(0.02), loss)
        model.fit(images, np.arange(32) % 3, epochs=20, verbose=0)
        (block,) = ki.iterated_blocks(model)
        assert block.settling == settling
        assert type(block).from_config(block.get_config()).settling == settling
        inputs = keras.Model(model.input, block.input)(images)
        state = block(inputs)
        rests[settling] = np.linalg.norm(block.update(state, inputs) - state) / np.linalg.norm(
            state
        )
    assert rests[100.0] < 0.5 * rests[0.0]


@pytest.mark.parametrize(
    "make",
    [
        lambda: ki.NAISDense(4, 5, 0.1, settling=1.0),
        lambda: Iterate(keras.layers.Dense(4, "tanh"), 5, 0.1, settling=1.0),
        lambda: Iterate(keras.layers.Dense(4, "tanh"), 5, Halting(keras.layers.Dense(1), ponder=1)),
    ],
)
def test_added_losses_train_in_mixed_precision(make):
    keras.config.set_dtype_policy("mixed_float16")
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(3, dtype="float32")(make()(inputs)))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    history = model.fit(np.ones((6, 4)), np.arange(6) % 3, verbose=0)
    assert np.isfinite(history.history["loss"]).all()


@pytest.mark.parametrize("gradient", ["frozen", "implicit"])
def test_modes_without_a_gradient_of_the_last_update_are_refused(gradient):
    with pytest.raises(ValueError, match=f'gradient="{gradient}"` needs `settling=0`'):
        ki.NAISDense(4, activation="tanh", gradient=gradient, settling=0.1)


def test_a_solver_for_evaluation_settles_in_training():
    layer = ki.NAISDense(4, 9, 1e-3, activation="tanh", solver="anderson", settling=0.1)
    layer(np.ones((2, 4), np.float32), training=True)
    assert len(layer.losses) == 1
    assert layer.inexact_gradients == ()


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), True, "1"])
def test_another_value_than_a_weight_is_refused(value):
    for make in (
        lambda: ki.NAISConv2D(4, settling=value),
        lambda: Iterate(ki.NAISDense(4), settling=value),
    ):
        with pytest.raises(ValueError, match="`settling` must lie in"):
            make()
