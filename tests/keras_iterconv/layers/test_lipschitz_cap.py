"""The cap of a residual function: what c is, in training and after it, and that it holds."""

import keras
import numpy as np
import pytest
import scipy.sparse.linalg
import tensorflow as tf
from sklearn.datasets import load_digits

import keras_iterconv as ki
from keras_iterconv.certificates.ascent import largest_ratio

IMAGE = (6, 5)
FILTERS = 4
EPSILON = 1e-3


@pytest.fixture
def true_bounds(conv_matrix):
    """Return a function that computes L of each block of a layer by SciPy, in float64.

    Statistics are the moving ones, or `(variance1, variance2)` for each block.
    """

    def bounds(layer, image=IMAGE, variances=None):
        def values(name):
            array = np.asarray(getattr(layer, name).numpy(), np.float64)
            return array[None] if isinstance(layer, ki.ResidualBlock) else array

        found = []
        for t in range(len(values("gamma1"))):
            v1, v2 = (
                (values("variance1")[t], values("variance2")[t])
                if variances is None
                else variances[t]
            )
            s1 = values("gamma1")[t] / np.sqrt(v1 + EPSILON)
            s2 = values("gamma2")[t] / np.sqrt(v2 + EPSILON)
            folded = s2 * values("kernel1")[t] * s1[:, None]
            product = 1.0
            for kernel in (folded, values("kernel2")[t]):
                matrix = scipy.sparse.csr_array(conv_matrix(kernel, *image))
                product *= scipy.sparse.linalg.svds(matrix, k=1, return_singular_vectors=False)[0]
            found.append(product)
        return np.array(found)

    return bounds


def make(cap=0.95, blocks=3, seed=0, **settings):
    stage = ki.ResidualStage(FILTERS, blocks, lipschitz_cap=cap, **settings)
    stage.build((None, *IMAGE, FILTERS))
    rng = np.random.default_rng(seed)
    for name in ("gamma1", "gamma2", "variance1", "variance2"):
        getattr(stage, name).assign(rng.uniform(0.3, 2, stage.gamma1.shape))
    return stage


def images(samples=5, seed=1, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=(samples, *IMAGE, FILTERS)).astype(dtype)


def uncapped(stage):
    """Return the same stage without its cap."""
    twin = ki.ResidualStage(FILTERS, stage.blocks, stage.skip_from)
    twin.build((None, *IMAGE, FILTERS))
    for weight in twin.weights:
        weight.assign(getattr(stage, weight.name))
    return twin


def test_in_evaluation_f_is_divided_by_the_excess_over_the_cap(true_bounds):
    stage = make()
    stage.gamma1.assign(stage.gamma1 * np.array([1, 0.001, 1])[:, None])
    stage.converge_cap()
    bounds = true_bounds(stage)
    assert bounds[1] < 0.95 < min(bounds[0], bounds[2])
    expected = np.maximum(bounds / 0.95, 1)
    np.testing.assert_allclose(stage.divisor, expected, rtol=3e-4)
    # From above: the cap is not passed.
    assert (bounds / stage.divisor <= 0.95 * (1 + 1e-6)).all()
    z, free = images(), uncapped(stage)
    for t in range(3):
        change = free.update(z, z, t) - z
        np.testing.assert_allclose(
            stage.update(z, z, t) - z, change / stage.divisor[t], atol=1e-5 * np.abs(change).max()
        )


def test_in_training_the_norms_are_those_of_the_batch(true_bounds):
    # One power step a call: after some of them the vectors are those of this batch's operators.
    stage, z = make(blocks=1), images()
    train = tf.function(lambda: stage(z, training=True))
    for _ in range(300):
        train()
    free = uncapped(stage)
    y = free(z, training=True) - z
    variance1 = z.astype(np.float64).var(axis=(0, 1, 2))
    # The free twin's moved statistics tell the variance before the second kernel.
    before = uncapped(stage)
    variance2 = (free.variance2[0] - 0.9 * before.variance2[0]) / 0.1
    (bound,) = true_bounds(stage, variances=[(variance1, np.asarray(variance2, np.float64))])
    assert bound > 2
    np.testing.assert_allclose(
        stage(z, training=True) - z, y * 0.95 / bound, atol=2e-3 * np.abs(y).max() / bound
    )


