"""`solver="anderson"` of both blocks: arguments, files, training, and the evaluations it takes."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_iterconv as ki
from keras_iterconv.unrolling import Status

KINDS = ("dense", "conv")
SETTLES = {"threshold": 1e-4, "activation": "tanh", "max_unroll": 1000, "step_size": 0.3}
# Rates of which the slowest is not far from the fastest.
MARGINS = {"dense": {"shift": 0.2}, "conv": {"margin": 0.3, "center_margin": 0.5}}


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def pair(kind, make_block, make_inputs, set_weights):
    """Return two blocks of the same weights, accelerated and plain, and inputs."""
    u = make_inputs(kind, 7)
    settings = {**SETTLES, **MARGINS[kind]}
    blocks = [make_block(kind, solver=solver, **settings) for solver in ("anderson", "picard")]
    set_weights(blocks[0], u, "random")
    blocks[1].build(u.shape)
    blocks[1].set_weights(blocks[0].get_weights())
    return *blocks, u


@pytest.mark.parametrize("value", ["newton", None, 1])
def test_unknown_solvers(kind, value, make_block):
    with pytest.raises(ValueError, match=r"`solver` must .*Received: solver="):
        make_block(kind, solver=value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"activation": "relu"}, r"needs `activation=\"tanh\"` .*Received: .*two_sided=False"),
        ({"tied": False}, r"`tied=True`.*Received: tied=False"),
        ({"threshold": None}, r"`threshold` must be a number .*Received: threshold=None"),
    ],
)
def test_what_it_needs(kind, settings, message, make_block):
    make_block(kind, solver="anderson", **SETTLES)
    with pytest.raises(ValueError, match=message):
        make_block(kind, solver="anderson", **{**SETTLES, **settings})


def test_its_threshold_may_change_but_not_go(pair):
    layer, _, u = pair
    before = layer(u, return_depth=True).depth.numpy()
    layer.threshold = 0.05
    with pytest.raises(ValueError, match="`threshold` must be a number"):
        layer.threshold = None
    assert layer.threshold == 0.05
    assert (layer(u, return_depth=True).depth.numpy() < before).all()


@pytest.mark.parametrize("threshold", [1e-39, 5e-324])
def test_a_constant_state_converges_at_every_positive_threshold(pair, threshold):
    *layers, u = pair
    for layer in layers:
        layer.threshold = threshold
        layer.set_weights([np.zeros(weight.shape) for weight in layer.weights])
        end = layer(np.zeros_like(u), return_depth=True)
        np.testing.assert_array_equal(end.depth, np.ones(len(u)))
        np.testing.assert_array_equal(end.status, np.full(len(u), Status.CONVERGED))


def test_config_and_file(pair, tmp_path):
    layer, plain, u = pair
    assert layer.get_config()["solver"] == "anderson"
    assert plain.get_config()["solver"] == "picard"
    twin = type(layer).from_config(layer.get_config())
    assert twin.solver == "anderson"
    # A file from before the option.
    old = {key: value for key, value in plain.get_config().items() if key != "solver"}
    assert type(plain).from_config(old).solver == "picard"

    inputs = keras.Input(u.shape[1:])
    model = keras.Model(inputs, layer(inputs, return_depth=True)._asdict())
    model.save(tmp_path / "model.keras")
    model.export(tmp_path / "model", verbose=False)
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.get_layer(layer.name).solver == "anderson"
    served = tf.saved_model.load(tmp_path / "model")
    expected = model(u)
    np.testing.assert_array_equal(loaded(u)["depth"], expected["depth"])
    np.testing.assert_allclose(served.serve(u)["state"], expected["state"], atol=1e-3)
    assert served.serve(u[:2])["depth"].shape == (2,)


def test_converges_to_the_state_of_the_plain_loop_in_fewer_evaluations(pair):
    layer, plain, u = pair
    fast, slow = (block(u, return_depth=True) for block in (layer, plain))
    np.testing.assert_array_equal(fast.status, [Status.CONVERGED] * 7)
    np.testing.assert_array_equal(slow.status, [Status.CONVERGED] * 7)
    assert fast.depth.numpy().sum() < slow.depth.numpy().sum()
    # One more plain update moves neither by the threshold, in a norm that may grow a little.
    for state in (fast.state, slow.state):
        moved = (layer.update(state, u) - state).numpy().reshape(7, -1)
        assert np.linalg.norm(moved, axis=1).max() < 1.05 * SETTLES["threshold"]
    for block in (layer, plain):
        block.threshold = 1e-5
    # 1e-5 over h and the slowest rate, each state for itself.
    rate = 0.2 if isinstance(layer, ki.NAISDense) else 0.3
    apart = (layer(u) - plain(u)).numpy().reshape(7, -1)
    assert np.abs(apart).max() < 2 * 1e-5 / (0.3 * rate) + 1e-5


def test_a_slow_dense_block_takes_fewer_evaluations():
    u = np.random.default_rng(0).normal(size=(8, 16)).astype(np.float32)
    depths = []
    for solver in ("picard", "anderson"):
        keras.utils.set_random_seed(0)
        block = ki.NAISDense(
            16, 3000, 1e-4, step_size=0.1, shift=0.05, activation="tanh", solver=solver
        )
        _, depth, status = block(u, return_depth=True)
        assert (status.numpy() == Status.CONVERGED).all()
        depths.append(depth.numpy().mean())
    assert depths[1] * 3 < depths[0]


def test_training_goes_update_by_update(pair):
    layer, plain, u = pair
    for block in pair[:2]:
        block.max_unroll = 12
    results = []
    for block in (layer, plain):
        with tf.GradientTape() as tape:
            end = block(u, training=True, return_depth=True)
            loss = tf.reduce_sum(end.state**2)
        results.append((end, tape.gradient(loss, block.trainable_variables)))
    for a, b in zip(*(tf.nest.flatten(result) for result in results), strict=True):
        np.testing.assert_array_equal(a, b)
    assert layer(u, return_depth=True).depth.numpy().max() > 12


def test_training_a_net_and_asking_for_its_depth():
    model = ki.create_model(
        "nais_adaptive", (8, 8, 1), 3, filters=(4,), blocks=2,
        activation="tanh", threshold=1e-3, max_unroll=30, solver="anderson",
    )  # fmt: skip
    assert {block.solver for block in ki.iterated_blocks(model)} == {"anderson"}
    images = np.random.default_rng(0).normal(size=(8, 8, 8, 1)).astype(np.float32)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.01), loss)
    model.fit(images, np.arange(8) % 3, verbose=0)
    logits = model.predict(images, verbose=0)
    view = ki.with_depth(model)(images)
    np.testing.assert_allclose(view["logits"], logits, atol=1e-3)
    assert view["depth"].shape == view["status"].shape == (8, 2)
    with pytest.raises(ValueError, match="`threshold` must be a number"):
        ki.set_depth(model, threshold=None)
    ki.set_depth(model, threshold=1e-2)
