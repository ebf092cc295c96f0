"""Two replicas: clipping as on one device, batches of unequal parts, and statistics."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_iterconv as ki
from keras_iterconv.layers import BatchNormalization
from keras_iterconv.layers.normalization import batch_moments
from tests.support.builders import two_replicas

SGD, SCALED = keras.optimizers.SGD, keras.optimizers.LossScaleOptimizer


def slope(y_true, y_pred):
    """A loss whose gradient in the prediction is the target."""
    return keras.ops.mean(y_true * y_pred, axis=-1)


OPTIMIZERS = {
    "clipnorm": lambda: SGD(1.0, clipnorm=5.0),
    "global_clipnorm": lambda: SGD(1.0, global_clipnorm=5.0),
    "clipvalue": lambda: SGD(1.0, clipvalue=5.0),
    "clipnorm, fixed loss scale": lambda: SGD(1.0, clipnorm=5.0, loss_scale_factor=8.0),
    "global_clipnorm, loss scale": lambda: SCALED(SGD(1.0, global_clipnorm=5.0), 8.0),
}


def fit_line(optimizer, strategy=None, **kwargs):
    """Return w of w x after one step where the gradients of the two halves are 150 and 50."""
    with (strategy or tf.distribute.get_strategy()).scope():
        inputs = keras.Input((1,))
        line = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")
        model = ki.IterativeModel(inputs, line(inputs))
        model.compile(optimizer, slope, **kwargs)
        x = np.ones((4, 1), np.float32)
        y = np.array([[150.0], [150.0], [50.0], [50.0]])
        model.fit(x, y, batch_size=4, shuffle=False, verbose=0)
    return float(model.trainable_variables[0].numpy().item())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_two_replicas_clip_as_one_device_does(optimizer):
    make = OPTIMIZERS[optimizer]
    # The gradient is 100; Keras by itself clips 75 and 25 to 5 each.
    assert fit_line(make(), two_replicas()) == pytest.approx(-5, rel=1e-6)
    assert fit_line(make()) == pytest.approx(-5, rel=1e-6)


@pytest.mark.parametrize("gradient", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite_makes_all_replicas_skip_the_step(gradient):
    optimizer = SCALED(SGD(1.0, clipnorm=5.0), 8.0)

    def spoil(gradients, variables):
        return [g + gradient for g in gradients]

    assert fit_line(optimizer, two_replicas(), coupling=spoil) == 0
    assert optimizer.dynamic_scale.numpy() == 4


def embed(optimizer, strategy=None, coupling=None):
    """Return the weights after two steps of a net with an embedding, a stack and an idle layer."""
    keras.utils.set_random_seed(0)
    with (strategy or tf.distribute.get_strategy()).scope():
        words = keras.Input((4,), dtype="int32")
        state = keras.layers.Flatten()(keras.layers.Embedding(5, 2)(words))
        state = ki.NAISDense(3, max_unroll=2, tied=False)(state)
        used, idle = keras.layers.Dense(1)(state), keras.layers.Dense(1)(state)
        model = ki.IterativeModel(words, {"used": used, "idle": idle})
        model.compile(optimizer, {"used": slope}, coupling=coupling)
        x = np.random.default_rng(0).integers(0, 5, (8, 4))
        y = np.linspace(-400, 500, 8)[:, np.newaxis]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Gradients do not exist for variables")
            model.fit(x, {"used": y}, batch_size=4, shuffle=False, verbose=0)
    return [variable.numpy() for variable in model.trainable_variables]


@pytest.mark.parametrize(
    ("optimizer", "coupling"), [("clipnorm", 0.5), ("global_clipnorm, loss scale", None)]
)
def test_sparse_and_missing_gradients_and_couplings_too(optimizer, coupling):
    make = OPTIMIZERS[optimizer]
    one, two = embed(make(), coupling=coupling), embed(make(), two_replicas(), coupling)
    for left, right in zip(one, two, strict=True):
        np.testing.assert_allclose(right, left, rtol=1e-4, atol=1e-4)


def test_without_clipping_nothing_is_summed_twice(monkeypatch):
    monkeypatch.setattr("keras_iterconv.trainer.total_on_first_replica", None)
    assert fit_line(SGD(1.0), two_replicas()) == pytest.approx(-100, rel=1e-6)


LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.mark.parametrize("method", ["fit", "evaluate"])
def test_the_replicas_parts_of_the_first_batch_may_differ_in_size(method):
    x, y = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4), np.array([0, 1, 1])
    losses = []
    for strategy in (two_replicas(), tf.distribute.get_strategy()):
        keras.utils.set_random_seed(0)
        with strategy.scope():
            inputs = keras.Input((4,))
            model = ki.IterativeModel(inputs, keras.layers.Dense(2)(inputs))
            model.compile("sgd", LOSS, metrics=["accuracy"])
        run = getattr(model, method)(x, y, batch_size=4, verbose=0)
        losses.append(run.history["loss"][0] if method == "fit" else run[0])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("shape", [(2,), (1, 1, 2)], ids=["dense", "image"])
def test_moving_statistics_are_the_mean_of_the_replicas(shape):
    with two_replicas().scope():
        inputs = keras.Input(shape)
        norm = BatchNormalization(momentum=0.5)
        state = keras.layers.Flatten()(norm(inputs))
        model = ki.IterativeModel(inputs, keras.layers.Dense(2)(state))
        model.compile("sgd", LOSS)
    x = np.random.default_rng(0).normal(size=(8, *shape)).astype(np.float32)
    model.fit(x, np.zeros(8), batch_size=8, shuffle=False, verbose=0)
    axes = tuple(range(len(shape)))
    halves = x[:4], x[4:]
    expected = {
        "moving_mean": 0.5 * np.mean([half.mean(axes) for half in halves], axis=0),
        "moving_variance": 0.5 + 0.5 * np.mean([half.var(axes) for half in halves], axis=0),
    }
    for name, value in expected.items():
        for copy in getattr(norm, name).value.values:
            np.testing.assert_allclose(copy, value, rtol=1e-5, atol=1e-6)


def test_a_loss_that_sums_needs_no_share():
    weights = []
    for strategy in (two_replicas(), tf.distribute.get_strategy()):
        keras.utils.set_random_seed(0)
        with strategy.scope():
            inputs = keras.Input((4,))
            model = ki.IterativeModel(inputs, keras.layers.Dense(1)(inputs))
            model.compile(SGD(0.1), keras.losses.MeanSquaredError(reduction="sum"))
        x = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
        model.fit(x, x[:, :1], batch_size=3, shuffle=False, verbose=0)
        weights.append(model.get_weights()[0])
    np.testing.assert_allclose(*weights, rtol=1e-5)


def stage_net(**settings):
    """Return a net of one stage."""
    inputs = keras.Input((6, 6, 2))
    stage = ki.ResidualStage(2, synchronized=True, **settings)
    state = keras.layers.GlobalAveragePooling2D()(stage(inputs))
    return ki.IterativeModel(inputs, keras.layers.Dense(4)(state))


def named_net(name, **settings):
    return ki.create_model(name, (6, 6, 2), 4, synchronized=True, **settings)


TIED = {"blocks": 4, "skip_from": "stage_input", "lipschitz_cap": 0.95, "tied": True}
NETS = {
    "coupled": lambda: stage_net(blocks=2, shared_initialization=True),
    "capped": lambda: stage_net(blocks=1, lipschitz_cap=0.95, gradient="recompute"),
    "tied": lambda: stage_net(**TIED, threshold=1e-3),
    "nais_fast": lambda: named_net("nais_fast", filters=(4,)),
    "resnet54": lambda: named_net("resnet54", blocks=1, filters=(4,)),
    "resnet_sh_bn": lambda: named_net("resnet_sh_bn", max_unroll=2, units=8),
}


def train_net(net, strategy, dtype):
    """Return all variables after two steps of 9 and 5 samples.

    Two replicas get 5 and 4 of them, then 3 and 2.
    """
    keras.config.set_dtype_policy(dtype)
    if dtype == "float64":
        keras.config.set_floatx(dtype)
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = NETS[net]()
        optimizer = SGD(0.1, momentum=0.9, global_clipnorm=1.0)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        coupling = 0.9 if net == "coupled" else None
        model.compile(optimizer, loss, metrics=["accuracy"], coupling=coupling)
    rng = np.random.default_rng(0)
    images, labels = rng.normal(3, 1, size=(14, 6, 6, 2)), rng.integers(0, 4, 14)
    model.fit(images, labels, batch_size=9, shuffle=False, verbose=0)
    return {variable.path: variable.numpy() for variable in model.variables}


@pytest.mark.parametrize("net", NETS)
def test_synchronized_replicas_train_as_one_device(net):
    one = train_net(net, tf.distribute.get_strategy(), "float64")
    two = train_net(net, two_replicas(), "float64")
    for (path, left), right in zip(one.items(), two.values(), strict=True):
        np.testing.assert_allclose(right, left, rtol=1e-11, atol=1e-11, err_msg=path)


def test_in_half_precision_the_statistics_are_float32():
    one = train_net("resnet54", tf.distribute.get_strategy(), "mixed_bfloat16")
    two = train_net("resnet54", two_replicas(), "mixed_bfloat16")
    for (path, left), right in zip(one.items(), two.values(), strict=True):
        assert left.dtype == np.float32
        # bfloat16 has 8 bits; its rounding enters the gradients.
        np.testing.assert_allclose(right, left, rtol=0.1, atol=0.02, err_msg=path)


def test_the_variance_of_all_samples_keeps_its_digits_far_from_zero():
    x = np.random.default_rng(0).normal(1e4, 1, size=(8, 3, 3, 2)).astype(np.float32)

    def run():
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        part = tf.where(tf.equal(replica, 0), 0, 5)
        share = tf.constant(x)[part : part + 5 - 2 * tf.cast(part > 0, tf.int32)]
        return batch_moments(share, (tf.zeros(2), tf.ones(2)), synchronized=True)

    strategy = two_replicas()
    mean, variance = tf.function(lambda: strategy.run(run))()
    whole = x.astype(np.float64)
    for got, expected in ((mean, whole.mean((0, 1, 2))), (variance, whole.var((0, 1, 2)))):
        for copy in strategy.experimental_local_results(got):
            np.testing.assert_allclose(copy, expected, rtol=1e-3)


def test_replicas_without_samples_keep_the_moving_statistics():
    moving = tf.constant([3.0, 4.0]), tf.constant([5.0, 6.0])

    def run():
        return batch_moments(tf.zeros([0, 2]), moving, synchronized=True)

    strategy = two_replicas()
    for got, expected in zip(tf.function(lambda: strategy.run(run))(), moving, strict=True):
        for copy in strategy.experimental_local_results(got):
            np.testing.assert_array_equal(copy, expected)