@pytest.mark.parametrize("name", ["kernel2", "gamma2"])
def test_the_norm_is_differentiated(name):
    # Of these weights the batch's statistics do not depend, through which no gradient flows.
    keras.config.set_dtype_policy("float64")
    stage, z, weigh = make(blocks=1), images(dtype=np.float64), images(seed=2)
    weight = getattr(stage, name)
    train = tf.function(lambda: stage(z, training=True))
    for _ in range(300):
        train()
    kept = stage.get_weights()
    direction = np.random.default_rng(3).normal(size=weight.shape)
    start = weight.numpy()

    def loss(step, steps):
        stage.set_weights(kept)
        weight.assign(start + step * direction)
        for _ in range(steps):
            train()
        return tf.reduce_sum(stage(z, training=True) * weigh)

    with tf.GradientTape() as tape:
        value = loss(0.0, 0)
    slope = float(np.sum(tape.gradient(value, weight) * direction))
    h = 1e-5
    # The norms at the other weights, each converged separately.
    difference = float(loss(h, 200) - loss(-h, 200)) / (2 * h)
    # Power iteration has not quite arrived after 300 steps.
    assert slope == pytest.approx(difference, rel=1e-3)
    free = uncapped(stage)
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(free(z, training=True) * weigh)
    ignored = float(np.sum(tape.gradient(value, getattr(free, name)) * direction))
    assert abs(slope - ignored) > 0.05 * abs(slope)


def make_model(cap=0.95, skip_from="stage_input", blocks=2):
    inputs = keras.Input((8, 8, 1))
    state = keras.layers.Conv2D(FILTERS, 3, padding="same")(inputs)
    stage = ki.ResidualStage(FILTERS, blocks, skip_from, lipschitz_cap=cap, name="stage")
    state = keras.layers.GlobalAveragePooling2D()(stage(state))
    model = ki.IterativeModel(inputs, keras.layers.Dense(10)(state))
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    return x.reshape(-1, 8, 8, 1).astype(np.float32) / 16, y


def test_whatever_fit_saves_is_capped(digits, true_bounds, tmp_path):
    class Look(keras.callbacks.Callback):
        """Keeps the excess whenever a user could look: at validation and at an epoch's end."""

        excess = []  # noqa: RUF012

        def look(self):
            stage = self.model.get_layer("stage")
            self.excess.append(true_bounds(stage, (8, 8)) / stage.divisor.numpy() / 0.95)

        def on_test_begin(self, logs=None):
            self.look()

        def on_epoch_end(self, epoch, logs=None):
            self.look()

    model = make_model()
    x, y = digits
    look = Look()
    saved = tmp_path / "{epoch}.keras"
    callbacks = [look, keras.callbacks.ModelCheckpoint(saved)]
    model.fit(x[:512], y[:512], validation_data=(x[512:600], y[512:600]), epochs=2,
              callbacks=callbacks, verbose=0)  # fmt: skip
    assert len(look.excess) == 4
    np.testing.assert_array_less(np.max(look.excess), 1 + 1e-6)
    # The test is only meaningful if the cap is active.
    assert np.min(look.excess) > 0.999
    for epoch in (1, 2):
        stage = keras.models.load_model(tmp_path / f"{epoch}.keras").get_layer("stage")
        ratio = true_bounds(stage, (8, 8)) / stage.divisor.numpy()
        assert (ratio <= 0.95 * (1 + 1e-6)).all()


