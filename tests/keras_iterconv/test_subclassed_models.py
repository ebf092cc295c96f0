"""Subclasses of `IterativeModel` with `__init__` and `call` of their own: training and files."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_iterconv as ki
from tests.support.comparisons import assert_same_weights
from tests.support.coupled_nets import IMAGE, LOSS, make_data, make_model, sgd

PACKAGE = "keras_iterconv_tests"


@keras.saving.register_keras_serializable(PACKAGE)
class Net(ki.IterativeModel):
    """The net of `make_model`, as a class."""

    def __init__(self, blocks=3, classes=3):
        super().__init__()
        self.first = ki.ResidualStage(2, blocks, name="first")
        self.transition = keras.layers.Conv2D(2, 2, name="transition")
        self.second = ki.ResidualStage(2, 2, name="second")
        self.head = keras.layers.Dense(classes, name="head")

    def call(self, inputs, training=None):
        state = self.transition(self.first(inputs, training=training))
        state = self.second(state, training=training)
        return self.head(keras.ops.mean(state, axis=(1, 2)))


@keras.saving.register_keras_serializable(PACKAGE)
class PlainBlocks(ki.IterativeModel):
    """A net without stages, whose blocks are in a list."""

    def __init__(self, width=4):
        super().__init__(name="plain")
        self.blocks = [keras.layers.Dense(width, name=f"block{t}") for t in range(3)]

    def call(self, inputs):
        state = inputs
        for block in self.blocks:
            state = state + keras.ops.tanh(block(state))
        return state


@pytest.fixture(params=[False, True], ids=["first", "after a functional model"])
def functional_before(request):
    """Make a functional model before: for good, Keras then puts its class into the bases."""
    if request.param:
        make_model()


def train(model, coupling, seed=0, eager=True, **settings):
    x, y = make_data(16, seed)
    model.compile(sgd(**settings), LOSS(from_logits=True), coupling=coupling, run_eagerly=eager)
    return model.fit(x, y, batch_size=8, shuffle=False, verbose=0).history["loss"][0]


@pytest.mark.usefixtures("functional_before")
def test_it_trains_as_the_functional_model_of_the_same_layers():
    functional, net = make_model(), Net()
    net(np.zeros((1, *IMAGE), np.float32))
    net.set_weights(functional.get_weights())
    start = net.get_weights()
    assert train(net, 0.8) == pytest.approx(train(functional, 0.8), rel=1e-5)
    assert_same_weights(net, functional, 1e-5)
    alone = Net()
    alone(np.zeros((1, *IMAGE), np.float32))
    alone.set_weights(start)
    train(alone, None)
    assert np.abs(alone.first.kernel1 - net.first.kernel1).max() > 1e-3


def test_a_model_that_is_built_in_its_first_step():
    net = Net()
    assert np.isfinite(train(net, 1.0, eager=False))
    for stage in (net.first, net.second):
        for variable in (stage.gamma1, stage.beta2):
            assert np.ptp(variable, axis=0).max() < 1e-6
    assert np.abs(net.first.gamma1 - 1).max() > 1e-3


def test_named_groups_before_it_is_built():
    net = PlainBlocks()
    x = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    coupling = ki.GradientCoupling(1.0, groups=r"plain/block(\d)/(kernel|bias)")
    net.compile(keras.optimizers.SGD(0.1), "mse", coupling=coupling)
    net(x)
    start = [block.kernel.numpy() for block in net.blocks]
    twin = PlainBlocks()
    twin(x)
    twin.set_weights(net.get_weights())
    net.fit(x, 2 * x, verbose=0)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((twin(x) - 2 * x) ** 2)
    gradients = tape.gradient(loss, [block.kernel.value for block in twin.blocks])
    mean = np.mean([g.numpy() for g in gradients], axis=0)
    for block, before in zip(net.blocks, start, strict=True):
        np.testing.assert_allclose(block.kernel, before - 0.1 * mean, atol=1e-6)


@pytest.mark.usefixtures("functional_before")
def test_it_goes_on_training_after_a_file(tmp_path):
    # Keras's own models forget the arguments of `__init__`.
    net = Net(4, classes=5)
    train(net, ki.GradientCoupling(0.7, members=slice(1, None)))
    net.save(tmp_path / "net.keras")
    loaded = keras.models.load_model(tmp_path / "net.keras")
    assert type(loaded) is Net
    assert loaded.first.blocks == 4
    assert loaded.coupling.get_config() == net.coupling.get_config()
    assert_same_weights(loaded, net, 0)
    x, y = make_data(16, seed=1)
    for twin in (net, loaded):
        twin.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    assert_same_weights(loaded, net, 1e-6)
    assert loaded.optimizer.iterations == 4


@keras.saving.register_keras_serializable(PACKAGE)
class Deep(PlainBlocks):
    """With an argument of a name that the configurations of functional models have."""

    def __init__(self, layers):
        super().__init__()
        self.count = layers


@keras.saving.register_keras_serializable(PACKAGE)
class Wide(PlainBlocks):
    """With a configuration of its own."""

    def get_config(self):
        return {**super().get_config(), "width": self.blocks[0].units}


def test_configurations():
    assert Deep.from_config(Deep(layers=5).get_config()).count == 5
    wide = Wide.from_config(Wide(7).get_config())
    assert wide.blocks[0].units == 7
    wide.preprocessing, wide.class_names = ki.Preprocessing((0.5,), (2.0,)), ("a", "b")
    again = Wide.from_config(wide.get_config())
    assert again.preprocessing == wide.preprocessing
    assert again.class_names == ("a", "b")


def test_nothing_to_couple_is_said_at_the_first_step():
    x = np.zeros((4, 4), np.float32)
    net = PlainBlocks()
    net.compile("sgd", "mse", coupling=0.5)
    with pytest.raises(ValueError, match=r"There is nothing to couple: no layer of the model"):
        net.fit(x, x, verbose=0)
    net(x)
    with pytest.raises(ValueError, match=r"^There is nothing to couple: no layer of the model"):
        net.compile("sgd", "mse", coupling=0.5)


def test_guarantees_hold():
    class Capped(ki.IterativeModel):
        def __init__(self):
            super().__init__()
            self.block = ki.NAISConv2D(2, max_unroll=2)

        def call(self, inputs):
            return keras.ops.mean(self.block(inputs), axis=(1, 2))

    net = Capped()
    x = np.random.default_rng(0).normal(size=(4, *IMAGE)).astype(np.float32)
    net(x)
    projected = net.get_weights()
    net.set_weights([10 * weight for weight in projected])
    net.compile("sgd", "mse")
    net.evaluate(x, np.zeros((4, 2)), verbose=0)
    kernel = max(net.get_weights(), key=np.size)
    # Algorithm 2: the absolute sum of each output channel is at most about 1.
    assert np.abs(kernel).sum(axis=(0, 1, 2)).max() < 2.1
    assert 10 * np.abs(max(projected, key=np.size)).sum(axis=(0, 1, 2)).max() > 4


class FromOutputs(ki.IterativeModel):
    """A functional model with an `__init__` of its own, and without or with a `call`."""

    def __init__(self, units):
        inputs = keras.Input((4,))
        super().__init__(inputs, keras.layers.Dense(units)(inputs))


class Doubled(FromOutputs):
    def call(self, inputs, training=None, mask=None):
        return 2 * super().call(inputs, training=training, mask=mask)


@pytest.mark.usefixtures("functional_before")
def test_functional_models_with_an_init_of_their_own():
    x = np.ones((2, 4), np.float32)
    for make, factor in ((FromOutputs, 1), (Doubled, 2)):
        net = make(3)
        assert [layer.name for layer in net.layers][1:] == [net.layers[1].name]
        np.testing.assert_allclose(net(x), factor * net.layers[1](x), rtol=1e-6)
    # And beside it, one that is not.
    assert Net()(np.zeros((1, *IMAGE), np.float32)).shape == (1, 3)


def test_two_replicas_train_as_one():
    strategy = tf.distribute.MirroredStrategy(
        ["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice()
    )
    x = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)
    coupling = ki.GradientCoupling(0.8, groups=r"plain/block(\d)/(.*)")
    one = PlainBlocks()
    one(x)
    with strategy.scope():
        many = PlainBlocks()
        many(x)
        many.set_weights(one.get_weights())
    for net in (one, many):
        with strategy.scope() if net is many else tf.name_scope(""):
            net.compile(keras.optimizers.SGD(0.1), "mse", coupling=coupling)
            net.fit(x, 2 * x, batch_size=8, shuffle=False, verbose=0)
    assert_same_weights(one, many, 1e-6)
