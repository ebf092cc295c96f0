"""How deep a net is, and how deep it went."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_iterconv as ki
from keras_iterconv.unrolling import Status


def make_net(**settings):
    settings = {"filters": (4, 6), "blocks": 2, "threshold": 1e-3, **settings}
    return ki.create_model("nais_adaptive", (6, 6, 2), 3, **settings)


def images(samples=6):
    x = np.random.default_rng(0).normal(size=(samples, 6, 6, 2))
    return (x * np.logspace(-4, 1, samples).reshape(-1, 1, 1, 1)).astype(np.float32)


def test_outputs_of_every_block_in_order():
    model, x = make_net(max_unroll=4), images()
    out = ki.with_depth(model)(x)
    np.testing.assert_allclose(out["logits"], model(x), atol=1e-6)
    depths, statuses, state = [], [], x
    for layer in model.layers[1:]:
        if isinstance(layer, ki.NAISConv2D):
            state, depth, status = layer(state, return_depth=True)
            depths.append(depth)
            statuses.append(status)
        else:
            state = layer(state)
    np.testing.assert_array_equal(out["depth"], np.stack(depths, axis=1))
    np.testing.assert_array_equal(out["status"], np.stack(statuses, axis=1))
    assert out["depth"].shape == (6, 4)
    assert set(np.ravel(out["status"])) == {Status.CONVERGED, Status.MAX_UNROLL}
    assert len(set(np.ravel(out["depth"]))) > 2


def test_float64_stays_float64():
    inputs = keras.Input((3,), dtype="float64")
    model = keras.Model(inputs, ki.NAISDense(3, max_unroll=5, dtype="float64")(inputs))
    x = tf.constant(np.random.default_rng(0).normal(size=(4, 3)))
    found = ki.with_depth(model)(x)["logits"]
    assert found.dtype == "float64"
    np.testing.assert_array_equal(found, model(x))


def test_weights_are_shared():
    model, x = make_net(), images()
    deep = ki.with_depth(model)
    assert {id(w) for w in deep.weights} == {id(w) for w in model.weights}
    before = deep(x)["logits"]
    for weight in model.trainable_variables:
        weight.assign(1.5 * weight)
    assert np.abs(deep(x)["logits"] - before).max() > 0.01
    np.testing.assert_allclose(deep(x)["logits"], model(x), atol=1e-6)


def test_the_model_itself_stays_as_it_is():
    model, x = make_net(), images()
    # A coupling that cannot be written to a file: nothing may try.
    model.compile("sgd", "mse", coupling=lambda gradients, variables: gradients)
    expected, config = model(x).numpy(), model.get_config()
    for _ in range(2):
        deep = ki.with_depth(model)
        assert not deep.compiled
    np.testing.assert_array_equal(model(x), expected)
    assert model.get_config() == config
    assert type(model) is ki.IterativeModel


def test_fixed_depth_and_residual_nets():
    model = ki.create_model("nais10", (6, 6, 2), 3, filters=(4,), blocks=2)
    out = ki.with_depth(model)(images())
    np.testing.assert_array_equal(out["depth"], np.full((6, 2), 10))
    np.testing.assert_array_equal(out["status"], np.full((6, 2), Status.MAX_UNROLL))
    x = images()
    x[2] = np.nan
    out = ki.with_depth(ki.create_model("resnet54", (6, 6, 2), 3, filters=(4,), blocks=2))(x)
    np.testing.assert_array_equal(out["depth"], np.ones((6, 2)))
    np.testing.assert_array_equal(out["status"][:, 0], [1, 1, Status.NOT_FINITE, 1, 1, 1])


def test_a_model_with_depth_can_be_saved(tmp_path):
    deep, x = ki.with_depth(make_net()), images()
    deep.save(tmp_path / "deep.keras")
    loaded = keras.models.load_model(tmp_path / "deep.keras")
    got, expected = loaded(x), deep(x)
    for key in ("logits", "depth", "status"):
        np.testing.assert_array_equal(got[key], expected[key])


def test_a_users_own_functional_model():
    inputs = keras.Input((4,))
    state = ki.NAISDense(5, max_unroll=7)(inputs)
    shortcut = keras.layers.Dense(5)(inputs)
    state = ki.ResidualUpdate()(
        [keras.layers.Add()([state, shortcut]), keras.layers.Dense(5)(state)]
    )
    model = keras.Model(inputs, keras.layers.Dense(2)(state))
    assert ki.processing_depth(model) == 8
    assert [type(b) for b in ki.iterated_blocks(model)] == [ki.NAISDense, ki.ResidualUpdate]
    x = np.ones((3, 4), np.float32)
    out = ki.with_depth(model)(x)
    np.testing.assert_allclose(out["logits"], model(x), atol=1e-6)
    np.testing.assert_array_equal(out["depth"], [[7, 1]] * 3)


def test_models_without_depth():
    inputs = keras.Input((4,))
    block = ki.NAISDense(4)
    with pytest.raises(ValueError, match=r"`model` must contain at least one block"):
        ki.with_depth(keras.Model(inputs, keras.layers.Dense(2)(inputs)))
    for wrong in (block, None, "nais10"):
        with pytest.raises(ValueError, match=r"`model` must be a Keras model.*Received: model="):
            ki.with_depth(wrong)


@pytest.mark.parametrize("structure", [lambda x: x, lambda x: [x]])
def test_operations_and_lists_of_one_tensor(structure):
    """Operations take several arguments, where most layers take one."""
    inputs = keras.Input((6, 5, 3))
    state = ki.NAISConv2D(3, max_unroll=30, threshold=0.1)(inputs / 255.0)
    state = keras.ops.multiply(state + inputs, 2.0)[:, 1:-1] * state[:, 1:-1]
    outputs = keras.layers.Dense(4)(keras.layers.Flatten()(state))
    model = ki.IterativeModel(structure(inputs), structure(outputs))
    images = np.random.default_rng(0).uniform(0, 255, (7, 6, 5, 3)).astype(np.float32)
    found = ki.with_depth(model).predict(images, verbose=0)
    expected = keras.tree.flatten(model.predict(images, verbose=0))[0]
    np.testing.assert_allclose(found["logits"], expected, rtol=1e-5)
    assert found["depth"].shape == (7, 1)
    report = ki.accuracy_by_depth(model, (images, np.zeros(7, int)), max_unrolls=[1, 2])
    assert report.samples == 7
    images[3, 0, 0, 0] = np.nan
    assert [bad.sample for bad in ki.find_not_finite(model, images)] == [3]


@pytest.mark.parametrize("options", [{"schedule": [2, 0]}, {"training": True}])
def test_a_stage_is_called_as_the_model_calls_it(options, tmp_path):
    inputs = keras.Input((6, 6, 2))
    state = ki.ResidualStage(2, 3)(inputs, **options)
    model = ki.IterativeModel(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(state)))
    view = ki.with_depth(model)
    view.save(tmp_path / "view.keras")
    for seen in (view, keras.models.load_model(tmp_path / "view.keras")):
        answers = seen(images())
        np.testing.assert_allclose(answers["logits"], model(images()), atol=1e-5)
        assert set(np.ravel(answers["depth"])) == {len(options.get("schedule", range(3)))}