@pytest.mark.parametrize("name", ["icr_w8", "pcr_w8"])
def test_named_nets_trained_on_real_digits_keep_their_cap(digits, true_bounds, name):
    x, y = digits
    model = ki.create_model(name, (8, 8, 1), 10, blocks=2)
    model.compile(
        keras.optimizers.SGD(0.05, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        coupling=0.5,
    )
    history = model.fit(x[:1200], y[:1200], batch_size=64, epochs=3, verbose=0).history
    assert history["accuracy"][-1] > 0.4
    stages = ki.iterated_blocks(model)
    states = keras.Model(model.input, [stage.input for stage in stages])(x[1200:1400])
    for stage, inputs in zip(stages, states, strict=True):
        capped = true_bounds(stage, inputs.shape[1:3]) / stage.divisor
        assert (capped <= 0.95 * 1.001).all()
        assert (capped > 0.9).any()
        state = inputs
        for t in range(2):

            def f(z, stage=stage, t=t):
                return stage.update(z, tf.zeros_like(z), t) - (
                    z if stage.skip_from == "previous" else 0
                )

            # 200 pairs of states, each driven apart by gradient ascent.
            assert 0.05 < largest_ratio(f, state, steps=15) <= 0.95 * 1.001
            state = stage.update(state, inputs, t)


@pytest.mark.parametrize("gamma", [0.1, 1.0])
def test_fresh_layers_are_capped(true_bounds, gamma):
    stage = ki.ResidualStage(FILTERS, 2, lipschitz_cap=0.5, initial_gamma=gamma)
    stage.build((None, *IMAGE, FILTERS))
    assert (true_bounds(stage) / stage.divisor <= 0.5).all()
    block = ki.ResidualBlock(FILTERS, 0.5, gamma)
    block.build((None, *IMAGE, FILTERS))
    assert (true_bounds(block) / block.divisor <= 0.5).all()


def test_a_plain_model_evaluates_with_the_last_batch_s_divisor(digits, true_bounds):
    model = make_model()
    plain = keras.Model(model.input, model.output)
    plain.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    plain.fit(digits[0][:512], digits[1][:512], batch_size=64, epochs=6, verbose=0)
    stage = model.get_layer("stage")
    bounds = true_bounds(stage, (8, 8))
    assert (bounds > 3).all()
    np.testing.assert_allclose(bounds / stage.divisor, 0.95, rtol=0.3)


def test_averaged_weights_are_capped_too(digits, true_bounds):
    model = make_model(cap=0.5)
    model.compile(
        keras.optimizers.SGD(0.1, weight_decay=2, use_ema=True, ema_momentum=0.95),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    model.fit(digits[0][:512], digits[1][:512], epochs=2, verbose=0)
    stage = model.get_layer("stage")
    assert (true_bounds(stage, (8, 8)) / stage.divisor <= 0.5 * (1 + 1e-6)).all()


def test_a_loop_of_one_s_own_converges_the_caps_by_a_call(true_bounds):
    model = make_model()
    stage = model.get_layer("stage")
    stage.kernel2.assign(stage.kernel2 * 200)
    assert (true_bounds(stage, (8, 8)) / stage.divisor > 1).all()
    model.converge_caps()
    np.testing.assert_allclose(true_bounds(stage, (8, 8)) / stage.divisor, 0.95, rtol=3e-4)


def test_fit_refuses_a_callback_list_that_it_cannot_head(digits):
    model = make_model()
    with pytest.raises(ValueError, match="`callbacks` must be a list of callbacks"):
        model.fit(digits[0][:8], digits[1][:8], verbose=0,
                  callbacks=keras.callbacks.CallbackList(model=model))  # fmt: skip
    model.fit(digits[0][:8], digits[1][:8], verbose=0, callbacks=keras.callbacks.Callback())


def test_vectors_and_statistics_are_one_for_all_replicas(digits):
    strategy = tf.distribute.MirroredStrategy(
        ["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice()
    )
    with strategy.scope():
        model = make_model()
    stage = model.get_layer("stage")
    start = stage.vector1.numpy()
    model.fit(digits[0][:64], digits[1][:64], batch_size=32, epochs=1, verbose=0)
    assert np.abs(stage.vector1 - start).max() > 1e-3
    for name in ("mean1", "variance2", "vector1", "vector2", "divisor", "kernel1"):
        first, second = (v.numpy() for v in getattr(stage, name)._value.values)
        np.testing.assert_array_equal(first, second)
    norms = np.linalg.norm(stage.vector1.numpy().reshape(2, -1), axis=1)
    np.testing.assert_allclose(norms, 1, atol=1e-5)


def test_a_block_is_capped_as_a_stage_is(true_bounds):
    block = ki.ResidualBlock(FILTERS, lipschitz_cap=0.5)
    block.build((None, *IMAGE, FILTERS))
    block.converge_cap()
    (bound,) = true_bounds(block)
    assert float(block.divisor) == pytest.approx(bound / 0.5, rel=3e-4)
    z = images()
    ratios = []
    rng = np.random.default_rng(0)
    for scale in (1e-2, 1, 10):
        w = z + scale * rng.normal(size=z.shape).astype(np.float32)
        distance = np.linalg.norm((z - w).reshape(len(z), -1), axis=1)
        change = np.asarray(block(z) - block(w)).reshape(len(z), -1)
        ratios.append(np.linalg.norm(change, axis=1) / distance)
    assert 0.01 < np.max(ratios) <= 0.5 * (1 + 1e-5)
    block(z, training=True)
    assert np.linalg.norm(block.vector1) == pytest.approx(1, abs=1e-5)


def test_a_cap_without_effect_changes_nothing():
    stage = make(cap=1e6)
    stage.converge_cap()
    np.testing.assert_array_equal(stage.divisor, np.ones(3))
    np.testing.assert_array_equal(stage(images()), uncapped(stage)(images()))
    np.testing.assert_allclose(
        stage(images(), training=True), uncapped(stage)(images(), training=True), atol=1e-5
    )
    ki.ResidualStage(FILTERS, 2).converge_cap()  # no cap, nothing to do
