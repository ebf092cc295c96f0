"""Whether a net's outputs are taken for the logits or the probabilities that they are."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_iterconv as ki
from keras_iterconv._support.outputs import output_activation

layers = keras.layers
FEATURES = (5,)
CLASSES = 3


class OwnLayer(layers.Layer):
    """A layer of a user's."""

    def call(self, inputs):
        return tf.nn.softmax(inputs)


def dense(activation=None):
    return layers.Dense(CLASSES, activation=activation)


def by_hand(x):
    exponentials = keras.ops.exp(dense()(x))
    return exponentials / keras.ops.sum(exponentials, axis=-1, keepdims=True)


def cast(x):
    return keras.ops.cast(dense("softmax")(x), "float32")


def average(x, activation):
    return layers.Average()([dense(activation)(x), dense(activation)(x)])


HEADS = {
    # Logits.
    "dense": (lambda x: dense()(x), "linear"),
    "linear activation": (lambda x: layers.Activation("linear")(dense()(x)), "linear"),
    "log-probabilities": (lambda x: dense("log_softmax")(x), "linear"),
    "scaled": (lambda x: dense()(x) / 3.0, "linear"),
    "sum": (lambda x: layers.Add()([dense()(x), dense()(x)]), "linear"),
    "average of logits": (lambda x: average(x, None), "linear"),
    "normalised": (lambda x: layers.BatchNormalization()(dense()(x)), "linear"),
    "some classes": (lambda x: layers.Dense(9)(x)[:, :CLASSES], "linear"),
    "block": (lambda x: ki.NAISDense(CLASSES, activation="tanh")(x), "linear"),
    "softmax inside": (lambda x: dense()(dense("softmax")(x)), "linear"),
    "nested": (lambda x: keras.Sequential([dense("relu"), dense()])(x), "linear"),
    # Probabilities.
    "softmax": (lambda x: dense("softmax")(x), "softmax"),
    "sigmoid": (lambda x: dense("sigmoid")(x), "sigmoid"),
    "softmax layer": (lambda x: layers.Softmax()(dense()(x)), "softmax"),
    "softmax operation": (lambda x: keras.ops.softmax(dense()(x)), "softmax"),
    "sigmoid operation": (lambda x: keras.ops.sigmoid(dense()(x)), "sigmoid"),
    "activation": (lambda x: layers.Activation("softmax", dtype="float32")(dense()(x)), "softmax"),
    "cast": (cast, "softmax"),
    "function": (lambda x: dense(keras.ops.softmax)(x), "softmax"),
    "function of TensorFlow": (lambda x: dense(tf.nn.sigmoid)(x), "sigmoid"),
    "identity": (lambda x: layers.Identity()(dense("softmax")(x)), "softmax"),
    "reshape": (lambda x: layers.Reshape((CLASSES,))(dense("softmax")(x)), "softmax"),
    "average": (lambda x: average(x, "softmax"), "softmax"),
    "nested softmax": (lambda x: keras.Sequential([dense(), layers.Softmax()])(x), "softmax"),
    # Neither, as far as anybody knows.
    "lambda": (lambda x: layers.Lambda(tf.nn.softmax)(dense()(x)), None),
    "own layer": (lambda x: OwnLayer()(dense()(x)), None),
    "by hand": (by_hand, None),
    "relu": (lambda x: dense("relu")(x), None),
    "scaled softmax": (lambda x: 3.0 * dense("softmax")(x), None),
    "some probabilities": (lambda x: layers.Dense(9, "softmax")(x)[:, :CLASSES], None),
    "mixed": (lambda x: layers.Average()([dense()(x), dense("softmax")(x)]), None),
}


def make_net(head):
    inputs = keras.Input(FEATURES)
    state = ki.NAISDense(4, max_unroll=5, threshold=0.1)(inputs)
    return ki.IterativeModel(inputs, HEADS[head][0](state))


@pytest.mark.parametrize("head", HEADS)
def test_the_last_layers_tell_what_outputs_are(head):
    assert output_activation(make_net(head)) == HEADS[head][1]


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (keras.losses.SparseCategoricalCrossentropy(), "softmax"),
        (keras.losses.CategoricalCrossentropy(from_logits=True), "linear"),
        (keras.losses.BinaryCrossentropy(), "sigmoid"),
        ("sparse_categorical_crossentropy", "softmax"),
        ("CategoricalCrossentropy", "softmax"),
        (keras.losses.binary_crossentropy, "sigmoid"),
        ("mse", None),
        (lambda y, z: keras.ops.mean(z), None),
    ],
)
def test_the_loss_tells_where_the_layers_do_not(loss, expected):
    model = make_net("own layer")
    model.compile("sgd", loss)
    assert output_activation(model) == expected
    for head in ("dense", "sigmoid"):
        model = make_net(head)
        model.compile("sgd", loss)
        assert output_activation(model) == HEADS[head][1]


@pytest.mark.parametrize("head", ["dense", "softmax", "own layer"])
def test_only_logits_are_called_so(head):
    model, x = make_net(head), np.random.default_rng(0).normal(size=(4, *FEATURES))
    outputs = ki.with_depth(model)(x)
    key = "logits" if head == "dense" else "outputs"
    assert set(outputs) == {key, "depth", "status"}
    np.testing.assert_allclose(outputs[key], model(x), atol=1e-6)


def test_answers_of_logits_and_of_probabilities_count_alike():
    keras.utils.set_random_seed(0)
    logits = make_net("dense")
    probabilities = keras.Model(logits.input, layers.Softmax()(logits.output))
    rng = np.random.default_rng(0)
    images, labels = rng.normal(size=(60, *FEATURES)), rng.integers(CLASSES, size=60)
    one, other = (
        ki.accuracy_by_depth(model, (images, labels), [1, 5], [])
        for model in (logits, probabilities)
    )
    assert one.by_max_unroll == other.by_max_unroll
    assert 0 < one.own.accuracy < 1


def test_a_net_of_one_output_has_no_largest():
    inputs = keras.Input(FEATURES)
    state = ki.NAISDense(4, max_unroll=2)(inputs)
    model = keras.Model(inputs, layers.Dense(1, activation="sigmoid")(state))
    data = (np.zeros((4, *FEATURES)), np.zeros(4, int))
    with pytest.raises(ValueError, match=r"at least two classes.*Received: outputs of shape"):
        ki.accuracy_by_depth(model, data)
