"""XLA: models with blocks run without it, and models without blocks train with it as without."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_iterconv as ki
from tests.support.comparisons import assert_same_weights

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
# Small nets of each kind of block, and two without any.
NETS = {
    "nais_adaptive": {"blocks": 1},
    "nais_fast": {},
    "icr_w8": {"blocks": 1},
    "pcr_w8": {"blocks": 1, "lipschitz_cap": 0.9},
    "deep_thinking": {},
    "resnet54": {"blocks": 1},
    "resnet_bn": {},
}
PLAIN = {"resnet54", "resnet_bn"}


def make_net(name):
    return ki.create_model(name, (8, 8, 1), 3, **NETS[name])


@pytest.fixture
def seen_gpu(monkeypatch):
    # Keras chooses XLA only where it sees a GPU, and asks this function whether there is one.
    gpu = tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda *args: [gpu])


@pytest.mark.parametrize("name", NETS)
def test_keras_chooses_xla_for_nets_without_blocks_alone(name, seen_gpu):
    model = make_net(name)
    model.compile("sgd", LOSS)
    assert model.jit_compile is (name in PLAIN)
    # The models that the package makes of a net choose by themselves.
    if name not in PLAIN:
        assert ki.with_depth(model).jit_compile is False


def test_user_s_layers_choose_as_their_blocks_do(seen_gpu):
    inputs = keras.Input((4,))
    model = ki.IterativeModel(inputs, ki.Iterate(keras.layers.Dense(4))(inputs))
    model.compile("sgd", "mse")
    assert model.jit_compile is False


@pytest.mark.parametrize("positional", [False, True])
@pytest.mark.parametrize(
    "block", [ki.NAISDense(4, name="first"), ki.Iterate(keras.layers.Dense(4), name="first")]
)
def test_asking_for_xla_is_refused_with_the_names_of_blocks(block, positional):
    inputs = keras.Input((4,))
    model = ki.IterativeModel(inputs, block(inputs))
    message = r"^`jit_compile` must be \"auto\" or False .*'first'.*Received: jit_compile=True$"
    given = ((None, None, None, False, 1, True), {}) if positional else ((), {"jit_compile": True})
    with pytest.raises(ValueError, match=message):
        model.compile("sgd", "mse", *given[0], **given[1])
    assert not model.compiled
    for allowed in ("auto", False):
        model.compile("sgd", "mse", jit_compile=allowed)
        assert model.jit_compile is False


def make_plain_net():
    inputs = keras.Input((6, 6, 1))
    state = keras.layers.Conv2D(2, 3, strides=2)(inputs)
    for t in range(2):
        conv = keras.layers.Conv2D(2, 3, padding="same", use_bias=False, name=f"block{t}")
        state = keras.layers.Add()([state, conv(keras.layers.ReLU()(state))])
    return ki.IterativeModel(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(state)))


def test_a_net_without_blocks_trains_with_xla_as_without():
    rng = np.random.default_rng(0)
    # The last batch is smaller.
    images, labels = rng.normal(size=(10, 6, 6, 1)).astype(np.float32), np.arange(10) % 3
    plain = make_plain_net()
    compiled = keras.models.clone_model(plain)
    compiled.set_weights(plain.get_weights())
    results = []
    for model, xla in ((plain, False), (compiled, True)):
        optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
        coupling = ki.GradientCoupling(0.5, groups=r"block(\d+)/kernel")
        model.compile(optimizer, LOSS, metrics=["accuracy"], coupling=coupling, jit_compile=xla)
        assert model.jit_compile is xla
        logs = model.fit(images, labels, batch_size=4, epochs=2, shuffle=False, verbose=0).history
        results.append([*np.ravel([*logs.values()]), *model.evaluate(images, labels, verbose=0)])
    np.testing.assert_allclose(results[1], results[0], rtol=1e-5)
    assert_same_weights(compiled, plain, 1e-6)


def test_xla_computes_a_loop_of_fixed_depth_in_evaluation():
    # In training it cannot, and neither a loop of adaptive depth; so blocks are without it.
    block = ki.NAISDense(6, max_unroll=4)
    u = np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)
    compiled = tf.function(block, jit_compile=True)
    np.testing.assert_allclose(compiled(u), block(u), rtol=1e-5, atol=1e-6)
    with pytest.raises(tf.errors.InvalidArgumentError):
        tf.function(ki.NAISDense(6, threshold=0.1), jit_compile=True)(u)
