"""What `Iterate` returns beside the last state, and the loss that makes it settle."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_iterconv as ki
from keras_iterconv.layers import Iterate
from keras_iterconv.stop import Halting, StablePrediction, UpdateNorm
from keras_iterconv.unrolling import Status
from tests.support.comparisons import assert_near
from tests.support.iterated_updates import GRUUpdate, Question, TwoStates, _scaled

X = _scaled(5, 4)
UPDATES = 6


def ready(stop=0.3, dtype="float64", update=GRUUpdate, **options):
    layer = Iterate(update(dtype=dtype), UPDATES, stop, dtype=dtype, **options)
    layer(X)
    rng = np.random.default_rng(11)
    for weight in layer.trainable_variables:
        weight.assign(weight + tf.constant(0.1 * rng.normal(size=weight.shape), weight.dtype))
    return layer


def python_states(layer, x, depths):
    """Return x(1) to x(UPDATES) of a Python loop, stopped samples repeated."""
    state, found = x, []
    for k in range(UPDATES):
        moved = tf.constant(np.asarray(depths)[:, None] > k)
        state = tf.where(moved, layer.update(state, x), state)
        found.append(state)
    return tf.stack(found, axis=1)


def gradients(layer, loss):
    x = tf.constant(X, tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = loss(x)
    return tape.gradient(value, [*(w.value for w in layer.trainable_variables), x])


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("stop", [None, 0.3])
def test_states_and_their_gradients_are_those_of_a_python_loop(stop, mode):
    layer = ready(stop, returns=("states",))
    plain = Iterate(layer.update, UPDATES, stop, dtype="float64")
    depths = plain(X, return_depth=True).depth.numpy()
    if stop is not None:
        assert len(set(depths)) > 1
    upstream = np.random.default_rng(3).normal(size=(5, UPDATES, 4))
    last = np.random.default_rng(4).normal(size=(5, 4))

    def loss(x):
        found = layer(x, training=True)
        return tf.reduce_sum(upstream * found["states"]) + tf.reduce_sum(last * found["state"])

    def expected(x):
        states = python_states(layer, x, depths)
        return tf.reduce_sum(upstream * states) + tf.reduce_sum(last * states[:, -1])

    found = layer(X, training=True)
    np.testing.assert_allclose(
        found["states"], python_states(layer, tf.constant(X, tf.float64), depths)
    )
    np.testing.assert_array_equal(found["state"], found["states"][:, -1])
    run = (
        tf.function(lambda: gradients(layer, loss))
        if mode == "graph"
        else (lambda: gradients(layer, loss))
    )
    assert_near(run(), gradients(layer, expected), 1e-10)


def test_nan_in_one_sample_touches_no_gradient_of_the_others():
    layer = ready(None, returns=("states",))

    def loss(x):
        states = layer(x, training=True)["states"]
        return tf.reduce_sum(tf.where(mask, states, tf.zeros_like(states)))

    mask = np.ones((5, UPDATES, 4), bool)
    mask[2] = False
    clean = gradients(layer, loss)
    spoilt = tf.tensor_scatter_nd_update(tf.constant(X), [[2, 0]], [np.nan])
    with tf.GradientTape() as tape:
        value = loss(tf.cast(spoilt, tf.float64))
    found = tape.gradient(value, [w.value for w in layer.trainable_variables])
    assert_near(found, clean[:-1], 1e-12)


def test_a_structure_of_states_is_returned_in_its_structure():
    layer = Iterate(TwoStates(), 4, initial_state=Question(), returns=("states",))
    found = layer(X)
    assert found["states"]["latent"].shape == (5, 4, 4)
    np.testing.assert_array_equal(found["states"]["answer"][:, -1], found["state"]["answer"])


def test_the_readout_is_that_of_the_last_state_and_trains():
    head = keras.layers.Dense(3)
    layer = Iterate(GRUUpdate(), 5, StablePrediction(head, 2), returns=("readout",))
    inputs = keras.Input((4,))
    model = ki.IterativeModel(inputs, layer(inputs)["readout"])
    found = layer(X)
    np.testing.assert_allclose(found["readout"], head(found["state"]), rtol=1e-6)
    before = head.kernel.numpy()
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(X, np.arange(5) % 3, verbose=0)
    assert np.abs(head.kernel - before).max() > 0


def test_a_loss_at_each_update_with_a_halting_head():
    """The loss of PonderNet, from what is returned."""
    head = keras.layers.Dense(1)
    layer = Iterate(GRUUpdate(), UPDATES, Halting(head), returns=("states",))
    found = layer(X, training=True)
    p = tf.sigmoid(head(found["states"]))[..., 0].numpy()
    left = np.cumprod(np.concatenate([np.ones((5, 1)), 1 - p[:, :-1]], axis=1), axis=1)
    weight = left * np.concatenate([p[:, :-1], np.ones((5, 1))], axis=1)
    np.testing.assert_allclose(weight.sum(axis=1), 1, rtol=1e-6)
    mean = (weight[..., None] * found["states"].numpy()).sum(axis=1)
    np.testing.assert_allclose(found["state"], mean, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("stop", [None, 0.3, UpdateNorm(0.3, relative=True)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"gradient": "recompute"},
        {"gradient": "truncated", "truncate": 1},
        {"returns": ("states",)},
    ],
    ids=str,
)
def test_settling_adds_the_relative_norm_of_the_last_update(stop, options):
    layer = ready(stop, settling=0.7, **options)
    depths = layer(X, return_depth=True).depth.numpy()

    def by_hand(x):
        states = tf.concat([x[:, None], python_states(layer, x, depths)], axis=1)
        total = 0.0
        for n, depth in enumerate(depths):
            last, before = states[n, depth], states[n, depth - 1]
            # A sample of one update has its whole gradient.
            if "truncate" in options and depth > 1:
                before = tf.stop_gradient(before)
                last = layer.update(before[None], x[n : n + 1])[0]
            total += tf.reduce_sum((last - before) ** 2) / tf.reduce_sum(last**2)
        return 0.7 * total / 5

    def loss(x):
        layer(x, training=True)
        return tf.add_n(layer.losses)

    x = tf.constant(X, tf.float64)
    np.testing.assert_allclose(loss(x), by_hand(x), rtol=1e-10)
    assert_near(gradients(layer, loss), gradients(layer, by_hand), 1e-9)
    layer(x)
    assert not layer.losses


def test_settling_of_a_batch_with_statistics_is_the_same_in_both_exact_modes():
    found = []
    for options in ({}, {"gradient": "recompute"}, {"returns": ("states",)}):
        keras.utils.set_random_seed(3)
        update = keras.Sequential(
            [
                keras.layers.Dense(4, "tanh", dtype="float64"),
                keras.layers.BatchNormalization(dtype="float64"),
            ]
        )
        layer = Iterate(update, 4, 0.8, settling=1.0, dtype="float64", **options)

        def loss(x, layer=layer):
            layer(x, training=True)
            return tf.add_n(layer.losses)

        layer(X)
        found.append(gradients(layer, loss))
    assert_near(found[0], found[1], 1e-10)
    assert_near(found[0], found[2], 1e-10)


def test_settling_makes_a_net_settle():
    keras.utils.set_random_seed(1)
    rests = {}
    for settling in (0.0, 3.0):
        inputs = keras.Input((4,))
        layer = Iterate(keras.layers.Dense(4), 4, settling=settling)
        model = ki.IterativeModel(inputs, keras.layers.Dense(3)(layer(inputs)))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(0.03), loss)
        model.fit(X, np.arange(5) % 3, epochs=60, verbose=0)
        state = layer(X)
        rests[settling] = np.linalg.norm(layer.update(state) - state) / np.linalg.norm(state)
    assert rests[3.0] < 0.3 * rests[0.0]


def test_a_sample_that_is_not_finite_adds_nothing():
    layer = Iterate(keras.layers.Rescaling(0.5), 3, settling=1.0)
    x = np.array([[1.0, 2.0], [np.nan, 1.0]], np.float32)
    end = layer(x, training=True, return_depth=True)
    np.testing.assert_array_equal(end.status, [Status.MAX_UNROLL, Status.NOT_FINITE])
    # The last update halves the state: its norm is that of the new state.
    np.testing.assert_allclose(layer.losses[0], 0.5)


def test_a_file_keeps_what_is_returned(tmp_path):
    inputs = keras.Input((4,))
    layer = Iterate(GRUUpdate(), 3, returns=("states",), settling=0.1)
    model = keras.Model(inputs, layer(inputs))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for a, b in zip(tf.nest.flatten(model(X)), tf.nest.flatten(loaded(X)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert loaded.layers[-1].settling == 0.1
    ki.set_depth(model, max_unroll=7)
    assert model(X)["states"].shape == (5, 7, 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"returns": "states"}, "must be a tuple of names"),
        ({"returns": ("state",)}, "returns='state'"),
        ({"returns": ("readout",)}, "needs a stopping rule with a readout"),
        ({"returns": ("states",), "gradient": "recompute"}, 'needs `gradient="unroll"`'),
        ({"settling": 0.1, "gradient": "implicit"}, 'gradient="implicit"` needs `settling=0`'),
        ({"settling": -1.0}, "`settling` must lie in"),
        ({"settling": 0.1, "stop": Halting(keras.layers.Dense(1))}, "is not for `Halting`"),
    ],
)
def test_what_cannot_be_returned_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Iterate(keras.layers.Dense(4), 5, **options)
