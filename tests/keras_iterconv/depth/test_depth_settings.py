"""A net that is set to another depth is the net that was built with that depth."""

import keras
import numpy as np
import pytest

import keras_iterconv as ki

FIXED = {"max_unroll": 4, "threshold": None}
ADAPTIVE = {"max_unroll": 12, "threshold": 0.03}


def make_net(max_unroll, threshold, tied=True):
    """Return a compiled net of two blocks, the same weights each time."""
    keras.utils.set_random_seed(3)
    settings = {"max_unroll": max_unroll, "threshold": threshold, "step_size": 0.5, "tied": tied}
    inputs = keras.Input((5,))
    state = ki.NAISDense(6, name="first", **settings)(inputs)
    state = ki.NAISDense(4, activation="tanh", name="second", **settings)(state)
    model = ki.IterativeModel(inputs, keras.layers.Dense(3, name="head")(state))
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return model


@pytest.fixture
def images():
    x = np.random.default_rng(0).normal(size=(9, 5))
    return (x * np.logspace(-2, 1, 9)[:, None]).astype(np.float32)


def depths(model, x):
    return np.asarray(ki.with_depth(model)(x)["depth"])


@pytest.mark.parametrize(
    ("built", "change"),
    [
        (FIXED, {"max_unroll": 9}),
        (FIXED, {"threshold": 0.1}),
        (ADAPTIVE, {"max_unroll": 2}),
        (ADAPTIVE, {"threshold": 0.3}),
        (ADAPTIVE, {"max_unroll": 3, "threshold": None}),
    ],
)
def test_a_traced_net_becomes_the_one_that_was_built_so(images, built, change):
    model, expected = make_net(**built), make_net(**{**built, **change})
    targets = np.ones((9, 3), np.float32)
    before = model.predict(images, verbose=0)
    model.evaluate(images, targets, verbose=0)
    # A step of rate zero traces the training and moves nothing.
    model.optimizer.learning_rate = 0.0
    model.fit(images, targets, verbose=0)
    model.optimizer.learning_rate = 0.1

    assert ki.set_depth(model, **change) is None
    np.testing.assert_allclose(
        model.predict(images, verbose=0), expected.predict(images, verbose=0), atol=1e-6
    )
    assert np.abs(model.predict(images, verbose=0) - before).max() > 1e-3
    np.testing.assert_array_equal(depths(model, images), depths(expected, images))
    assert model.evaluate(images, targets, verbose=0) == pytest.approx(
        expected.evaluate(images, targets, verbose=0)
    )
    for net in (model, expected):
        net.fit(images, targets, batch_size=9, shuffle=False, epochs=2, verbose=0)
    for a, b in zip(model.weights, expected.weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_a_number_for_another_keeps_the_compiled_functions(images):
    model = make_net(**ADAPTIVE)
    model.predict(images, verbose=0)
    function = model.predict_function
    ki.set_depth(model, max_unroll=5, threshold=0.1)
    assert model.predict_function is function
    ki.set_depth(model, threshold=None)
    assert model.predict_function not in (function, None)
    assert model.train_function is None


def test_a_callback_may_make_the_depth_fixed_while_fit_runs(images):
    model = make_net(**ADAPTIVE)
    model.compile("sgd", "mse")

    class Fix(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            ki.set_depth(self.model, threshold=None if epoch == 0 else 0.5)

    targets = np.zeros((len(images), *model.output_shape[1:]))
    history = model.fit(images, targets, epochs=3, verbose=0, callbacks=[Fix()])
    assert np.isfinite(history.history["loss"]).all()


def test_what_is_left_out_stays(images):
    model = make_net(**ADAPTIVE)
    model.get_layer("first").threshold = 0.5
    ki.set_depth(model, max_unroll=3)
    assert [b.threshold for b in ki.iterated_blocks(model)] == [0.5, 0.03]
    assert ki.processing_depth(model) == 6
    model.get_layer("second").max_unroll = 8
    ki.set_depth(model, threshold=0.2)
    assert [b.max_unroll for b in ki.iterated_blocks(model)] == [3, 8]
    ki.set_depth(model)
    assert [b.max_unroll for b in ki.iterated_blocks(model)] == [3, 8]
    assert [b.threshold for b in ki.iterated_blocks(model)] == [0.2, 0.2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_unroll": 0}, r"`max_unroll` must be an integer.*Received: max_unroll=0"),
        ({"max_unroll": None}, r"`max_unroll` must be an integer.*Received: max_unroll=None"),
        ({"max_unroll": 6, "threshold": -1.0}, r"`threshold` must lie in"),
        ({"threshold": "0.1"}, r"`threshold` must lie in.*Received: threshold='0.1'"),
        ({"max_unroll": 7, "threshold": None}, r"'second' must be at most 6"),
    ],
)
def test_a_refused_setting_changes_no_block(images, change, message):
    inputs = keras.Input((5,))
    state = ki.NAISDense(5, max_unroll=9, threshold=0.1, tied=False, name="first")(inputs)
    state = ki.NAISDense(5, max_unroll=6, threshold=0.1, tied=False, name="second")(state)
    model = keras.Model(inputs, state)
    before = model.predict(images, verbose=0)
    with pytest.raises(ValueError, match=message):
        ki.set_depth(model, **change)
    assert [b.max_unroll for b in ki.iterated_blocks(model)] == [9, 6]
    assert [b.threshold for b in ki.iterated_blocks(model)] == [0.1, 0.1]
    np.testing.assert_array_equal(model.predict(images, verbose=0), before)


def test_untied_blocks_make_their_first_updates(images):
    model = make_net(**FIXED, tied=False)
    ki.set_depth(model, max_unroll=2)
    state = images
    for name in ("first", "second"):
        block, u = model.get_layer(name), state
        state = np.zeros((9, block.units), np.float32)
        for k in range(2):
            state = block.update(state, u, k)
    head = model.get_layer("head")
    np.testing.assert_allclose(model.predict(images, verbose=0), head(state), atol=1e-6)


def test_models_without_such_blocks():
    inputs = keras.Input((4, 4, 3))
    stage = keras.Model(inputs, ki.ResidualStage(3, 2)(inputs), name="staged")
    with pytest.raises(
        ValueError, match=r"`model` must contain at least one block.*Received: model='staged'"
    ):
        ki.set_depth(stage, max_unroll=2)
    for wrong in (None, ki.NAISDense(3)):
        with pytest.raises(ValueError, match=r"`model` must be a Keras model.*Received: model="):
            ki.set_depth(wrong, max_unroll=2)
    with pytest.raises(ValueError, match="`model` must contain at least one block"):
        ki.set_depth(keras.Sequential(), max_unroll=2)


def test_other_blocks_stay_as_they_are():
    inputs = keras.Input((4,))
    state = ki.NAISDense(4, max_unroll=7)(inputs)
    state = ki.ResidualUpdate()([state, keras.layers.Dense(4)(state)])
    model = keras.Model(inputs, state)
    ki.set_depth(model, max_unroll=2)
    assert ki.processing_depth(model) == 3


@pytest.mark.parametrize("calibrated", [False, True])
def test_the_compiled_functions_of_the_outermost_model_follow(images, labels, calibrated):
    inner = make_net(12, None)
    model = keras.Sequential([keras.Input((5,)), inner, keras.layers.Dense(4)])
    model.compile(loss="mse")
    before = model.predict(images, verbose=0)
    if calibrated:
        ki.calibrate_depth(model, (images, labels), mean_updates=6)
    else:
        ki.set_depth(model, threshold=1.0)
    after = model.predict(images, verbose=0)
    np.testing.assert_allclose(after, model(images), rtol=1e-5, atol=1e-6)
    assert np.abs(after - before).max() > 1e-3
